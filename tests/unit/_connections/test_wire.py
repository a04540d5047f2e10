"""What goes over a connection: the bytes of commands, and replies one by one."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Connection

from agents_redis_ha._connections import wire
from tests.support.fake_nodes import LOST, FakeConnection, FakePool

SMALL, LARGE = b"x" * 32_000, b"x" * 33_000


class Recording(FakeConnection):
    """Notes what is written, and fails if it is told to."""

    def __init__(self, failing: Exception | None = None) -> None:
        super().__init__(FakePool())
        self.packed: list[bytes] = []
        self.failing = failing

    async def send_packed_command(self, packed: Any, check_health: bool) -> None:
        self.packed.append(packed)
        self.timeouts.append(self.socket_timeout)
        if self.failing is not None:
            raise self.failing


async def sent(*commands: tuple[Any, ...], connection: Any = None) -> Recording:
    used: Recording = connection or Recording()
    await wire.send(cast("Any", used), commands)
    return used


async def test_numbers_texts_and_bytes_are_packed_with_their_length_in_bytes() -> None:
    connection = await sent(("SET", b"\r\n\x00", -7, "ä", ""))
    assert connection.packed == [b"*5\r\n$3\r\nSET\r\n$3\r\n\r\n\x00\r\n$2\r\n-7\r\n$2\r\n\xc3\xa4\r\n$0\r\n\r\n"]


async def test_commands_are_packed_as_redis_py_packs_them() -> None:
    commands: list[tuple[Any, ...]] = [("EVALSHA", b"5ca1", 3, b"{a}", "key", 0), ("WAIT", 1, 500)]
    assert (await sent(*commands)).packed == [b"".join(Connection().pack_commands(commands))]


async def test_several_commands_leave_in_one_write() -> None:
    assert (await sent(("A",), ("B",))).packed == [b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n"]


async def test_a_small_request_is_written_without_a_timeout_and_a_large_one_with_it() -> None:
    assert (await sent(("SET", SMALL))).timeouts == [None]
    assert (await sent(("SET", LARGE))).timeouts == [3.0]


@pytest.mark.parametrize("failing", [None, LOST])
async def test_after_a_small_request_the_connection_has_its_timeout_again(failing: Exception | None) -> None:
    connection = Recording(failing)
    if failing is None:
        await sent(("SET", SMALL), connection=connection)
    else:
        with pytest.raises(redis_errors.ConnectionError):
            await sent(("SET", SMALL), connection=connection)
    assert (connection.timeouts, connection.socket_timeout) == ([None], 3.0)


def answering(*replies: Any) -> FakeConnection:
    connection = FakeConnection(FakePool())
    connection.unread = list(replies)
    return connection


async def test_an_error_reply_stands_in_its_place_among_the_replies() -> None:
    error = redis_errors.NoScriptError("No matching script.")
    assert await wire.receive(answering(1, error, b"x"), 3) == [1, error, b"x"]  # type: ignore[arg-type]


async def test_only_the_replies_that_belong_to_the_request_are_read() -> None:
    connection = answering(1, 2, 3)
    assert await wire.receive(connection, 2) == [1, 2]  # type: ignore[arg-type]
    assert connection.unread == [3]


@pytest.mark.parametrize("error", [LOST, redis_errors.TimeoutError("x"), redis_errors.BusyLoadingError("x")])
async def test_a_connection_that_fails_ends_the_reading(error: Exception) -> None:
    with pytest.raises(type(error)):
        await wire.receive(answering(1, error, 3), 3)  # type: ignore[arg-type]
