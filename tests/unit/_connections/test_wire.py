"""What goes over a connection: the bytes of commands, and replies one by one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Connection
from redis.utils import HIREDIS_AVAILABLE

from agents_redis_ha._asyncio import Alarms
from agents_redis_ha._connections import wire
from tests.support.fake_nodes import LOST, FakeConnection, FakePool, unpacked
from tests.support.virtual_time import in_virtual_time

SMALL, LARGE = b"x" * 32_000, b"x" * 33_000


class Recording(FakeConnection):
    """Notes what is written, and fails if it is told to."""

    def __init__(self, failing: Exception | None = None) -> None:
        super().__init__(FakePool())
        self.socket_timeout = 3.0
        self.packed: list[bytes] = []
        self.failing = failing

    async def send_packed_command(self, packed: Any, check_health: bool) -> None:
        self.packed.append(packed)
        self.timeouts.append(self.socket_timeout)
        if self.failing is not None:
            raise self.failing


async def sent(*commands: tuple[Any, ...], connection: Any = None) -> Recording:
    used: Recording = connection or Recording()
    await wire.send(cast("Any", used), commands, Alarms())
    return used


@pytest.fixture(params=["by hiredis", "in Python"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in Python":
        monkeypatch.setattr(wire, "_packed", wire._pack)
    elif not HIREDIS_AVAILABLE:
        pytest.skip("hiredis is not installed")


@pytest.mark.usefixtures("packing")
async def test_numbers_texts_and_bytes_are_packed_with_their_length_in_bytes() -> None:
    connection = await sent(("SET", b"\r\n\x00", -7, "ä", ""))
    assert connection.packed == [b"*5\r\n$3\r\nSET\r\n$3\r\n\r\n\x00\r\n$2\r\n-7\r\n$2\r\n\xc3\xa4\r\n$0\r\n\r\n"]


@pytest.mark.usefixtures("packing")
async def test_commands_are_packed_as_redis_py_packs_them() -> None:
    commands: list[tuple[Any, ...]] = [("EVALSHA", b"5ca1", 3, b"{a}", "key", 0), ("WAIT", 1, 500)]
    commands += [("SET", b"x" * length) for length in (0, 1023, 1024, 70_000)]
    assert b"".join((await sent(*commands)).packed) == b"".join(Connection().pack_commands(commands))


async def test_several_commands_leave_in_one_write() -> None:
    assert (await sent(("A",), ("B",))).packed == [b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n"]


async def test_a_small_request_is_written_at_once_and_a_large_one_piece_by_piece() -> None:
    assert len((await sent(("SET", SMALL))).packed) == 1
    pieces = (await sent(("SET", b"x" * 200_000))).packed
    assert [len(piece) for piece in pieces] == [65536, 65536, 65536, 3416]
    assert unpacked(b"".join(pieces)) == [(b"SET", b"x" * 200_000)]


@pytest.mark.parametrize("size", [len(SMALL), len(LARGE)])
@pytest.mark.parametrize("failing", [None, LOST])
async def test_redis_py_bounds_no_request_as_a_whole_and_the_connection_has_its_timeout_again(
    size: int, failing: Exception | None
) -> None:
    connection = Recording(failing)
    if failing is None:
        await sent(("SET", b"x" * size), connection=connection)
    else:
        with pytest.raises(redis_errors.ConnectionError):
            await sent(("SET", b"x" * size), connection=connection)
    assert set(connection.timeouts) == {None}
    assert connection.socket_timeout == 3.0


async def test_the_rest_of_a_request_is_never_written_to_another_connection() -> None:
    class Closing(Recording):
        async def send_packed_command(self, packed: Any, check_health: bool) -> None:
            await super().send_packed_command(packed, check_health)
            self.is_connected = False  # redis-py connects at the next write

    connection = Closing()
    with pytest.raises(redis_errors.ConnectionError, match="closed while"):
        await sent(("SET", b"x" * 200_000), connection=connection)
    assert len(connection.packed) == 1


class Slow(Recording):
    """Takes each piece of a request, and gives each piece of a reply, after some seconds."""

    def __init__(self, *pauses: float) -> None:
        super().__init__()
        self.pauses = pauses

    async def send_packed_command(self, packed: Any, check_health: bool) -> None:
        await asyncio.sleep(self.pauses[len(self.packed)])
        await super().send_packed_command(packed, check_health)

    async def read_response(self, disable_decoding: bool) -> Any:
        for pause in self.pauses:
            await asyncio.sleep(pause)
        return b"reply"


@in_virtual_time
async def test_a_transfer_takes_as_long_as_it_takes_while_something_moves() -> None:
    await wire.send(cast("Any", Slow(2.9, 2.9, 2.9, 2.9)), [("SET", b"x" * 200_000)], Alarms())
    connection: Any = Slow(2.9, 2.9, 2.9, 2.9)
    assert await wire.receive(connection, 2, Alarms()) == [b"reply", b"reply"]
    assert connection.socket_timeout == 3.0


@in_virtual_time
@pytest.mark.parametrize("pauses", [(3.1, 0, 0, 0), (0, 3.1, 0, 0), (2.9, 2.9, 2.9, 3.1)])
async def test_silence_ends_a_transfer_at_any_point_of_it(pauses: tuple[float, ...]) -> None:
    connection: Any = Slow(*pauses)
    began = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.TimeoutError, match="nothing of the request was taken for 3 s"):
        await wire.send(connection, [("SET", b"x" * 200_000)], Alarms())
    assert connection.socket_timeout == 3.0
    with pytest.raises(asyncio.TimeoutError, match="nothing arrived for 3 s"):
        await wire.receive(connection, 1, Alarms())
    assert connection.socket_timeout == 3.0
    silent_for = asyncio.get_running_loop().time() - began - 2 * sum(pause for pause in pauses if pause < 3)
    assert silent_for == pytest.approx(6, abs=0.01)


@in_virtual_time
async def test_a_large_request_is_given_time_to_leave_the_buffers_on_its_way() -> None:
    connection: Any = Slow(0.1, 98.8)
    assert await wire.receive(connection, 1, Alarms(), sent_bytes=12 * 1024 * 1024) == [b"reply"]
    with pytest.raises(asyncio.TimeoutError, match="for 99 s"):
        await wire.receive(cast("Any", Slow(99.1)), 1, Alarms(), sent_bytes=12 * 1024 * 1024)
    with pytest.raises(asyncio.TimeoutError, match="for 3 s"):
        await wire.receive(cast("Any", Slow(3.01)), 1, Alarms(), sent_bytes=len(SMALL))


@in_virtual_time
async def test_a_connection_without_a_timeout_is_waited_for() -> None:
    connection: Any = Slow(1000)
    connection.socket_timeout = None
    await wire.send(connection, [("SET", LARGE)], Alarms())
    assert await wire.receive(connection, 1, Alarms()) == [b"reply"]


async def test_a_timeout_that_an_announcement_of_maintenance_sets_meanwhile_stays() -> None:
    class Announced(Slow):
        async def read_response(self, disable_decoding: bool) -> Any:
            self.socket_timeout = 10.0
            return b"reply"

    connection: Any = Announced()
    await wire.receive(connection, 1, Alarms())
    assert connection.socket_timeout == 10.0


def answering(*replies: Any) -> FakeConnection:
    connection = FakeConnection(FakePool())
    connection.unread = list(replies)
    return connection


async def test_an_error_reply_stands_in_its_place_among_the_replies() -> None:
    error = redis_errors.NoScriptError("No matching script.")
    assert await wire.receive(answering(1, error, b"x"), 3, Alarms()) == [1, error, b"x"]  # type: ignore[arg-type]


async def test_only_the_replies_that_belong_to_the_request_are_read() -> None:
    connection = answering(1, 2, 3)
    assert await wire.receive(connection, 2, Alarms()) == [1, 2]  # type: ignore[arg-type]
    assert connection.unread == [3]


@pytest.mark.parametrize("error", [LOST, redis_errors.TimeoutError("x"), redis_errors.BusyLoadingError("x")])
async def test_a_connection_that_fails_ends_the_reading(error: Exception) -> None:
    with pytest.raises(type(error)):
        await wire.receive(answering(1, error, 3), 3, Alarms())  # type: ignore[arg-type]
