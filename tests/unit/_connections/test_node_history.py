"""Whose data a reply is: the replication id is that of the server at the other end of the connection it came on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha._commands import REPLICATION_INFO, Command, ReplicationHistory, Reply
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.node import Node
from tests.support.fake_nodes import FakePool, command, fake_node
from tests.support.fakes import request

INSPECT = command(trailing=(REPLICATION_INFO,), allow_trailing_errors=True)


def server(replication_id: str, role: str = "master") -> bytes:
    """Return what a server tells of itself."""
    return f"# Replication\r\nrole:{role}\r\nmaster_replid:{replication_id}\r\n".encode()


async def history(used: Node) -> ReplicationHistory:
    return (await used.execute(request(command()))).history


class Old:
    """A reply that is under way on a connection to the server of before, while a new connection finds another one."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.pool = FakePool(b"OK", self.reply)
        self.pool.identity = server("1f")
        self.node = fake_node(self.pool, owned=False)

    async def is_replaced(self, asked: Command[Any] | None = None) -> asyncio.Future[Reply]:
        """Let another server take over behind the name; return the reply of the one of before."""
        await self.node.call(("PING",))
        late = asyncio.ensure_future(self.node.execute(request(asked or command())))
        await asyncio.sleep(0)
        self.pool.identity = server("2e")
        assert await history(self.node) == ("h:1", "2e")
        return late


async def test_a_reply_is_of_the_server_that_its_own_connection_leads_to() -> None:
    late = await (old := Old()).is_replaced()
    old.reply.set_result(b"confirmed")
    assert (await late).history == ("h:1", "1f")
    assert old.node.replication_id == "2e"


async def test_a_connection_to_the_server_of_before_is_made_anew_before_it_is_used() -> None:
    late = await (old := Old()).is_replaced()
    old.reply.set_result(b"confirmed")
    await late
    for _ in range(4):
        assert await history(old.node) == ("h:1", "2e")
    assert sorted(connection.made_anew for connection in old.pool.connections) == [0, 1]
    assert (old.pool.introductions, old.pool.in_use) == (3, 0)


async def test_a_connection_that_cannot_be_made_anew_goes_back_and_nothing_was_sent() -> None:
    late = await (old := Old()).is_replaced()
    old.reply.set_result(b"confirmed")
    await late
    old.pool.cannot_connect, written = redis_errors.ConnectionError("refused"), list(old.pool.written)
    with pytest.raises(AttemptError, match="refused") as caught:
        await history(old.node)
    assert not caught.value.sent
    assert (old.pool.in_use, old.pool.written) == (0, written)
    old.pool.cannot_connect = None
    assert await history(old.node) == ("h:1", "2e")


async def test_an_inspection_on_an_old_connection_does_not_make_its_server_the_newest() -> None:
    old = Old()
    old.pool.replies.append(server("1f"))
    late = await old.is_replaced(INSPECT)
    old.reply.set_result(b"state")
    assert (await late).history == ("h:1", "1f")
    assert old.node.replication_id == "2e"


async def test_an_inspection_tells_that_the_same_server_has_a_new_history() -> None:
    pool = FakePool(b"OK", 7, server("2e"))
    used = fake_node(pool)
    await used.call(("PING",))
    assert (await used.execute(request(INSPECT))).history == ("h:1", "2e")
    assert await history(used) == ("h:1", "2e")
    assert (used.replication_id, pool.introductions, pool.connection.made_anew) == ("2e", 1, 0)


async def test_a_replica_is_asked_again_since_its_id_changes_when_it_is_promoted() -> None:
    used = fake_node(pool := FakePool())
    pool.identity = server("1f", role="slave")
    await used.call(("CLUSTER", "SLOTS"))
    assert (await history(used), used.replication_id) == (("h:1", None), None)
    pool.identity = server("2e")
    for _ in range(2):
        assert await history(used) == ("h:1", "2e")
    assert pool.introductions == 3


@pytest.mark.parametrize(
    ("refusal", "introductions"),
    [
        (redis_errors.ResponseError("BUSY Redis is busy running a script"), 3),
        (redis_errors.NoPermissionError("this user has no permissions to run the 'info' command"), 1),
        (redis_errors.ResponseError("unknown command 'INFO'"), 1),
        (b"# Replication\r\nrole:master\r\n", 1),
    ],
)
async def test_a_server_that_cannot_tell_for_now_is_asked_again(refusal: Any, introductions: int) -> None:
    used = fake_node(pool := FakePool())
    pool.identity = refusal
    for _ in range(3):
        assert await history(used) == ("h:1", None)
    assert pool.introductions == introductions


async def test_an_id_that_outlives_a_takeover_is_a_constant_and_says_nothing() -> None:
    used = fake_node(FakePool(), *(pools := [FakePool(), FakePool()]))
    for pool, replication_id in zip(pools, ("1f" * 20, "2e"), strict=True):
        pool.identity = server(replication_id)
    assert await history(used) == ("h:1", "1f" * 20)
    used.note_takeover(used.replication_id)
    used.start_afresh()
    assert await history(used) == ("h:1", None)
    used.start_afresh()
    assert await history(used) == ("h:1", "2e")


async def test_where_no_id_was_told_before_a_takeover_the_next_one_counts() -> None:
    used = fake_node(FakePool())
    used.note_takeover(used.replication_id)
    assert await history(used) == ("h:1", "1f" * 20)


async def test_what_is_known_of_a_connection_ends_with_its_pool() -> None:
    late = asyncio.get_running_loop().create_future()
    used = fake_node(FakePool(b"OK", late, late), FakePool())
    await used.call(("PING",))
    under_way = [asyncio.ensure_future(used.call(("PING",))) for _ in range(2)]  # the second on a new connection
    await asyncio.sleep(0)
    used.start_afresh()
    late.set_result(b"OK")
    await asyncio.gather(*under_way)
    assert len(used._ids) == 0


async def test_an_inspection_on_a_new_connection_is_of_the_history_that_was_told_behind_it() -> None:
    used = fake_node(pool := FakePool(7, server("2e")))
    assert (await used.execute(request(INSPECT))).history == ("h:1", "2e")
    assert pool.introductions == 1
