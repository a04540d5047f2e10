"""What is put back is what was there: random histories, cut back anywhere, against a plain list."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents_redis_ha._commands import (
    KEEP_ALL,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    PublishedTurn,
    ServerState,
    chain,
    new_operation_id,
)
from agents_redis_ha._recovery.replay import HistoryFragment, Plan, hint_name, is_noop, make_plan, pack, unpack
from agents_redis_ha._recovery.session_log import Snapshot
from tests.support.fakes import a_digest, an_id
from tests.support.model import HISTORIES, SEPARATOR, SERVER, History, State, history, put_back, said


def is_chained(plan: Plan, before: bytes) -> bool:
    """Whether each record's digest is made of the one before it, up to the plan's position."""
    for record in plan.records:
        before = chain(before, record.id)
        if record.digest != before:
            return False
    return plan.position.digest == before


@given(HISTORIES, st.data())
def test_with_all_changes_the_session_is_what_it_was(made: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    entries = data.draw(st.permutations(made.entries), label="entries")
    plan = make_plan(entries, made.found_at(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, plan.records) == ((), made.records(cut + 1, made.last.version))
    assert plan.results == made.results(cut + 1, made.last.version)
    assert plan.position == made.position(made.last.version)


@given(HISTORIES, st.data())
def test_with_a_snapshot_and_the_changes_behind_it_the_session_is_what_it_was(
    made: History, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.integers(0, made.last.version), label="seen")
    snapshot = made.snapshot_at(seen, 1000)
    fragments: list[HistoryFragment] = [snapshot, *(entry for entry in made.entries if entry.version > max(seen, cut))]
    data.draw(st.randoms(use_true_random=False)).shuffle(fragments)
    plan = make_plan(fragments, made.found_at(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, plan.records) == ((), made.records(cut + 1, made.last.version))
    assert plan.results == made.results(max(seen, cut) + 1, made.last.version)  # what was read tells none
    assert plan.position == made.position(made.last.version)


@given(HISTORIES, st.integers(0, 9), st.data())
def test_a_snapshot_of_the_newest_elements_is_used_where_it_is_enough_and_never_where_it_is_not(
    made: History, count: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.integers(cut, made.last.version), label="seen")
    snapshot = made.snapshot_at(seen, count)
    plan = make_plan([snapshot], made.found_at(cut), seen)
    appended_only = made.states[seen].generation == made.states[cut].generation
    grown = len(made.states[seen].elements) - len(made.states[cut].elements)
    if snapshot.count >= snapshot.length or (appended_only and grown <= snapshot.count):
        assert plan.missing == ()
        assert put_back(plan, made.states[cut]) == made.states[seen]
        assert plan.records == made.records(cut + 1, seen)
    else:
        assert plan.missing == tuple(range(cut + 1, seen + 1))
        assert put_back(plan, made.states[cut]).elements == made.states[cut].elements


@given(HISTORIES, st.integers(0, 9), st.data())
def test_fragments_of_any_kind_that_cover_what_is_missing_bring_it_back(
    made: History, count: int, data: st.DataObject
) -> None:
    """All changes are there. Snapshots, full or not, older or newer, may be used or not, and never disturb."""
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.lists(st.tuples(st.integers(0, made.last.version), st.integers(0, 9)), max_size=3))
    fragments: list[HistoryFragment] = [
        *made.entries,
        *(made.snapshot_at(*each) for each in seen),
        made.snapshot_at(made.last.version, count),
    ]
    data.draw(st.randoms(use_true_random=False)).shuffle(fragments)
    plan = make_plan(map(unpack, map(pack, fragments)), made.found_at(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, plan.records) == ((), made.records(cut + 1, made.last.version))


@given(HISTORIES, st.data())
def test_behind_a_missing_change_only_appends_come_back_and_what_is_missing_is_named(
    made: History, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    target = made.last.version + data.draw(st.integers(0, 2), label="beyond")
    known = data.draw(st.sets(st.sampled_from(range(1, made.last.version + 1))), label="known")
    plan = make_plan([entry for entry in made.entries if entry.version in known], made.found_at(cut), target)
    # The same by a model that makes one change after the other.
    missing: list[int] = []
    elements, generation = [*made.states[cut].elements], made.states[cut].generation
    for version in range(cut + 1, target + 1):
        edit = made.entries[version - 1].edit if version in known else None
        assert version in known or edit is None
        if edit is None or (missing and edit.keep != KEEP_ALL):
            missing.append(version)
        else:
            elements = elements[slice(*edit.keep)] + [*edit.push]
            generation += edit.keep != KEEP_ALL
    assert plan.missing == tuple(missing)
    reached = target + bool(missing)  # a no-op entry stands behind what was given up
    assert put_back(plan, made.states[cut]) == State(reached, generation, tuple(elements))
    assert [record.version for record in plan.records] == [*range(cut + 1, reached + 1)]
    noops = {record.version for record in plan.records if is_noop(record.id)}
    assert noops == {*missing, *range(target + 1, reached + 1)}
    assert is_chained(plan, made.position(cut).digest)
    assert plan.gives_up is bool(missing)


@given(HISTORIES, st.data())
def test_a_change_that_cannot_be_made_again_is_as_good_as_missing(made: History, data: st.DataObject) -> None:
    lost = data.draw(st.integers(1, made.last.version))
    entries = [replace(entry, edit=None) if entry.version == lost else entry for entry in made.entries]
    without = [entry for entry in made.entries if entry.version != lost]
    found = made.found_at(0)
    plans = (make_plan(known, found, made.last.version) for known in (entries, without))
    # No two no-op entries have the same id, so the digests behind them differ.
    with_it, without_it = (replace(p, position=LogPosition(p.position.version, b""), records=()) for p in plans)
    assert with_it == without_it


def test_a_change_that_is_there_already_is_not_made_again() -> None:
    made = history([ListEdit(push=(b"a",)), ListEdit(push=(b"b",))])
    plan = make_plan(made.entries, made.found_at(2), 2)
    assert plan == Plan(made.position(2), 0, (0, 2), ())
    assert not plan.gives_up


def test_a_snapshot_that_is_newer_than_what_is_to_be_reached_is_not_used() -> None:
    made = history([ListEdit(push=(b"a",)), ListEdit(push=(b"b",))])
    assert make_plan([made.snapshot_at(2, 9)], made.found_at(0), 1).missing == (1,)


@pytest.mark.parametrize("count", [2, 9])
def test_a_snapshot_of_a_history_that_was_deleted_is_not_used_behind_another(count: int) -> None:
    deleted = said(b"a", b"b", b"c")
    plan = make_plan([deleted.snapshot_at(3, count)], said(b"new", first_id=90).found_at(1), 3)
    assert (plan.keep, plan.push, plan.missing) == ((0, 1), (), (2, 3))


@pytest.mark.parametrize("keep", [(0, -1), (0, 0), (1, None)])
def test_what_removed_elements_of_another_history_removes_none_here(keep: tuple[int, int | None]) -> None:
    here, other = said(b"a", b"b"), history([ListEdit(push=(b"x",)), ListEdit(keep)], first_id=90)
    plan = make_plan([other.entries[1]], here.found_at(1), 2)
    assert (plan.keep, plan.push, plan.missing) == ((0, 1), (), (2,))
    own = history([ListEdit(push=(b"a",)), ListEdit(keep)])
    assert make_plan([own.entries[1]], own.found_at(1), 2).missing == ()


@pytest.mark.parametrize("own_is_last", [True, False])
def test_of_two_changes_of_one_version_that_counts_which_was_made_behind_the_one_before(own_is_last: bool) -> None:
    made, other = said(b"a", b"b"), said(b"x", b"y", first_id=90)
    fragments = [made.entries[1], other.entries[1]]
    assert make_plan(fragments[:: 1 if own_is_last else -1], made.found_at(1), 2).push == (b"b",)


def test_of_two_changes_of_one_version_from_two_processes_one_is_made() -> None:
    made = history([ListEdit(push=(b"a",))])
    plan = make_plan([*made.entries, unpack(pack(made.entries[0]))], made.found_at(0), 1)
    assert (plan.push, plan.records) == ((b"a",), made.records(1, 1))


@given(
    st.builds(
        LogEntry,
        version=st.integers(0, 2**53),
        id=st.binary(max_size=16),
        digest=st.binary(max_size=12),
        edit=st.none()
        | st.builds(
            ListEdit,
            keep=st.tuples(st.integers(-9, 9), st.none() | st.integers(-9, 9)),
            push=st.lists(st.binary()).map(tuple),
        ),
        result=st.none() | st.binary(),
    )
)
@example(LogEntry(1, b"", b"", ListEdit(), b""))
@example(LogEntry(1, bytes(range(256)), b"\xff\xfe\x00", ListEdit(push=(b"", b"\x00", bytes(range(256)))), b"\x00"))
def test_a_change_survives_being_left_as_a_hint(entry: LogEntry) -> None:
    assert unpack(pack(entry)) == entry


@given(
    st.builds(
        Snapshot,
        version=st.integers(0, 2**53),
        digest=st.binary(max_size=12),
        generation=st.integers(0, 2**53),
        length=st.integers(0, 99),
        count=st.integers(0, 99),
        joined=st.binary(),
        separator=st.binary(max_size=9),
        records=st.lists(st.builds(OpsRecord, st.integers(0, 2**53), st.binary(), st.binary())).map(tuple),
    )
)
@example(Snapshot(1, b"\xff", 0, 0, 0, bytes(range(256)), b"", (OpsRecord(1, b"\xff", b"\xfe"),)))
def test_a_snapshot_survives_being_left_as_a_hint(snapshot: Snapshot) -> None:
    assert unpack(pack(snapshot)) == snapshot


def test_the_newest_elements_of_a_snapshot_may_be_empty_texts() -> None:
    snapshot = Snapshot(1, b"", 0, 5, 3, SEPARATOR.join([b"", b"x", b""]), SEPARATOR)
    assert [snapshot.newest(count) for count in range(4)] == [[], [b""], [b"x", b""], [b"", b"x", b""]]
    assert Snapshot(1, b"", 0, 1, 1, b"", SEPARATOR).newest(1) == [b""]


def nothing_at(version: int) -> ServerState:
    """Return what a server has of which nothing but a version is known."""
    return ServerState(version, 0, a_digest(version), 1, 1, 0, 0.0, 0, (), (), SERVER)


FAR = 3000  # more versions than ids are kept for
FIRST_NOTED = FAR - 1024 + 1


def test_a_plan_behind_more_missing_changes_than_are_noted_names_each_and_notes_the_newest() -> None:
    plan = make_plan([], nothing_at(5), FAR)
    assert plan.missing == tuple(range(6, FAR + 1))
    assert [record.version for record in plan.records] == [*range(FIRST_NOTED, FAR + 2)]
    assert all(is_noop(record.id) for record in plan.records)
    assert plan.position.version == FAR + 1
    assert is_chained(plan, b"")  # it begins anew: what was passed over has no digest


def test_what_is_missing_is_noted_up_to_as_many_changes_as_ids_are_kept() -> None:
    plan = make_plan([], nothing_at(FAR - 1024), FAR)
    assert [record.version for record in plan.records] == [*range(FIRST_NOTED, FAR + 2)]
    assert is_chained(plan, a_digest(FAR - 1024))  # nothing is passed over: it follows what is there


def test_of_missing_changes_none_is_passed_over_behind_which_one_is_known() -> None:
    late = LogEntry(FAR - 3, an_id(FAR - 3), a_digest(FAR - 3), ListEdit(push=(b"late",)))
    plan = make_plan([late], nothing_at(0), FAR)
    assert (plan.push, len(plan.missing)) == ((b"late",), FAR - 1)
    ids = {record.version: record.id for record in plan.records}
    assert (min(ids), max(ids), ids[FAR - 3]) == (FIRST_NOTED, FAR + 1, late.id)
    assert is_chained(plan, b"")


@pytest.mark.parametrize("ran_again", [True, False])
def test_behind_a_missing_change_a_turn_comes_back_unless_it_ran_again_meanwhile(ran_again: bool) -> None:
    turn = PublishedTurn(b"t", 1, b"-", b"token", b"yes", 1000, 10)
    ours = LogEntry(FAR, b"0123456789-ours-", a_digest(FAR), ListEdit(push=(b"answer",)), b"token", turn)
    there = OpsRecord(1, b"0123456789-again" if ran_again else an_id(1), a_digest(1))
    plan = make_plan([ours], replace(nothing_at(1), records=(there,)), FAR)
    assert (plan.push, plan.turns) == (((), ()) if ran_again else ((b"answer",), (turn,)))
    assert (FAR in plan.missing) is ran_again


def test_a_change_that_is_put_back_too_far_back_to_be_noted_still_brings_its_elements() -> None:
    early = LogEntry(7, an_id(7), a_digest(7), ListEdit(push=(b"early",)))
    plan = make_plan([early], nothing_at(0), FAR)
    assert (plan.push, 7 in plan.missing, len(plan.missing)) == ((b"early",), False, FAR - 1)
    assert [record.version for record in plan.records] == [*range(FIRST_NOTED, FAR + 2)]


def test_a_change_that_a_snapshot_does_not_name_is_noted_without_its_id() -> None:
    made = said(b"a", b"b", b"c")
    whole = replace(made.snapshot_at(3, 9), records=made.records(2, 2))
    plan = make_plan([whole], made.found_at(0), 3)
    there = (OpsRecord(1, b"", b""), made.entries[1].record, OpsRecord(3, b"", made.entries[2].digest))
    assert (plan.records, plan.position, plan.gives_up) == (there, made.position(3), False)


def test_a_drawn_id_is_never_taken_for_a_noop_and_two_noops_differ() -> None:
    assert not any(is_noop(new_operation_id()) for _ in range(200))
    first, second = (record.id for record in make_plan([], nothing_at(0), 1).records)
    assert is_noop(first)
    assert is_noop(second)
    assert (len(first), len(second), first == second) == (16, 16, False)


def test_what_two_processes_know_up_to_one_version_are_hints_of_their_own() -> None:
    made, other = (said(b"a", b"b", first_id=number) for number in (1, 90))
    known: list[HistoryFragment] = []
    for each in (made, other):
        known += [each.entries[1], each.snapshot_at(2, 9), each.snapshot_at(2, 1)]
    names = [hint_name(fragment) for fragment in known]
    digests = [each.entries[1].digest.decode() for each in (made, other)]
    assert names == [f"2:{kind}:{digest}" for digest in digests for kind in ("entry", "whole", "tail")]
    assert len({*names}) == 6
