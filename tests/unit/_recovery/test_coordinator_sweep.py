"""After a failover or a restart the coordinator looks at all sessions that it knows, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, OutOfMemoryError

from agents_redis_ha import HAConfig, RetryConfig
from agents_redis_ha import _ambient as ambient
from agents_redis_ha._commands import ReplicationHistory, Reply, SessionSpec, Status, append, info
from agents_redis_ha._connections import Request
from agents_redis_ha._recovery import RecoveryCoordinator
from agents_redis_ha._recovery.sweep import _SWEEPERS
from agents_redis_ha._retry import Executor
from tests.support.fakes import I_AM, NODE, FakeServer, a_position, an_id, applied, described, failed
from tests.support.recovery import PATIENT, Clock, Process, found, spec
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import eventually

LOG_MISMATCH = Status.LOG_MISMATCH
BEFORE, FIRST, SECOND = (ReplicationHistory(NODE, id_) for id_ in ("0d", "1f", "2e"))
OTHER = ReplicationHistory("h:2", "3c")


def knows(process: Process, names: Iterable[str], history: ReplicationHistory = BEFORE) -> list[SessionSpec]:
    """Let the process know sessions whose first version is in a server's data."""
    journal = process.coordinator._journal
    journal.meet(history)
    specs = [spec(name) for name in names]
    for known in specs:
        journal.log(known).see(a_position(1), history, None)
    return specs


async def swept(process: Process) -> None:
    """Wait for the sweep that is under way."""
    assert process.coordinator.sweeps
    while tasks := [*process.coordinator._sweep._tasks]:
        await asyncio.wait(tasks)


async def use(process: Process, other: SessionSpec) -> None:
    await process.coordinator.execute(process.begin("info", changes=False), info(other))


def looked_at(server: FakeServer) -> list[str]:
    return [inspected.spec.session_id for inspected in server.sent("inspect")]


def one_version() -> FakeServer:
    """Return a server that has the first version of every session."""
    return FakeServer(info=[described(1, 1)], append=[applied(2)], inspect=[found(1, an_id(1))])


async def test_after_a_restart_the_other_sessions_are_looked_at_in_the_background() -> None:
    server = one_version()
    process = Process(server)
    others = knows(process, "abc", FIRST)
    await process.info()
    assert not process.coordinator.sweeps
    server.becomes_another()
    await process.info()
    await swept(process)
    assert looked_at(server) == ["u", "c", "b", "a"][1:]  # those used last first
    assert {process.coordinator._journal.log(other).history for other in others} == {SECOND}
    await process.info()
    assert not process.coordinator.sweeps
    await process.coordinator.aclose()


async def test_they_are_looked_at_where_the_session_that_noticed_was_lost_itself() -> None:
    server = FakeServer(append=[[LOG_MISMATCH, 0], applied(2)], inspect=[found(1, an_id(1))])
    process = Process(server)
    knows(process, ["a", "b", "u"])
    await process.append(b"x", id_=an_id(2))
    await swept(process)
    assert looked_at(server) == ["u", "b", "a"]


async def test_they_are_looked_at_where_only_new_sessions_are_used() -> None:
    server = one_version()
    process = Process(server)
    knows(process, ["a", "b"])
    await use(process, spec("new"))
    await swept(process)
    assert looked_at(server) == ["b", "a"]


async def test_the_first_contact_is_no_restart() -> None:
    server = one_version()
    process = Process(server)
    await process.info()
    assert not process.coordinator.sweeps
    assert server.asked == ["info"]


async def test_what_a_process_knew_in_an_event_loop_before_is_looked_at_in_the_next() -> None:
    server, before = one_version(), Process(one_version())
    knows(before, "abc")
    config = HAConfig(nodes=["h"], retry=PATIENT)
    process = Process(server)
    process.coordinator = RecoveryCoordinator(config, Executor(config, server), before.coordinator._journal)
    await use(process, spec("new"))
    await swept(process)
    assert looked_at(server) == ["c", "b", "a"]


async def test_two_servers_that_answer_in_turn_behind_one_name_cause_one_sweep_each() -> None:
    server = one_version()
    process = Process(server)
    knows(process, [str(number) for number in range(20)])
    for turn in range(40):
        server.replication_id = ("1f", "2e")[turn % 2]
        await process.info()
        assert process.coordinator.sweeps is (turn < 2)
        if process.coordinator.sweeps:
            await swept(process)
    assert sorted(looked_at(server), key=int) == sorted(2 * [str(number) for number in range(20)], key=int)


async def test_each_primary_of_a_cluster_has_a_history_of_its_own() -> None:
    async def of_other(request: Request) -> Any:
        return Reply(described(1, 1), [], OTHER, request.known.position)

    server = FakeServer(
        info=[of_other, of_other, described(1, 1), of_other, described(1, 1)], inspect=[found(1, an_id(1))]
    )
    process = Process(server)
    knows(process, ["a"], BEFORE)
    knows(process, [f"other{number}" for number in range(50)], OTHER)
    server.replication_id = BEFORE.replication_id
    for _ in range(2):
        await process.info()
    await swept(process)
    server.requests.clear()
    server.replication_id = "1f"  # one primary is started again
    await process.info()
    await process.info()  # the other one answers as before, so its sessions are passed over
    await swept(process)
    assert "a" in looked_at(server)
    assert len(looked_at(server)) <= 1 + _SWEEPERS  # of the other primary's before it answered
    await process.info()
    assert not process.coordinator.sweeps


