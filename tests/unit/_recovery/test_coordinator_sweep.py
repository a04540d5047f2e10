"""After a failover or a restart the coordinator looks at all sessions that it knows, in the background."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import NoPermissionError

from agents_redis_ha._commands import ReplicationHistory, Status, append
from tests.support.fakes import NODE, FakeServer, a_position, an_id, applied, described, failed
from tests.support.recovery import Process, found, spec
from tests.support.turns import eventually

APPLIED, LOG_MISMATCH = Status.APPLIED, Status.LOG_MISMATCH


async def test_after_a_restart_the_other_sessions_are_looked_at_in_the_background() -> None:
    server = FakeServer(
        append=[applied(1)],
        info=[described(1, 1)],
        inspect=[found(1, an_id(1))],
    )
    process = Process(server)
    others = [spec(name) for name in ("a", "b", "c")]
    for other in others:
        process.coordinator._journal.log(other).see(a_position(1), ReplicationHistory(NODE, "1f"), None)
    await process.append(b"one", id_=an_id(1))
    assert process.coordinator._sweep is None
    server.becomes_another()
    await process.info()
    assert process.coordinator._sweep is not None
    await process.coordinator._sweep
    looked_at = [inspected.spec for inspected in server.sent("inspect")]
    assert looked_at == [*reversed(others)]  # those used last first
    assert {process.coordinator._journal.log(other).history for other in others} == {ReplicationHistory(NODE, "2e")}
    await process.info()
    assert server.asked.count("inspect") == 3
    await process.coordinator.aclose()


async def test_closing_ends_the_look_at_the_other_sessions() -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    server = FakeServer(info=[described(1, 1)], inspect=[hang])
    process = Process(server)
    other = spec("other")
    process.coordinator._journal.log(other).see(a_position(1), ReplicationHistory(NODE, "0d"), None)
    process.log.see(a_position(1), ReplicationHistory(NODE, "0d"), None)
    await process.info()
    await eventually(lambda: server.asked == ["info", "inspect"], "the other session is looked at")
    await process.coordinator.aclose()
    assert (server.closed, server.asked) == (1, ["info", "inspect"])
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_few_sessions_are_looked_at_at_once_and_those_that_were_used_since_are_passed_over() -> None:
    under_way, most = 0, 0

    async def look(request: Any) -> Any:
        nonlocal under_way, most
        under_way, most = under_way + 1, max(most, under_way + 1)
        await asyncio.sleep(0)
        under_way -= 1
        return found(1, an_id(1))

    server = FakeServer(info=[described(1, 1)], inspect=[look])
    process = Process(server)
    journal = process.coordinator._journal
    for number in range(20):
        history = ReplicationHistory(NODE, "1f" if number else server.replication_id)
        journal.log(spec(f"s{number}")).see(a_position(1), history, None)
    journal.log(spec("never used"))  # nothing is known of it that could be lost
    process.log.see(a_position(1), ReplicationHistory(NODE, "1f"), None)
    server.becomes_another()
    journal.log(spec("s0")).see(a_position(1), ReplicationHistory(NODE, "2e"), None)
    await process.info()
    assert process.coordinator._sweep is not None
    await process.coordinator._sweep
    assert most == 4
    names = {inspected.spec.session_id for inspected in server.sent("inspect")}
    assert names == {f"s{number}" for number in range(1, 20)}


async def test_a_session_that_cannot_be_looked_at_is_looked_at_by_its_next_operation() -> None:
    server = FakeServer(
        info=[described(1, 1)],
        append=[[LOG_MISMATCH, 0], applied(2)],
        inspect=[failed(NoPermissionError("no")), found(1, an_id(1))],
    )
    process = Process(server)
    process.log.see(a_position(1), ReplicationHistory(NODE, "0d"), None)
    other = spec("other")
    process.coordinator._journal.log(other).see(a_position(1), ReplicationHistory(NODE, "0d"), None)
    await process.info()
    assert process.coordinator._sweep is not None
    await process.coordinator._sweep  # its error is the span's only
    change = await process.coordinator.execute(process.begin("append", changes=True), append(other, [b"x"]))
    assert (change.version, server.asked) == (2, ["info", "inspect", "append", "inspect", "append"])
