"""What to put back: what a server has, what this process and others know of the rest, and what that makes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from .._commands import KEEP_ALL, ListEdit, LogEntry, Member, ServerState, new_operation_id
from .journal import MOST_IDS, SessionLog, Snapshot

__all__ = [
    "HistoryFragment",
    "Plan",
    "first_divergence",
    "fragments_of",
    "hint_name",
    "is_noop",
    "make_plan",
    "pack",
    "unpack",
]

_NOOP = b"!!"  # no drawn id begins like that

HistoryFragment: TypeAlias = "LogEntry | Snapshot"
"""Something known of a history: one change, or what it had led to."""


@dataclass(frozen=True)
class Plan:
    """What to put back.

    Attributes:
        version: The version that the session has afterwards.
        generation: Its generation then.
        keep: The elements to keep: the first index and the one behind the last.
        push: The elements to put behind them.
        members: What to add to ``ops``.
        missing: Versions that cannot be put back.
    """

    version: int
    generation: int
    keep: tuple[int, int]
    push: tuple[bytes, ...]
    members: tuple[Member, ...]
    missing: tuple[int, ...]


def first_divergence(log: SessionLog, found: ServerState) -> int | None:
    """Return the first version that is another change at the server than the one that is known, or None."""
    known, there = log.ids, found.ids
    return min((version for version in known.keys() & there.keys() if known[version] != there[version]), default=None)


def is_noop(id_: bytes) -> bool:
    """Whether this stands in ``ops`` for a change that was given up."""
    return id_.startswith(_NOOP)


def fragments_of(log: SessionLog, found: ServerState) -> list[HistoryFragment]:
    """Return what is known of the changes that follow what a server has.

    Snapshots only if the change that made the server's version is known here, or not remembered even there: otherwise
    another process may have written it in the place of something that was read.
    """
    entries: list[HistoryFragment] = [entry for at, entry in sorted(log.entries.items()) if at > found.version]
    version, id_ = found.position
    if id_ and log.ids.get(version) != id_:
        return entries
    return [*(snapshot for snapshot in log.snapshots if snapshot.version > version), *entries]


def make_plan(fragments: Iterable[HistoryFragment], found: ServerState, target: int) -> Plan:
    """Return how to bring a session from a server's state to a version, as far as the fragments allow.

    In the place of a change that is missing stands a no-op entry, as Paxos fills the gaps of its log. Behind one, only
    appends are replayed: a pop or a replacement would meet other elements than it did. A last no-op entry stands behind
    them, so that every process that knew an earlier version sees that changes were given up.

    Args:
        fragments: What is known, in any order; what is there already is passed over. Of two changes that made one
            version the later one counts.
        found: The state to start from.
        target: The version to reach.
    """
    fragments = list(fragments)
    snapshots = sorted((f for f in fragments if isinstance(f, Snapshot)), key=lambda s: s.version, reverse=True)
    entries = {f.version: f for f in fragments if isinstance(f, LogEntry) and f.edit is not None}
    state = _State(found)
    while state.version < target:
        # As far as a snapshot leads; where none does, by one change.
        if not any(snapshot.version <= target and state.apply_snapshot(snapshot) for snapshot in snapshots):
            state.apply_entry(entries.get(state.version + 1))
    if state.missing:
        state.append_noop()
    members = tuple((version, id_) for version, id_ in state.members if version > target - MOST_IDS or not is_noop(id_))
    return Plan(state.version, state.generation, state.keep, tuple(state.push), members, tuple(state.missing))


class _State:
    """A list of elements of which only the beginning is at the server."""

    def __init__(self, found: ServerState) -> None:
        self.version = found.version
        self.generation = found.generation
        self.keep = (0, found.length)
        self.push: list[bytes] = []
        self.members: list[Member] = []
        self.missing: list[int] = []

    def apply_snapshot(self, snapshot: Snapshot) -> bool:
        """Go to what was read later, if all that is missing was read."""
        if snapshot.version <= self.version:
            return False
        grown = snapshot.length - (self.keep[1] - self.keep[0] + len(self.push))
        if snapshot.generation == self.generation and 0 <= grown <= snapshot.count and not self.missing:
            self.push += snapshot.newest(grown)
        elif snapshot.is_whole:
            self.keep, self.push = (0, 0), snapshot.newest(snapshot.count)
        else:
            return False
        self.members += [(version, member) for version, member in snapshot.members if version > self.version]
        self.version, self.generation = snapshot.version, snapshot.generation
        return True

    def apply_entry(self, entry: LogEntry | None) -> None:
        """Make one change, or note that it is missing."""
        if entry is None or entry.edit is None or (self.missing and entry.edit.keep != KEEP_ALL):
            self.missing.append(self.version + 1)
            self.append_noop()
            return
        self.version += 1
        self._apply_edit(entry.edit)
        self.members += entry.members
        self.generation += entry.edit.keep != KEEP_ALL

    def append_noop(self) -> None:
        """Make a change of nothing: its id shows a process that knows another in this place that it was given up."""
        self.version += 1
        self.members.append((self.version, _NOOP + new_operation_id()[len(_NOOP) :]))

    def _apply_edit(self, edit: ListEdit) -> None:
        if edit.keep == KEEP_ALL:
            self.push.extend(edit.push)
            return
        first, last = self.keep
        kept = last - first
        begin, end, _ = slice(*edit.keep).indices(kept + len(self.push))
        end = max(begin, end)
        self.push = self.push[max(0, begin - kept) : max(0, end - kept)] + list(edit.push)
        self.keep = (first + min(begin, kept), first + min(end, kept))


def hint_name(fragment: HistoryFragment) -> str:
    """Return the name of a fragment among the hints.

    Two processes know different things up to the same version: one its own change, the other what it has read.
    """
    return f"{fragment.version}:{'entry' if isinstance(fragment, LogEntry) else 'snapshot'}"


def pack(fragment: HistoryFragment) -> bytes:
    """Return a fragment as the hint that is left at the server."""
    if isinstance(fragment, LogEntry):
        edit = fragment.edit and [fragment.edit.keep, list(map(_text, fragment.edit.push))]
        result = None if fragment.result is None else _text(fragment.result)
        fields: list[object] = [fragment.version, _text(fragment.id), _text(fragment.previous_id), edit, result]
    else:
        members = [[version, _text(member)] for version, member in fragment.members]
        numbers = [fragment.version, fragment.generation, fragment.length, fragment.count]
        fields = [*numbers, _text(fragment.joined), _text(fragment.separator), members, None]
    return json.dumps(fields, ensure_ascii=False).encode("utf-8")


def unpack(packed: bytes) -> HistoryFragment:
    """Return a fragment that `pack` made."""
    fields = json.loads(packed)
    if len(fields) == 5:
        version, id_, previous_id, edit, result = fields
        made = edit and ListEdit((edit[0][0], edit[0][1]), tuple(map(_bytes, edit[1])))
        return LogEntry(version, _bytes(id_), _bytes(previous_id), made, None if result is None else _bytes(result))
    version, generation, length, count, joined, separator, members, _ = fields
    names = tuple((at, _bytes(member)) for at, member in members)
    return Snapshot(version, generation, length, count, _bytes(joined), _bytes(separator), names)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
