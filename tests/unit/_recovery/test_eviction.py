"""What a server evicted: elements are put back if all of them are known, and an outcome is never made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions as redis_errors

from agents_redis_ha._commands import KEEP_ALL, ListEdit, LogEntry, LogPosition, Status, clear, pop
from agents_redis_ha._recovery.replay import HistoryFragment, is_noop, make_plan, pack, unpack
from agents_redis_ha._recovery.session_log import SessionLog
from agents_redis_ha._telemetry import counters
from agents_redis_ha.errors import HistoryLostError, Outcome, OutcomeLostError
from tests.support.fakes import SPEC, FakeServer, a_digest, an_id, applied, described, elements, failed
from tests.support.model import HISTORIES, History, history, put_back, said
from tests.support.recovery import Process, found

APPLIED, REPEAT, LOG_MISMATCH, UNTOLD = Status.APPLIED, Status.REPEAT, Status.LOG_MISMATCH, Status.UNTOLD
LOST = failed(redis_errors.ConnectionError("reset"), sent=True)


def emptied(made: History, version: int) -> Any:
    """Return the session that a server shows which evicted all elements of a version."""
    return replace(made.states[version], elements=())


@given(HISTORIES, st.data())
def test_with_all_changes_the_evicted_elements_come_back_and_those_behind_them(
    made: History, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.lists(st.tuples(st.integers(0, made.last.version), st.integers(0, 9)), max_size=3))
    fragments: list[HistoryFragment] = [*made.entries, *(made.snapshot_at(*each) for each in seen)]
    data.draw(st.randoms(use_true_random=False)).shuffle(fragments)
    evicted = made.found_at(cut, evicted=True)
    plan = make_plan(map(unpack, map(pack, fragments)), evicted, made.last.version)
    assert put_back(plan, emptied(made, cut)) == made.last
    assert (plan.gives_up, plan.records) == (False, made.records(cut + 1, made.last.version))
    assert plan.position == made.position(made.last.version)


@given(HISTORIES, st.data())
def test_with_a_snapshot_of_all_and_the_changes_behind_it_the_evicted_elements_come_back(
    made: History, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.integers(0, cut), label="seen")
    fragments: list[HistoryFragment] = [made.snapshot_at(seen, 1000), *made.entries[seen:]]
    plan = make_plan(fragments, made.found_at(cut, evicted=True), made.last.version)
    assert put_back(plan, emptied(made, cut)) == made.last
    assert not plan.gives_up


FOUR = said(b"1", b"2", b"3", b"4")


@pytest.mark.parametrize(
    "known",
    [
        [FOUR.snapshot_at(3, 9)],
        [FOUR.snapshot_at(1, 9), *FOUR.entries[1:3]],
        [*FOUR.entries[:3]],
        [FOUR.snapshot_at(2, 9), *FOUR.entries[:3]],
    ],
    ids=["read whole", "read whole, and the changes since", "all changes since version 0", "both"],
)
def test_evicted_elements_are_made_again_from_what_is_known(known: list[HistoryFragment]) -> None:
    plan = make_plan(known, FOUR.found_at(3, evicted=True), 3)
    assert (plan.keep, plan.push, plan.records) == ((0, 0), (b"1", b"2", b"3"), ())
    assert (plan.position, plan.gives_up) == (FOUR.position(3), False)  # no change is made: the same history goes on


OTHER = said(b"1", b"2", b"3", first_id=90)


@pytest.mark.parametrize(
    "known",
    [
        [],
        [FOUR.snapshot_at(3, 2)],  # the newest elements alone
        [FOUR.snapshot_at(1, 9), FOUR.entries[2]],  # a change in between is not known
        [*FOUR.entries[1:3]],
        [FOUR.entries[0], replace(FOUR.entries[1], edit=None), FOUR.entries[2]],
        [OTHER.snapshot_at(3, 9)],  # as many elements, of another history
        [*OTHER.entries],
        [OTHER.snapshot_at(1, 9), *FOUR.entries[1:3]],
    ],
)
def test_evicted_elements_that_are_not_all_known_for_certain_are_given_up(known: list[HistoryFragment]) -> None:
    plan = make_plan(known, FOUR.found_at(3, evicted=True), 3)
    assert (plan.lacks_elements, plan.gives_up, plan.missing, plan.push) == (True, True, (), ())
    # A no-op entry tells every process that knew them.
    assert [(record.version, is_noop(record.id)) for record in plan.records] == [(4, True)]
    assert plan.position == plan.records[0][::2]


def test_elements_that_are_not_as_many_as_there_were_are_not_put_back() -> None:
    # Of the same history: elements were given up before, and this process does not know it.
    evicted = replace(FOUR.found_at(3, evicted=True), expected_length=2)
    assert make_plan([FOUR.snapshot_at(3, 9), *FOUR.entries], evicted, 3).lacks_elements


def test_what_is_left_of_evicted_elements_gives_way_to_all_of_them() -> None:
    partly = replace(FOUR.found_at(3), length=1, expected_length=3)  # cut by hand
    plan = make_plan([FOUR.snapshot_at(3, 9)], partly, 3)
    assert (plan.keep, plan.push) == ((0, 0), (b"1", b"2", b"3"))


def test_behind_evicted_elements_only_appends_come_back() -> None:
    made = history([*(ListEdit(push=(b"%d" % n,)) for n in (1, 2)), ListEdit((0, -1)), ListEdit(push=(b"4",))])
    plan = make_plan(made.entries[2:], made.found_at(2, evicted=True), 4)
    assert (plan.push, plan.missing, plan.lacks_elements) == ((b"4",), (3,), True)
    assert [record.version for record in plan.records if is_noop(record.id)] == [3, 5]
    assert made.entries[3].edit is not None
    assert made.entries[3].edit.keep == KEEP_ALL


def test_what_was_read_whole_later_replaces_evicted_elements() -> None:
    plan = make_plan([FOUR.snapshot_at(4, 9)], FOUR.found_at(3, evicted=True), 4)
    assert (plan.push, plan.gives_up) == ((b"1", b"2", b"3", b"4"), False)
    part = make_plan([FOUR.snapshot_at(4, 1)], FOUR.found_at(3, evicted=True), 4)
    assert (part.push, part.missing, part.lacks_elements) == ((), (4,), True)  # the newest alone would hide the gap


async def test_evicted_elements_that_are_known_are_put_back_before_the_operation_goes_on() -> None:
    server = FakeServer(
        read=[elements(b"{}", version=1)],
        append=[applied(2), [LOG_MISMATCH, 2], applied(3)],
        inspect=[found(2, an_id(2), an_id(1), length=0, expected_length=2)],
        restore=[[APPLIED, 2]],
    )
    process = Process(server)
    await process.read()
    await process.append(b"two", id_=an_id(2))
    before = counters()
    assert (await process.append(b"three", id_=an_id(3))).version == 3
    (restored,) = server.sent("restore")
    assert restored.arguments[:9] == (0, 0, 2, a_digest(2), 0, 0, 0, 0, 0)
    assert restored.arguments[9:] == (0, 0, 0, b"{}", b"two")
    assert counters()["changes_restored"] == before["changes_restored"] + 1


async def test_evicted_elements_that_no_process_knows_are_given_up_after_the_patience_and_told_once() -> None:
    looks: dict[str, Any] = {"length": 0, "expected_length": 2}
    server = FakeServer(
        info=[described(2, 2), described(0, 2, mismatch=True), described(0, 3)],
        inspect=[found(2, **looks), found(2, fence=2, age_ms=1, **looks), found(2, fence=2, age_ms=9000, **looks)],
        restore=[[APPLIED, 3]],
    )
    process = Process(server, patience_seconds=2)
    await process.info()
    with pytest.raises(HistoryLostError) as caught:
        await process.info()
    assert caught.value.versions == (2,)
    assert server.asked == ["info", "info", "inspect", "inspect", "inspect", "restore"]
    (restored,) = server.sent("restore")
    assert restored.arguments[7:10] == (1, 1, 1)  # given up, with elements, and one no-op entry says so
    assert (await process.info()).version == 3


async def test_elements_that_another_process_gave_up_are_told_once_to_each_that_knew_them() -> None:
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 3], applied(4), applied(5)],
        inspect=[found(3, b"!!%014d" % 3, evicted_at=3)],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert caught.value.versions == (1, 2)
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert server.asked.count("inspect") == 1


async def test_elements_that_are_given_up_are_told_by_all_changes_that_made_them_and_each_change_once() -> None:
    looks: dict[str, Any] = {"length": 0, "expected_length": 2, "age_ms": 9000}
    server = FakeServer(
        append=[applied(1), applied(3), [LOG_MISMATCH, 3], applied(5), [LOG_MISMATCH, 5]],  # the second by another
        inspect=[found(3, fence=3, **looks), found(5, b"five", b"noop", fence=5, evicted_at=4, **looks)],
        restore=[[APPLIED, 4], [APPLIED, 6]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    for id_, lost in ((an_id(4), (1, 3)), (an_id(6), (5,))):
        with pytest.raises(HistoryLostError) as caught:
            await process.append(b"not made", id_=id_)
        assert caught.value.versions == lost
        if lost == (1, 3):
            await process.append(b"five", id_=b"five")


@pytest.mark.parametrize(
    ("edits", "lost"),
    [
        ([ListEdit(push=(b"1",)), ListEdit(keep=(0, 0)), ListEdit(push=(b"3",)), ListEdit(push=(b"4",))], (3, 4)),
        ([ListEdit(push=(b"1",)), ListEdit(keep=(0, 0), push=(b"2",)), ListEdit(push=(b"3",))], (2, 3)),
        ([ListEdit(push=(b"1",)), ListEdit(push=(b"2",)), ListEdit(keep=(0, -1))], (1, 2)),
        ([ListEdit(push=(b"1",)), None, ListEdit(push=(b"3",))], (1, 2, 3)),
        ([ListEdit(keep=(0, 0))], (1,)),  # it is not known whose elements they were
    ],
    ids=["cleared", "replaced", "popped", "not known what it did", "nothing known"],
)
def test_elements_that_are_gone_are_of_the_changes_that_may_have_made_them(
    edits: list[ListEdit | None], lost: tuple[int, ...]
) -> None:
    entries = {at: LogEntry(at, an_id(at), a_digest(at), edit) for at, edit in enumerate(edits, 1)}
    last = LogPosition(len(edits), a_digest(len(edits)))
    assert SessionLog(SPEC, position=last, entries=entries).lose_elements(len(edits)) == lost


@pytest.mark.parametrize("knows_it", [False, True])
async def test_elements_that_were_given_up_before_a_process_knew_the_session_are_not_its_loss(knows_it: bool) -> None:
    server = FakeServer(
        info=[described(1, 3)],
        append=[[LOG_MISMATCH, 3], applied(4)],
        inspect=[found(3, evicted_at=3)],
    )
    process = Process(server)
    if knows_it:
        await process.info()
    assert (await process.append(b"four", id_=an_id(4))).version == 4


async def test_behind_elements_without_a_log_nothing_is_replayed_and_versions_go_on_above_all_that_were_made() -> None:
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 0], applied(2000)],
        inspect=[found(0, length=3, fence=2), found(0, length=4, fence=2)],  # another process changed it meanwhile
        restore=[[Status.CONFLICT, 0], [APPLIED, 1026]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    assert (await process.append(b"four", id_=an_id(4))).version == 2000
    restored = server.sent("restore")[-1]
    version, digest = restored.arguments[2:4]
    assert version == 2 + 1024
    assert digest not in (a_digest(0), a_digest(2))
    assert restored.arguments[4:] == (version, 0, 4, 0, 0, 0, 0, 0)  # all elements stay, and none is added
    assert server.requests[-1].known.position.version == 2000
    assert list(process.log.entries) == [2000]


@pytest.mark.parametrize(("replication_id", "lost"), [("1f", ()), ("2e", (1,))])
async def test_elements_without_a_log_tell_of_a_loss_only_behind_a_failover(
    replication_id: str, lost: tuple[int, ...]
) -> None:
    server = FakeServer(
        append=[applied(1), [LOG_MISMATCH, 0], applied(2000)], inspect=[found(0, length=3)], restore=[[APPLIED, 1025]]
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    server.replication_id = replication_id
    if lost:
        with pytest.raises(HistoryLostError) as caught:
            await process.append(b"two", id_=an_id(2))
        assert caught.value.versions == lost
    assert (await process.append(b"three", id_=an_id(3))).version == 2000


async def test_what_is_gone_after_elements_were_evicted_was_not_deleted() -> None:
    server = FakeServer(
        info=[described(2, 2), described(0, 2, mismatch=True), described(0, 0)],
        inspect=[found(2, length=0, expected_length=2), found(0, length=0)],
    )
    process = Process(server)
    await process.info()
    with pytest.raises(HistoryLostError) as caught:
        await process.info()
    assert caught.value.versions == (2,)
    assert (await process.info()).version == 0


async def test_what_a_history_begun_in_the_place_of_another_loses_is_told_from_the_first_look_at_it_on() -> None:
    lacks = found(1, b"another's", length=0, expected_length=1, fence=1, age_ms=1)
    server = FakeServer(
        append=[applied(1), applied(2), [LOG_MISMATCH, 1], [LOG_MISMATCH, 1], applied(3)],
        inspect=[found(1, b"another's", fence=2), lacks, found(2, b"!!%014d" % 2, b"another's", evicted_at=2)],
        restore=[[APPLIED, 1]],
    )
    process = Process(server)
    for number in (1, 2):
        await process.append(b"%d" % number, id_=an_id(number))
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"three", id_=an_id(3))
    assert caught.value.versions == (1,)
    assert server.asked[2:] == ["append", "inspect", "restore", "append", "inspect", "inspect"]


@pytest.mark.parametrize("hints", [(), (LogEntry(1, b"another's", b"of-another", None),)])
async def test_into_a_history_that_lacks_elements_nothing_of_one_that_was_deleted_comes_back(
    hints: tuple[HistoryFragment, ...],
) -> None:
    missed: dict[str, Any] = {"length": 0, "expected_length": 2, "hints": hints}
    server = FakeServer(
        append=[applied(1), applied(2), applied(3), [LOG_MISMATCH, 1], applied(3, digest=b"of-the-other")],
        # Another process has begun it anew, with a change that made two elements. This one looks twice.
        inspect=[found(1, b"another's", fence=3, age_ms=age_ms, **missed) for age_ms in (1, 9000)],
        restore=[[APPLIED, 2]],
    )
    process = Process(server)
    for number in (1, 2, 3):
        await process.append(b"%d" % number, id_=an_id(number))
    with pytest.raises(HistoryLostError):
        await process.append(b"four", id_=an_id(4))
    (restored,) = server.sent("restore")
    assert (restored.arguments[2], restored.arguments[5:7]) == (2, (0, 0))  # one no-op entry, and no elements
    assert b"2" not in restored.arguments
    assert b"3" not in restored.arguments
    assert list(process.log.entries) == [2]


async def test_where_the_ids_were_evicted_a_change_that_may_be_there_is_not_made_again() -> None:
    server = FakeServer(append=[LOST, [UNTOLD, 7]])
    process = Process(server)
    with pytest.raises(OutcomeLostError) as caught:
        await process.append(b"one")
    assert caught.value.outcome is Outcome.UNKNOWN
    assert "an earlier attempt may have been applied" in str(caught.value)
    assert server.asked == ["append"] * 2
    assert process.log.version == 0  # what is there is for the next operation to say


@pytest.mark.parametrize("command", [pop(SPEC), clear(SPEC)])
async def test_a_result_that_was_evicted_is_an_error_and_the_change_is_there_and_known(command: Any) -> None:
    server = FakeServer(**{command.name: [LOST, [REPEAT, 7, a_digest(7)]]})
    process = Process(server)
    with pytest.raises(OutcomeLostError) as caught:
        await process.coordinator.execute(process.begin(command.name, changes=True), command)
    assert caught.value.outcome is Outcome.APPLIED
    assert process.log.position == (7, a_digest(7))


async def test_a_change_that_the_first_attempt_made_and_whose_result_arrives_is_no_error() -> None:
    server = FakeServer(pop=[LOST, [REPEAT, 7, a_digest(7), b"{}"]])
    process = Process(server)
    change = await process.coordinator.execute(process.begin("pop", changes=True), pop(SPEC))
    assert (change.status, change.result) == (REPEAT, b"{}")
