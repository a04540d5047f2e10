"""What the coordinator does about lost history, step by step, and what it tells. The server's side is scripted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from agents_redis_ha import RetryConfig
from agents_redis_ha._commands import NO_POSITION, ReplicationHistory, Reply, Status, append, chain, pop
from agents_redis_ha._connections import Request, ShortfallError
from agents_redis_ha._recovery.replay import pack
from agents_redis_ha._telemetry import counters
from agents_redis_ha.errors import DeadlineExceededError, HistoryLostError, OperationError, Outcome
from tests.support.fakes import (
    NODE,
    SPEC,
    FakeServer,
    a_digest,
    a_position,
    an_id,
    applied,
    described,
    elements,
    failed,
    noted,
    reply,
)
from tests.support.recovery import Clock, Process, entry, found
from tests.support.virtual_time import in_virtual_time

APPLIED, CONFLICT, LOG_MISMATCH, UNCHANGED = Status.APPLIED, Status.CONFLICT, Status.LOG_MISMATCH, Status.UNCHANGED


async def test_what_is_missing_and_known_is_put_back_before_the_operation_goes_on() -> None:
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 1], applied(3)],
        inspect=[found(1, an_id(1), fence=2)],
        restore=[[APPLIED, 2]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    before = counters()["changes_restored"]
    change = await process.append(b"three", id_=an_id(3))
    assert server.asked == ["append"] * 3 + ["inspect", "restore", "append"]
    assert (change.version, counters()["changes_restored"]) == (3, before + 1)
    (restored,) = server.sent("restore")
    # What was found and what is to be there, one change, no result, one element.
    assert restored.arguments[:9] == (1, 2, 2, a_digest(2), 0, 0, 1, 0, 0)
    assert restored.arguments[9:] == (1, an_id(2), a_digest(2) + b"2", 0, 0, b"two")
    assert server.positions[4] == a_position(1)  # the one that was inspected, whatever this process knows
    assert process.log.position == a_position(3)


@pytest.mark.parametrize(
    "cause",
    [ShortfallError("on 0 of 1 replicas", 0.0), ResponseError("unknown command 'WAITAOF'")],
    ids=["short", "refused"],
)
@in_virtual_time
async def test_a_change_that_is_there_and_failed_all_the_same_is_put_back(cause: Exception) -> None:
    server = FakeServer(
        append=[failed(cause, sent=True, reply=reply(applied(1)))],
        info=[described(mismatch=True), described(1, 1)],
        inspect=[found(0, length=0)],
        restore=[[APPLIED, 1]],
    )
    process = Process(server, RetryConfig(deadline_seconds=1))
    with pytest.raises(OperationError) as caught:
        await process.append(b"one", id_=an_id(1))
    assert caught.value.outcome is Outcome.APPLIED
    server.becomes_another()
    before = counters()["changes_restored"]
    assert (await process.info()).version == 1
    assert counters()["changes_restored"] == before + 1
    (restored,) = server.sent("restore")
    assert restored.arguments[-1] == b"one"


THREE = entry(3, b"three")
HINT = (f"3:entry:{a_digest(3).decode()}", pack(THREE))


async def test_what_another_process_may_know_is_waited_for_and_what_is_known_here_is_left_as_a_hint_once() -> None:
    other = entry(2, b"two")
    server = FakeServer(
        append=[applied(1), applied(3), applied(4)],
        info=[described(1, 1, mismatch=True), described(3, 3)],
        inspect=[
            found(1, an_id(1)),
            found(1, an_id(1), fence=3, hints=(THREE,)),
            found(1, an_id(1), fence=3, hints=(THREE, other)),
        ],
        restore=[[APPLIED, 3]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    await process.info()
    assert [inspected.arguments[1:] for inspected in server.sent("inspect")] == [(), HINT, ()]
    # The first look asks what is there, and fences nothing; the others say what is missed.
    assert server.positions[3:6] == [NO_POSITION, a_position(3), a_position(3)]
    (restored,) = server.sent("restore")
    assert restored.arguments[-2:] == (b"two", b"three")
    assert server.asked[-1] == "info"


async def test_hints_that_a_server_lost_are_left_again() -> None:
    server = FakeServer(
        append=[applied(1), applied(3), applied(4)],
        info=[described(1, 1, mismatch=True), described(3, 3)],
        inspect=[
            found(1, an_id(1)),
            found(1, an_id(1), fence=3, hints=(THREE,)),
            found(1, an_id(1), fence=3),  # of one more server, to which the fence alone had come
            found(1, an_id(1), fence=3, hints=(THREE,)),
            found(3, an_id(3), an_id(2), an_id(1)),
        ],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    await process.info()
    left = [inspected.arguments[1:] for inspected in server.sent("inspect")]
    assert left == [(), HINT, (), HINT, ()]


def loss() -> FakeServer:
    """Return a server that lost version 2, which no process knows any more, and 3."""
    return FakeServer(
        append=[applied(1), applied(3), [LOG_MISMATCH, 1], applied(4)],
        inspect=[found(1, an_id(1), fence=3, age_ms=1000), found(1, an_id(1), fence=3, age_ms=2001)],
        restore=[[APPLIED, 3]],
    )


async def test_what_no_process_knows_is_given_up_after_the_patience_and_told_once() -> None:
    server = loss()
    process = Process(server, patience_seconds=2)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    before = counters()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert (caught.value.versions, caught.value.outcome) == ((2,), Outcome.NOT_APPLIED)
    assert "the servers lost 1 change that had been confirmed (versions 2)" in str(caught.value)
    assert server.asked == ["append"] * 3 + ["inspect", "inspect", "restore"]
    assert counters()["changes_lost"] == before["changes_lost"] + 1
    assert counters()["changes_restored"] == before["changes_restored"] + 1
    assert (await process.append(b"four", id_=an_id(4))).version == 4


async def test_a_loss_is_only_noted_where_that_is_wanted() -> None:
    server = loss()
    process = Process(server, patience_seconds=2, on_loss="warn")
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    before = counters()["changes_lost"]
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert counters()["changes_lost"] == before + 1


async def test_what_is_missing_on_the_server_that_had_it_was_deleted() -> None:
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 0], applied(1)],
        inspect=[found(0, fence=2, length=0)],
        restore=[[APPLIED, 0]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    before = counters()
    assert (await process.append(b"three", id_=an_id(3))).version == 1
    assert server.asked[3:] == ["inspect", "restore", "append"]
    (restored,) = server.sent("restore")  # nothing is put back; the fence is lifted
    assert restored.arguments == (0, 2, 0, b"", 0, 0, 0, 0, 0, 0, 0, 0)
    assert counters() == before


async def test_what_another_process_is_putting_back_was_not_deleted() -> None:
    hint = entry(2, b"two")
    server = FakeServer(
        append=[applied(1), applied(3), [LOG_MISMATCH, 0], applied(4)],
        inspect=[found(0, fence=3, length=0, age_ms=10, hints=(hint,))],
        restore=[[APPLIED, 3]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    (restored,) = server.sent("restore")
    assert restored.arguments[-3:] == (b"one", b"two", b"three")


async def test_a_restoration_that_comes_second_looks_again() -> None:
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 1], applied(3)],
        inspect=[found(1, an_id(1), fence=2), found(2, an_id(2), an_id(1))],
        restore=[[CONFLICT, 2]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    before = counters()["changes_restored"]
    assert (await process.append(b"three", id_=an_id(3))).version == 3
    assert server.asked[3:] == ["inspect", "restore", "inspect", "append"]
    assert counters()["changes_restored"] == before


@in_virtual_time
async def test_waiting_for_other_processes_ends_at_the_deadline() -> None:
    server = FakeServer(
        append=[applied(1), applied(3), [LOG_MISMATCH, 1]],
        inspect=[found(1, an_id(1), fence=3, age_ms=1)],
    )
    process = Process(server, patience_seconds=60)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    with pytest.raises(DeadlineExceededError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert "other processes are still putting back" in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert 450 < server.asked.count("inspect") < 1100  # in 50 s: each after 50 to 100 ms


async def test_one_task_a_session_reconciles_and_the_others_wait() -> None:
    at_once: list[int] = []
    under_way = 0

    async def look(request: Any) -> Any:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        for _ in range(3):
            await asyncio.sleep(0)
        under_way -= 1
        return found(1, an_id(1))

    server = FakeServer(inspect=[look])
    process = Process(server)

    async def reconcile(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await process.coordinator._reconcile(process.begin("info", changes=False), SPEC)

    await asyncio.gather(*(reconcile(turns) for turns in range(40)))
    assert (len(at_once), set(at_once)) == (40, {1})
    assert len(process.coordinator._locks) == 0


async def test_the_changes_that_a_snapshot_names_stay_few() -> None:
    # Each reading takes the ids of the last one along: a session that lives long must not grow in memory.
    async def read(request: Any) -> Any:
        version = len(server.requests)
        newest = noted(an_id(version), before=a_digest(version - 1))
        return [described(1, version, changes=newest), 1, [b"{}"]]

    server = FakeServer(read=[read])
    process = Process(server)
    for _ in range(1100):
        await process.read()
    (whole,) = process.log.readings
    records = whole.records
    assert {record.version for record in records} == set(range(1100 - 1023, 1101))


async def test_nothing_is_kept_where_nothing_may_be_kept() -> None:
    server = FakeServer(append=[applied(1)], read=[[described(1, 1), 1, [b"{}"]]], info=[described(0, 0)])
    process = Process(server, max_changes=0)
    await process.append(b"one", id_=an_id(1))
    await process.read()
    assert (await process.info()).version == 0  # a loss that is not noticed
    assert len(process.coordinator._journal) == 0
    assert set(server.positions) == {NO_POSITION}


async def test_a_refused_command_is_sent_again_as_the_same_value() -> None:
    server = FakeServer(append=[[LOG_MISMATCH, 0], applied(1)], inspect=[found(0, length=0)])
    await Process(server).append(b"one")
    first, second = server.sent("append")
    assert first is second


async def test_the_log_position_is_read_anew_at_each_attempt() -> None:
    async def lost(request: Any) -> Any:  # another task of this process changes the session meanwhile
        process.log.see(a_position(7), ReplicationHistory(NODE, "1f"), None)
        return failed(RedisConnectionError("reset"), sent=True)

    server = FakeServer(append=[lost, applied(8)])
    process = Process(server)
    await process.append(b"eight", id_=an_id(8))
    assert server.positions == [NO_POSITION, a_position(7)]
    (kept,) = process.log.entries.values()
    assert (kept.version, kept.digest) == a_position(8)  # of the attempt that was answered


async def test_a_caller_that_cannot_be_told_of_a_loss_leaves_it_to_the_next_one() -> None:
    server = FakeServer(append=[applied(1), applied(2)])
    process = Process(server)
    process.log.lost = (4, 5)
    assert (await process.append(b"one", id_=an_id(1), report_loss=False)).version == 1
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"two", id_=an_id(2))
    assert caught.value.versions == (4, 5)
    assert len(server.requests) == 1


async def test_a_look_that_finds_everything_there_notes_the_servers_new_history() -> None:
    server = FakeServer(append=[applied(1), [LOG_MISMATCH, 1], applied(2)], inspect=[found(1, an_id(1))])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    server.becomes_another()
    await process.append(b"two", id_=an_id(2))
    assert process.log.history == ReplicationHistory(NODE, "2e")
    assert server.asked == ["append", "append", "inspect", "append"]  # without a fence nothing is lifted


async def test_where_the_replication_id_is_not_told_a_missing_change_is_a_loss() -> None:
    server = FakeServer(
        append=[applied(1), [LOG_MISMATCH, 0], applied(2)],
        inspect=[found(0, fence=1, length=0)],
        restore=[[APPLIED, 1]],
    )
    server.replication_id = None
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    (restored,) = server.sent("restore")
    assert restored.arguments[-1] == b"one"


@pytest.mark.parametrize(("changed", "sent"), [(0, 1), (1, 2), (2, 3), (3, 3)])
async def test_a_read_between_whose_parts_the_session_was_changed_is_sent_again_and_makes_no_snapshot(
    monkeypatch: pytest.MonkeyPatch, changed: int, sent: int
) -> None:
    # With hiredis the elements are read behind the description, and their number may be the same all the same.
    monkeypatch.setattr("agents_redis_ha._commands.commands.HIREDIS_AVAILABLE", True)
    digests = [a_digest(2)] * changed + [a_digest(1)]
    history = ReplicationHistory(NODE, None)
    server = FakeServer(read=[Reply(described(1, 1), [[b"{}"], at], history, NO_POSITION) for at in digests])
    process = Process(server)
    await process.read()
    assert server.asked == ["read"] * sent
    assert [snapshot.count for snapshot in process.log.snapshots] == ([1] if changed < sent else [])


async def test_a_smaller_read_of_the_same_version_replaces_no_snapshot() -> None:
    reads = [elements(b"1", b"2", length=3), elements(b"2", length=3), elements(b"1", b"2", b"3")]
    process = Process(FakeServer(read=reads))
    kept = []
    for _ in range(3):
        await process.read()
        kept.append([snapshot.count for snapshot in process.log.snapshots])
    assert kept == [[2], [2], [3]]


async def test_a_process_that_keeps_nothing_gives_up_what_no_other_put_back() -> None:
    server = FakeServer(
        info=[described(1, 1, mismatch=True), described(1, 3)],
        inspect=[found(1, an_id(1), fence=2, age_ms=9000)],
        restore=[[APPLIED, 3]],
    )
    process = Process(server, max_changes=0)
    assert (await process.info()).version == 3
    (restored,) = server.sent("restore")
    assert restored.arguments[7:10] == (1, 0, 2)  # it abandons the second, and closes with one more no-op entry
    assert len(process.coordinator._journal) == 0


async def test_a_session_with_a_lifetime_is_known_until_it_may_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("agents_redis_ha._ambient.monotonic", clock.monotonic)
    server = FakeServer(info=[described(1, 1, ttl_ms=5000), described(1, 2)], append=[applied(2)])
    process = Process(server)
    await process.info()
    assert process.log.expires_at == clock.now + 5
    command = append(replace(SPEC, ttl_ms=9000), [b"x"])
    await process.coordinator.execute(process.begin("append", changes=True), command)
    assert process.log.expires_at == clock.now + 9
    await process.info()
    assert process.log.expires_at is None


async def test_a_change_that_was_not_made_prolongs_no_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("agents_redis_ha._ambient.monotonic", clock.monotonic)
    server = FakeServer(append=[applied(1), [CONFLICT, 1]], pop=[[UNCHANGED, 1]])
    process, expiring = Process(server), replace(SPEC, ttl_ms=9000)
    await process.coordinator.execute(process.begin("append", changes=True), append(expiring, [b"x"]))
    since = clock.now
    clock.now += 5
    for command in (append(expiring, [b"x"], expected=NO_POSITION), pop(expiring)):  # refused, and nothing to pop
        await process.coordinator.execute(process.begin(command.name, changes=True), command)
        assert process.log.expires_at == since + 9


async def test_what_is_remembered_is_as_short_as_the_shortest_retention_that_the_session_has() -> None:
    short = described(1, 1)
    short[7] = b"30000"  # by a process that may have cleared it meanwhile
    server = FakeServer(info=[short], append=[applied(2)])
    process = Process(server)
    await process.info()
    assert process.log.horizon_seconds == 30
    await process.append(b"x")  # from now on the server keeps at least what this process asks for
    assert process.log.horizon_seconds == 120


@pytest.mark.parametrize(("sent", "outcome"), [(False, Outcome.NOT_APPLIED), (True, Outcome.UNKNOWN)])
async def test_what_another_task_finds_lost_between_two_attempts_is_told_before_the_next_one(
    sent: bool, outcome: Outcome
) -> None:
    async def meanwhile(request: Request) -> Any:
        process.log.lost = (1,)  # and the log goes on from what the server has
        return failed(RedisConnectionError("reset"), sent=sent)

    server = FakeServer(append=[applied(1), meanwhile, applied(2)])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"two", id_=an_id(2))
    assert (caught.value.versions, caught.value.outcome) == ((1,), outcome)
    assert len(server.positions) == 2  # no third attempt left
    assert (await process.append(b"two", id_=an_id(2))).version == 2


async def meets_another_history(process: Process, server: FakeServer, answer: Any) -> Any:
    """Return what comes of a question: its reply is of a server that was replaced, and another task knows that."""
    server.becomes_another()
    assert (await process.info()).version == 3
    return Reply(answer, [], ReplicationHistory(NODE, "1f"), NO_POSITION)


@pytest.mark.parametrize("again", [applied(4), [Status.REPEAT, 2, a_digest(2)]], ids=["gone", "there"])
async def test_a_late_reply_of_a_server_that_was_replaced_confirms_no_change_that_may_be_gone(again: list[Any]) -> None:
    async def late(request: Request) -> Any:
        return await meets_another_history(process, server, applied(2))

    server = FakeServer(append=[applied(1), late, again], info=[described(3, 3)])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    change = await process.append(b"two", id_=an_id(2))
    assert (change.version, change.history.replication_id) == (again[1], "2e")
    assert server.asked == ["append", "append", "info", "append"]
    asked_again = server.requests[-1]
    assert (asked_again.command, asked_again.earlier.may_be_applied) == (server.requests[1].command, True)


async def test_a_change_that_a_replaced_server_confirmed_late_may_be_there_if_nothing_more_is_heard() -> None:
    async def late(request: Request) -> Any:
        return await meets_another_history(process, server, applied(2))

    server = FakeServer(append=[applied(1), late, failed(ResponseError("NOPERM no"))], info=[described(3, 3)])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    with pytest.raises(OperationError) as caught:
        await process.append(b"two", id_=an_id(2))
    assert caught.value.outcome is Outcome.UNKNOWN


async def test_a_late_answer_of_a_server_that_was_replaced_is_asked_for_again() -> None:
    async def late(request: Request) -> Any:
        answer = await elements(b"one", b"two", version=2)(request)
        return await meets_another_history(process, server, answer)

    server = FakeServer(
        append=[applied(1)], read=[late, elements(b"one", b"x", b"y", version=3)], info=[described(3, 3)]
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    assert (await process.read()).session.version == 3
    assert server.asked == ["append", "read", "info", "read"]


@in_virtual_time
async def test_what_a_replaced_server_has_unconfirmed_is_looked_for_although_the_session_was_used_since() -> None:
    async def late(request: Request) -> Any:
        there = await meets_another_history(process, server, applied(2))
        return failed(ResponseError("unknown command 'WAITAOF'"), sent=True, reply=there)

    server = FakeServer(
        append=[applied(1), late],
        info=[described(3, 3)],
        inspect=[found(3, an_id(1), an_id(8), an_id(9))],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    with pytest.raises(OperationError):
        await process.append(b"two", id_=an_id(2))
    await asyncio.sleep(1)
    with pytest.raises(HistoryLostError) as caught:
        await process.info()
    assert caught.value.versions == (2,)


async def test_an_answer_that_never_comes_from_the_server_that_answered_last_counts_in_the_end() -> None:
    async def late(request: Request) -> Any:
        return Reply(applied(2), [], ReplicationHistory(NODE, "1f"), NO_POSITION)

    server = FakeServer(append=[applied(1), late], info=[described(3, 3)])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    server.becomes_another()
    await process.info()
    change = await process.append(b"two", id_=an_id(2))
    assert (change.version, server.asked.count("append")) == (2, 5)


async def test_a_look_that_a_replaced_server_answers_late_gives_nothing_up() -> None:
    async def late(request: Request) -> Any:
        # Another task meets the server that took over, which has what is known here; the one before had another second.
        return await meets_another_history(process, server, found(2, an_id(77), an_id(1)))

    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 2], applied(4)],
        inspect=[late, found(3, an_id(3), an_id(2), an_id(1))],
        info=[described(3, 3)],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    before = counters()["changes_lost"]
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert (server.asked[3:], counters()["changes_lost"]) == (["inspect", "info", "inspect", "append"], before)
    assert process.log.entries.keys() == {1, 2, 4}


@pytest.mark.parametrize("evicted", [b"", b"!"])
async def test_another_change_in_the_place_of_the_known_one_is_seen_where_its_id_is_not_remembered(
    evicted: bytes,
) -> None:
    other = chain(b"", an_id(9))
    begun = found(2)
    begun[8] = [b"1:" + other + evicted, *noted(an_id(8), before=other)]
    begun[2] = chain(other, an_id(8))
    server = FakeServer(append=[applied(1)], info=[described(2, 2, mismatch=True)], inspect=[begun])
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.info()
    assert caught.value.versions == (1,)
