"""What the coordinator does where another process wrote on before lost changes were back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha._commands import (
    NO_POSITION,
    Confirmation,
    Status,
    TurnSpec,
    append,
    chain,
    finish_turn,
    pop,
)
from agents_redis_ha._telemetry import counters
from agents_redis_ha.errors import HistoryLostError, PermissionDeniedError
from tests.support.fakes import SPEC, FakeServer, an_id, applied, described, failed
from tests.support.recovery import Process, entry, found, record, snapshot

APPLIED, LOG_MISMATCH = Status.APPLIED, Status.LOG_MISMATCH


SECOND = entry(2, b"another 2", id_=b"another-changes2")
THIRD = entry(3, b"another 3", id_=b"another-changes3", before=SECOND.digest)


def diverged(append: list[Any]) -> FakeServer:
    """Return a server that lost versions 2 and 3 of this process, and on which another made the second anew."""
    return FakeServer(
        append=[applied(1), applied(2), applied(3), [LOG_MISMATCH, 2], *append],
        inspect=[found(2, b"another-changes2", an_id(1), fence=3)],
        restore=[[APPLIED, 2]],
    )


async def test_late_appends_are_put_at_the_end_under_their_own_ids_once_the_fence_is_lifted() -> None:
    server = diverged([applied(3), applied(4), applied(5)])
    process = Process(server, on_divergence="append")
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    before = counters()
    assert (await process.append(b"4", id_=an_id(4))).version == 5
    assert server.asked[4:] == ["inspect", "restore", "append", "append", "append"]
    assert [made.head[0] for made in server.sent("append")[4:]] == [an_id(2), an_id(3), an_id(4)]
    assert counters()["changes_restored"] == before["changes_restored"] + 2
    assert counters()["changes_lost"] == before["changes_lost"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_late_appends_are_said_to_be_lost_where_the_fence_cannot_be_lifted(cancelled: bool) -> None:
    server = diverged([applied(3)])
    asked = asyncio.Event()

    async def restore(_: Any) -> Any:
        asked.set()
        if cancelled:
            await asyncio.Event().wait()
        return failed(redis_errors.NoPermissionError("no"), sent=True)

    server.scripts["restore"] = [restore]
    process = Process(server, on_divergence="append")
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    before = counters()["changes_lost"]
    reading = asyncio.create_task(process.append(b"4", id_=an_id(4)))
    await asked.wait()
    if cancelled:
        reading.cancel()
    with pytest.raises((asyncio.CancelledError, PermissionDeniedError)):
        await reading
    assert (process.log.lost, counters()["changes_lost"]) == ((2, 3), before + 2)
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"5", id_=an_id(5))
    assert caught.value.versions == (2, 3)


async def test_a_late_append_is_confirmed_by_the_primary_alone() -> None:
    # A shortfall would count as one of the operation that is under way.
    server = diverged([applied(3), applied(4), applied(5)])
    process = Process(server, on_divergence="append")
    spec = replace(SPEC, confirmation=Confirmation(1, False, 9))
    for version in (1, 2, 3, 4):
        if version == 4:
            server.becomes_another()
        command = append(spec, [b"%d" % version], operation_id=an_id(version))
        await process.coordinator.execute(process.begin("append", changes=True), command)
    confirmed = [made.confirmation is not None for made in server.sent("append")]
    assert confirmed == [True] * 4 + [False, False, True]


async def test_only_appends_are_put_at_the_end() -> None:
    server = diverged([applied(3), applied(4)])
    server.scripts["pop"] = [applied(2, b"1")]
    server.scripts["append"].pop(1)
    process = Process(server, on_divergence="append")
    await process.append(b"1", id_=an_id(1))
    await process.coordinator.execute(process.begin("pop", changes=True), pop(SPEC, operation_id=an_id(2)))
    await process.append(b"3", id_=an_id(3))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (2,)
    assert [made.head[0] for made in server.sent("append")] == [an_id(1), an_id(3), an_id(4), an_id(3)]


async def test_a_published_turn_is_never_put_at_the_end_for_it_may_have_run_again_meanwhile() -> None:
    server = diverged([applied(3), applied(4)])
    turn = TurnSpec(SPEC, b"t", an_id(2), b"-", 30_000, 1000)
    server.scripts["turn_finish"] = [applied(2, turn.token)]
    server.scripts["append"].pop(1)
    process = Process(server, on_divergence="append")
    await process.append(b"1", id_=an_id(1))
    finish = finish_turn(turn, NO_POSITION, 1, [b"question", b"answer"], keep=None, payload=b"")
    await process.coordinator.execute(process.begin("turn_finish", changes=True), finish)
    await process.append(b"3", id_=an_id(3))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (2,)
    assert [made.head[0] for made in server.sent("append")] == [an_id(1), an_id(3), an_id(4), an_id(3)]


async def test_late_appends_that_are_not_taken_are_lost_and_not_said_to_be_there() -> None:
    server = diverged([applied(3), [LOG_MISMATCH, 3]])
    process = Process(server, on_divergence="append")
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    before = counters()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (3,)
    assert counters()["changes_restored"] == before["changes_restored"] + 1
    assert counters()["changes_lost"] == before["changes_lost"] + 1


async def test_where_another_process_wrote_on_all_of_this_ones_changes_are_lost() -> None:
    server = diverged([applied(3)])
    process = Process(server)
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (2, 3)
    assert process.log.position == SECOND.record[::2]
    assert (await process.append(b"4", id_=an_id(4))).version == 3


def after_two_failovers(*hints: Any) -> FakeServer:
    """Return a server that lost version 2 of this process, and on which another process left hints of its 2 and 3."""
    return FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 1], applied(4)],
        inspect=[found(1, an_id(1), fence=3, hints=hints)],
        restore=[[APPLIED, 3]],
    )


async def test_this_processs_change_is_put_back_rather_than_anothers_of_the_same_version() -> None:
    server = after_two_failovers(SECOND, THIRD)
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    await process.append(b"four", id_=an_id(4))
    (restored,) = server.sent("restore")
    assert restored.arguments[-2:] == (b"two", b"another 3")


async def test_a_change_that_another_processs_snapshot_takes_the_place_of_is_lost() -> None:
    reading = snapshot(2, b"one", b"another 2", digest=SECOND.digest, records=(record(1), SECOND.record))
    server = after_two_failovers(reading, THIRD)
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert caught.value.versions == (2,)
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert 2 not in process.log.entries


GIVEN_UP = [b"!!%014d" % number for number in range(5)]


def rewritten(*ids: bytes, version: int = 3) -> FakeServer:
    """Return a server that confirmed versions 1 to 3 of this process, and has other changes by now."""
    return FakeServer(
        append=[applied(1), applied(2), applied(3), [LOG_MISMATCH, version], applied(version + 1)],
        inspect=[found(version, *reversed(ids))],
    )


async def test_a_history_that_another_process_began_anew_on_the_server_that_had_this_one_is_no_loss() -> None:
    server = rewritten(an_id(11), an_id(12), an_id(13))
    process = Process(server)
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    before = counters()
    assert (await process.append(b"4", id_=an_id(4))).version == 4
    assert counters() == before
    assert sorted(process.log.entries) == [4]


async def test_changes_that_another_process_gave_up_on_the_server_that_had_them_are_a_loss() -> None:
    server = rewritten(an_id(1), GIVEN_UP[2], GIVEN_UP[3])
    process = Process(server)
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (2, 3)


async def test_a_change_that_was_put_back_behind_one_that_was_given_up_is_known_in_its_new_history() -> None:
    there = (an_id(1), GIVEN_UP[2], an_id(3), GIVEN_UP[4])
    server = rewritten(*there, version=4)
    process = Process(server)
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"5", id_=an_id(5))
    assert caught.value.versions == (2,)
    digests = [reduce(chain, there[:version], b"") for version in range(5)]
    assert {version: entry.digest for version, entry in process.log.entries.items()} == {1: digests[1], 3: digests[3]}
    assert process.log.position == (4, digests[4])
    assert (await process.append(b"5", id_=an_id(5))).version == 5  # the next operation has nothing more to say


async def test_a_change_of_which_only_the_digest_was_seen_is_lost_where_another_history_is() -> None:
    server = FakeServer(
        info=[described(1, 2)],
        append=[[LOG_MISMATCH, 2], applied(3)],
        inspect=[found(2, SECOND.id, an_id(1))],
    )
    process = Process(server)
    await process.info()
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"3", id_=an_id(3))
    assert caught.value.versions == (2,)


async def test_what_is_put_back_behind_a_change_that_is_given_up_is_known_as_it_is_there() -> None:
    server = FakeServer(
        append=[applied(1), applied(3), [LOG_MISMATCH, 1], applied(5)],
        inspect=[found(1, an_id(1), fence=3, age_ms=9000)],
        restore=[[APPLIED, 4]],
    )
    process = Process(server, patience_seconds=2, on_loss="warn")
    await process.append(b"1", id_=an_id(1))
    await process.append(b"3", id_=an_id(3))
    server.becomes_another()
    await process.append(b"5", id_=an_id(5))
    (restored,) = server.sent("restore")
    # In turn the id and the note of: a no-op entry, the change that came back, and one more no-op entry.
    second, third, fourth = (bytes(field) for field in restored.arguments[11:16:2] if isinstance(field, bytes))
    known = process.log.digests
    assert [known[2], known[3]] == [second, third]
    assert fourth.startswith(known[4])
    assert third == chain(second, an_id(3))