async def test_where_no_replication_id_is_told_a_failover_is_enough() -> None:
    server = one_version()
    server.replication_id = None
    process = Process(server)
    knows(process, ["a"], ReplicationHistory(NODE, None))
    await process.info()
    assert not process.coordinator.sweeps
    server.failovers.append(NODE)
    await process.info()
    await swept(process)
    assert sorted(looked_at(server)) == ["a", "u"]


async def test_a_sweep_that_is_asked_for_while_one_runs_is_not_lost() -> None:
    gate = asyncio.Event()

    async def look(request: Request) -> Any:
        await gate.wait()
        return Reply(found(1, an_id(1)), [I_AM], FIRST, request.known.position)

    server = FakeServer(info=[described(1, 1)], inspect=[look] * _SWEEPERS + [found(1, an_id(1))])
    process = Process(server)
    knows(process, [str(number) for number in range(_SWEEPERS)])
    await process.info()
    await eventually(lambda: len(looked_at(server)) == _SWEEPERS, "all are being looked at")
    server.becomes_another()
    await process.info()
    gate.set()  # what they find is of the server before
    await swept(process)
    assert sorted(looked_at(server)) == sorted(2 * [str(number) for number in range(_SWEEPERS)])


async def test_a_look_whose_reply_is_of_the_server_before_does_not_count_however_it_meets_the_next_look() -> None:
    gate = asyncio.Event()

    async def late(request: Request) -> Any:
        await gate.wait()
        return Reply(found(1, an_id(1)), [I_AM], FIRST, request.known.position)

    server = FakeServer(info=[described(1, 1)], inspect=[late, found(1, an_id(1))])
    process = Process(server)
    (known,) = knows(process, ["a"])
    await process.info()
    await eventually(lambda: looked_at(server) == ["a"], "it is being looked at")
    server.becomes_another()
    await process.info()  # the other tasks of the sweep look at it again, while the first look is under way
    await eventually(lambda: not process.coordinator._journal.waits, "all wait for it")
    gate.set()
    await swept(process)
    assert process.coordinator._journal.log(known).history == SECOND


async def test_a_restart_that_a_look_meets_itself_makes_those_before_it_be_looked_at_again() -> None:
    async def look(request: Request) -> Any:
        if server.asked.count("inspect") >= 20 and not restarts:  # several may be asked at once
            server.becomes_another()
            restarts.append(SECOND)
        return found(1, an_id(1))

    restarts = list[Any]()
    server = FakeServer(info=[described(1, 1)], inspect=[look])
    process = Process(server)
    known = [str(number) for number in range(40)]
    knows(process, known)
    await process.info()
    await swept(process)
    assert {log.history for log in process.coordinator._journal} == {SECOND}
    assert set(looked_at(server)) == {*known, "u"}


async def test_a_sweep_that_is_asked_for_in_the_moment_when_one_ends_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = one_version()
    process = Process(server)
    journal, ended = process.coordinator._journal, list[None]()

    def next_waiting(original: Any = journal.next_waiting) -> Any:
        log = original()
        if log is None and len(ended) < _SWEEPERS:
            ended.append(log)
            if len(ended) == _SWEEPERS:  # all tasks are about to end: a reply comes right then
                server.becomes_another()
                process.coordinator._meet(process.begin("info", changes=False), SECOND)
        return log

    journal.meet(BEFORE)
    monkeypatch.setattr(journal, "next_waiting", next_waiting)
    await process.info()  # the only session that is known was just used: there is nothing to look at
    await eventually(lambda: looked_at(server) == ["u"], "it is looked at now")


async def test_closing_ends_the_look_at_the_other_sessions() -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    server = FakeServer(info=[described(1, 1)], inspect=[hang])
    process = Process(server)
    knows(process, ["other"])
    await process.info()
    await eventually(lambda: server.asked == ["info", "inspect"], "the other session is looked at")
    await process.coordinator.aclose()
    assert (server.closed, server.asked) == (1, ["info", "inspect"])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    # It waits for the next event loop's coordinator, and closing was the end of this one's.
    assert [log.spec.session_id for log in process.coordinator._journal._waiting.logs.values()] == ["other"]
    process.coordinator._meet(process.begin("info", changes=False), SECOND)
    assert not process.coordinator.sweeps


