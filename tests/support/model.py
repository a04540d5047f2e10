"""A session's history as a plain list says it: changes, the state after each, and what a server or a process has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from agents_redis_ha._commands import (
    KEEP_ALL,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    ReplicationHistory,
    ServerState,
    chain,
)
from agents_redis_ha._recovery.replay import Plan
from agents_redis_ha._recovery.session_log import Snapshot
from tests.support.fakes import an_id

SERVER = ReplicationHistory("h:1", "1f")
SEPARATOR = b",4711,"


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

    def position(self, version: int) -> LogPosition:
        return LogPosition(version, self.entries[version - 1].digest if version else b"")

    def records(self, first: int, last: int) -> tuple[OpsRecord, ...]:
        return tuple(entry.record for entry in self.entries if first <= entry.version <= last)

    def results(self, first: int, last: int) -> dict[int, bytes]:
        """Return what the changes returned, of those that returned something."""
        some = self.entries[first - 1 : last]
        return {entry.version: entry.result for entry in some if entry.result is not None}

    def found_at(self, version: int, *, evicted: bool = False) -> ServerState:
        """Return what a server has that knows the history up to a version, and evicted its elements or did not."""
        state, there = self.states[version], self.records(1, version)
        length, expected = 0 if evicted else len(state.elements), len(state.elements)
        _, digest = self.position(version)
        return ServerState(version, state.generation, digest, length, expected, 0, 0.0, 0, there, (), SERVER)

    def snapshot_at(self, version: int, count: int) -> Snapshot:
        """Return what a process has that read the newest so many elements at a version."""
        state = self.states[version]
        newest = state.elements[max(0, len(state.elements) - count) :]
        numbers = (state.generation, len(state.elements), len(newest))
        records = self.records(1, version)
        return Snapshot(*self.position(version), *numbers, SEPARATOR.join(newest), SEPARATOR, records)


def history(edits: Sequence[ListEdit], results: bool = True, first_id: int = 1) -> History:
    """Return the history that edits make.

    Args:
        edits: One a change.
        results: Whether its pops tell what they removed.
        first_id: The number of the first change's id; those of two histories differ by it.
    """
    states, entries, digest = [State(0, 0, ())], list[LogEntry](), b""
    for version, edit in enumerate(edits, start=1):
        before, id_ = states[-1], an_id(first_id + version - 1)
        popped = edit.keep == (0, -1) and before.elements
        result = before.elements[-1] if popped and results else None
        digest = chain(digest, id_)
        entries.append(LogEntry(version, id_, digest, edit, result))
        states.append(after(before, edit))
    return History(tuple(entries), tuple(states))


def said(*texts: bytes, first_id: int = 1) -> History:
    """Return a history of appends, of one element each."""
    return history([ListEdit(push=(text,)) for text in texts], first_id=first_id)


def put_back(plan: Plan, state: State) -> State:
    """Return the session after a plan, as rewrite() in editing.lua makes it."""
    first, last = plan.keep
    kept = state.elements[first:last] if last > first else ()
    return State(plan.position.version, plan.generation, (*kept, *plan.push))


ITEMS = st.lists(st.binary(max_size=3), max_size=3).map(tuple)
APPENDS = st.lists(st.binary(max_size=3), min_size=1, max_size=3).map(lambda items: ListEdit(push=tuple(items)))
POPS = st.just(ListEdit(keep=(0, -1)))
CLEARS = st.just(ListEdit(keep=(0, 0)))
REPLACEMENTS = st.builds(ListEdit, keep=st.tuples(st.integers(0, 6), st.integers(0, 6)), push=ITEMS)
HISTORIES = st.lists(st.one_of(APPENDS, APPENDS, POPS, CLEARS, REPLACEMENTS), min_size=1, max_size=9).map(history)
