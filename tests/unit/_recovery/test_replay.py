"""What is put back is what was there: random histories, cut back anywhere, against a plain list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents_redis_ha import session_keys
from agents_redis_ha._commands import (
    ListEdit,
    LogEntry,
    LogPosition,
    ReplicationHistory,
    ServerState,
    SessionSpec,
    new_operation_id,
)
from agents_redis_ha._commands.change import KEEP_ALL
from agents_redis_ha._recovery.journal import SessionLog, Snapshot
from agents_redis_ha._recovery.replay import (
    HistoryFragment,
    Plan,
    first_divergence,
    fragments_of,
    hint_name,
    is_noop,
    make_plan,
    pack,
    unpack,
)

SERVER = ReplicationHistory("h:1", "1f")
SPEC = SessionSpec(session_keys("p", "u"), "u")
SEPARATOR = b",4711,"


def an_id(number: int) -> bytes:
    return b"%016d" % number


@dataclass(frozen=True)
class State:
    """A session after a change: what a list model says."""

    version: int
    generation: int
    elements: tuple[bytes, ...]


def after(state: State, edit: ListEdit) -> State:
    elements = [*state.elements][slice(*edit.keep)] + [*edit.push]
    generation = state.generation + (edit.keep != KEEP_ALL)
    return State(state.version + 1, generation, tuple(elements))


@dataclass(frozen=True)
class History:
    """Changes, and the state after each of them; the first state is the empty session."""

    entries: tuple[LogEntry, ...]
    states: tuple[State, ...]

    @property
    def last(self) -> State:
        return self.states[-1]

    def members(self, first: int, last: int) -> tuple[tuple[int, bytes], ...]:
        return tuple(member for entry in self.entries if first <= entry.version <= last for member in entry.members)

    def found_at(self, version: int) -> ServerState:
        """Return what a server has that knows the history up to a version."""
        state = self.states[version]
        there = self.members(1, version)[::-1]
        return ServerState(version, state.generation, len(state.elements), 0, 0.0, there, (), SERVER)

    def snapshot_at(self, version: int, count: int) -> Snapshot:
        """Return what a process has that read the newest so many elements at a version."""
        state = self.states[version]
        newest = state.elements[max(0, len(state.elements) - count) :]
        members = self.members(1, version)
        length = len(state.elements)
        return Snapshot(version, state.generation, length, len(newest), SEPARATOR.join(newest), SEPARATOR, members)


def history(edits: Sequence[ListEdit], results: bool = True) -> History:
    states, entries = [State(0, 0, ())], []
    for version, edit in enumerate(edits, start=1):
        before = states[-1]
        popped = edit.keep == (0, -1) and before.elements
        result = before.elements[-1] if popped and results else None
        entries.append(LogEntry(version, an_id(version), an_id(version - 1) if version > 1 else b"", edit, result))
        states.append(after(before, edit))
    return History(tuple(entries), tuple(states))


ITEMS = st.lists(st.binary(max_size=3), max_size=3).map(tuple)
APPENDS = st.lists(st.binary(max_size=3), min_size=1, max_size=3).map(lambda items: ListEdit(push=tuple(items)))
POPS = st.just(ListEdit(keep=(0, -1)))
CLEARS = st.just(ListEdit(keep=(0, 0)))
REPLACEMENTS = st.builds(ListEdit, keep=st.tuples(st.integers(0, 6), st.integers(0, 6)), push=ITEMS)
HISTORIES = st.lists(st.one_of(APPENDS, APPENDS, POPS, CLEARS, REPLACEMENTS), min_size=1, max_size=9).map(history)


def put_back(plan: Plan, state: State) -> State:
    """Return the session after a plan, as rewrite() in prelude.lua makes it."""
    first, last = plan.keep
    kept = state.elements[first:last] if last > first else ()
    return State(plan.version, plan.generation, (*kept, *plan.push))


@given(HISTORIES, st.data())
def test_with_all_changes_the_session_is_what_it_was(made: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    entries = data.draw(st.permutations(made.entries), label="entries")
    plan = make_plan(entries, made.found_at(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, set(plan.members)) == ((), set(made.members(cut + 1, made.last.version)))


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
    assert (plan.missing, set(plan.members)) == ((), set(made.members(cut + 1, made.last.version)))


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
        assert set(plan.members) == set(made.members(cut + 1, seen))
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
    assert plan.missing == ()


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
    assert {version for version, _ in plan.members} == set(range(cut + 1, reached + 1))
    assert {version for version, id_ in plan.members if is_noop(id_)} == {*missing, *range(target + 1, reached + 1)}


@given(HISTORIES, st.data())
def test_a_change_that_cannot_be_made_again_is_as_good_as_missing(made: History, data: st.DataObject) -> None:
    lost = data.draw(st.integers(1, made.last.version))
    entries = [replace(entry, edit=None) if entry.version == lost else entry for entry in made.entries]
    without = [entry for entry in made.entries if entry.version != lost]
    found = made.found_at(0)
    with_it, without_it = (make_plan(known, found, made.last.version) for known in (entries, without))
    assert replace(with_it, members=()) == replace(without_it, members=())


def test_a_change_that_is_there_already_is_not_made_again() -> None:
    made = history([ListEdit(push=(b"a",)), ListEdit(push=(b"b",))])
    plan = make_plan(made.entries, made.found_at(2), 2)
    assert plan == Plan(2, 0, (0, 2), (), (), ())


def test_a_snapshot_that_is_newer_than_what_is_to_be_reached_is_not_used() -> None:
    made = history([ListEdit(push=(b"a",)), ListEdit(push=(b"b",))])
    assert make_plan([made.snapshot_at(2, 9)], made.found_at(0), 1).missing == (1,)


def test_of_two_changes_of_one_version_from_two_processes_one_is_made() -> None:
    made = history([ListEdit(push=(b"a",))])
    plan = make_plan([*made.entries, unpack(pack(made.entries[0]))], made.found_at(0), 1)
    assert (plan.push, plan.members) == ((b"a",), ((1, an_id(1)),))


@given(
    st.builds(
        LogEntry,
        version=st.integers(0, 2**53),
        id=st.binary(max_size=16),
        previous_id=st.binary(max_size=16),
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
        generation=st.integers(0, 2**53),
        length=st.integers(0, 99),
        count=st.integers(0, 99),
        joined=st.binary(),
        separator=st.binary(max_size=9),
        members=st.lists(st.tuples(st.integers(0, 2**53), st.binary())).map(tuple),
    )
)
@example(Snapshot(1, 0, 0, 0, bytes(range(256)), b"", ((1, b"\xff"),)))
def test_a_snapshot_survives_being_left_as_a_hint(snapshot: Snapshot) -> None:
    assert unpack(pack(snapshot)) == snapshot


def test_the_newest_elements_of_a_snapshot_may_be_empty_texts() -> None:
    snapshot = Snapshot(1, 0, 5, 3, SEPARATOR.join([b"", b"x", b""]), SEPARATOR)
    assert [snapshot.newest(count) for count in range(4)] == [[], [b""], [b"x", b""], [b"", b"x", b""]]
    assert Snapshot(1, 0, 1, 1, b"", SEPARATOR).newest(1) == [b""]


def log(**fields: Any) -> SessionLog:
    return SessionLog(SPEC, **fields)


def server(version: int, *ids: tuple[int, bytes]) -> ServerState:
    return ServerState(version, 0, 1, 0, 0.0, ids, (), SERVER)


def test_equal_histories_and_such_that_have_no_version_in_common_do_not_diverge() -> None:
    own = {2: LogEntry(2, an_id(2), an_id(1), ListEdit())}
    known = log(position=LogPosition(3, an_id(3)), entries=own, others={1: an_id(1)})
    assert first_divergence(known, server(3, (3, an_id(3)), (2, an_id(2)), (1, an_id(1)))) is None
    assert first_divergence(known, server(2, (2, an_id(2)), (1, an_id(1)))) is None  # it only lost the third
    assert first_divergence(known, server(9, (9, an_id(9)))) is None
    assert first_divergence(known, server(3, (3, an_id(3) + b"a result"))) is None  # no id
    assert first_divergence(log(), server(3, (3, an_id(3)))) is None


@pytest.mark.parametrize("where", [1, 2, 3])
def test_histories_diverge_at_the_first_change_that_is_another(where: int) -> None:
    own = {2: LogEntry(2, an_id(2), an_id(1), ListEdit())}
    known = log(position=LogPosition(3, an_id(3)), entries=own, others={1: an_id(1)})
    there = [(version, an_id(version if version < where else 90 + version)) for version in (3, 2, 1)]
    assert first_divergence(known, server(3, *there)) == where


def test_the_fragments_are_what_is_known_of_the_changes_after_a_version() -> None:
    made = history([ListEdit(push=(b"%d" % version,)) for version in range(1, 6)])
    own = {entry.version: entry for entry in reversed(made.entries)}
    known = log(position=LogPosition(5, b""), entries=own, whole=made.snapshot_at(3, 9))
    assert fragments_of(known, made.found_at(2)) == [known.whole, *made.entries[2:]]
    assert fragments_of(known, made.found_at(3)) == [*made.entries[3:]]
    assert fragments_of(known, made.found_at(5)) == []


def test_a_snapshot_is_no_fragment_where_another_process_may_have_written_what_is_there() -> None:
    made = history([ListEdit(push=(b"%d" % version,)) for version in range(1, 6)])
    known = log(position=LogPosition(5, b""), entries={5: made.entries[4]}, whole=made.snapshot_at(5, 9))
    assert fragments_of(known, made.found_at(2)) == [made.entries[4]]
    assert fragments_of(known, replace(made.found_at(2), members=())) == [known.whole, made.entries[4]]


def test_a_plan_behind_a_missing_change_names_each_noop_and_only_the_newest_are_kept() -> None:
    far = 3000  # more versions than ids are kept for: the older no-op entries tell no process anything
    plan = make_plan([], server(0), far)
    noops = [version for version, id_ in plan.members if is_noop(id_)]
    assert (plan.version, len(plan.missing)) == (far + 1, far)
    assert noops == list(range(far - 1024 + 1, far + 2))


def test_a_drawn_id_is_never_taken_for_a_noop_and_two_noops_differ() -> None:
    assert not any(is_noop(new_operation_id()) for _ in range(200))
    first, second = (id_ for _, id_ in make_plan([], server(0), 1).members)
    assert is_noop(first)
    assert is_noop(second)
    assert (len(first), len(second), first == second) == (16, 16, False)


def test_a_change_and_a_snapshot_of_one_version_are_hints_of_their_own() -> None:
    made = history([ListEdit(push=(b"a",))])
    assert hint_name(made.entries[0]) == "1:entry"
    assert hint_name(made.snapshot_at(1, 9)) == "1:snapshot"