async def test_a_look_that_takes_its_cancellation_for_something_else_is_the_last_one() -> None:
    async def swallow(request: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return found(1, an_id(1))

    server = FakeServer(info=[described(1, 1)], inspect=[swallow])
    process = Process(server)
    knows(process, [str(number) for number in range(50)])
    await process.info()
    await eventually(lambda: len(looked_at(server)) == _SWEEPERS, "some are being looked at")
    await process.coordinator.aclose()
    assert len(looked_at(server)) == _SWEEPERS


async def test_a_close_that_is_cancelled_closes_the_connections_all_the_same() -> None:
    async def stubborn(request: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)

    server = FakeServer(info=[described(1, 1)], inspect=[stubborn])
    process = Process(server)
    knows(process, ["a"])
    await process.info()
    await eventually(lambda: looked_at(server) == ["a"], "it is being looked at")
    closing = asyncio.ensure_future(process.coordinator.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait((closing,))
    assert server.closed == 1


async def test_a_few_sessions_are_looked_at_at_once_and_those_that_were_used_since_are_passed_over() -> None:
    under_way, most, tasks = 0, 0, 0

    async def look(request: Any) -> Any:
        nonlocal under_way, most, tasks
        under_way, most = under_way + 1, max(most, under_way + 1)
        tasks = max(tasks, len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        under_way -= 1
        return found(1, an_id(1))

    server = FakeServer(info=[described(1, 1)], inspect=[look])
    process = Process(server)
    journal = process.coordinator._journal
    knows(process, [f"s{number}" for number in range(20)])
    journal.log(spec("never used"))  # nothing is known of it that could be lost
    server.becomes_another()
    journal.log(spec("s0")).see(a_position(1), SECOND, None)
    await process.info()
    await swept(process)
    assert (most, tasks) == (_SWEEPERS, _SWEEPERS + 1)  # and the test's own
    assert sorted(looked_at(server)) == sorted(f"s{number}" for number in range(1, 20))


async def test_sessions_that_are_past_their_retention_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(ambient, "monotonic", clock.monotonic)
    server = one_version()
    process = Process(server)
    knows(process, ["old"])
    process.coordinator._journal.log(spec("expired")).see(a_position(1), BEFORE, clock.now + 5)
    clock.now += 119
    knows(process, ["recent"])
    clock.now += 2
    await process.info()
    await swept(process)
    assert looked_at(server) == ["recent"]


@in_virtual_time
@pytest.mark.parametrize(("look_seconds", "rest_seconds"), [(0.0005, 0.006), (0.005, 0.06), (1, 0.1)])
async def test_a_sweep_rests_twelve_times_as_long_as_it_works(look_seconds: float, rest_seconds: float) -> None:
    async def look(request: Request) -> Any:
        await asyncio.sleep(look_seconds)
        return found(1, an_id(1))

    process = Process(FakeServer(info=[described(1, 1)], inspect=[look]))
    knows(process, [str(number) for number in range(400)])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await process.info()
    await swept(process)
    assert loop.time() - began == pytest.approx(400 / _SWEEPERS * (look_seconds + rest_seconds), rel=0.1)


async def test_sessions_that_wait_to_be_looked_at_are_dropped_last() -> None:
    server = one_version()
    process = Process(server, max_changes=20)
    knows(process, [f"s{number}" for number in range(18)])
    server.becomes_another()
    for number in range(30):
        await use(process, spec(f"new{number}"))
        assert len(process.coordinator._journal) <= 20
    await swept(process)
    assert sorted(looked_at(server)) == sorted(f"s{number}" for number in range(18))


async def test_a_session_that_cannot_be_looked_at_is_looked_at_by_its_next_operation() -> None:
    server = FakeServer(
        info=[described(1, 1)],
        append=[[LOG_MISMATCH, 0], applied(2)],
        inspect=[failed(NoPermissionError("no")), found(1, an_id(1))],
    )
    process = Process(server)
    (other,) = knows(process, ["other"])
    await process.info()
    await swept(process)  # its error is the span's only
    change = await process.coordinator.execute(process.begin("append", changes=True), append(other, [b"x"]))
    assert (change.version, server.asked) == (2, ["info", "inspect", "append", "inspect", "append"])


async def swept_while_full() -> tuple[Process, FakeServer, SessionSpec]:
    """Return a process whose look at a session has met its deadline: the server was full, and is not any more."""
    full = failed(OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    server = FakeServer(info=[described(1, 1)], inspect=[full])
    process = Process(server, RetryConfig(deadline_seconds=1))
    (other,) = knows(process, ["other"])
    await process.info()
    await swept(process)
    server.scripts["inspect"] = [found(1, an_id(1))]
    return process, server, other


@in_virtual_time
async def test_a_look_that_its_deadline_ends_is_made_again_after_a_pause_with_an_operation_on_any_session() -> None:
    process, _, other = await swept_while_full()
    assert process.coordinator._journal.log(other).history == BEFORE
    await process.info()
    assert not process.coordinator.sweeps  # not at once
    await asyncio.sleep(0.3)
    await process.info()
    await swept(process)
    assert process.coordinator._journal.log(other).history == FIRST


@in_virtual_time
async def test_after_another_failover_no_look_waits_for_that_pause() -> None:
    process, server, other = await swept_while_full()
    server.becomes_another()
    await process.info()
    await swept(process)
    assert process.coordinator._journal.log(other).history == SECOND
