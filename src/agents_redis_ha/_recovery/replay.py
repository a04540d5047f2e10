"""What to put back: what a server has, what this process and others know of the rest, and what that makes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .._commands import (
    KEEP_ALL,
    PUBLICATION_LENGTH,
    WIPED,
    Command,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    PublishedTurn,
    ServerState,
    SessionSpec,
    chain,
    new_operation_id,
    restore,
)
from .session_log import MOST_IDS, SessionLog, Snapshot

__all__ = [
    "HistoryFragment",
    "Plan",
    "first_divergence",
    "fragments_of",
    "given_up",
    "has_beginning",
    "hint_name",
    "is_noop",
    "make_plan",
    "pack",
    "replay_command",
    "unpack",
    "was_deleted",
]

_NOOP = b"!!"  # no drawn id begins like that

HistoryFragment: TypeAlias = "LogEntry | Snapshot"
"""Something known of a history: one change, or what it had led to."""


@dataclass(frozen=True)
class Plan:
    """What to put back.

    Attributes:
        position: The end of the log afterwards.
        generation: The session's generation then.
        keep: The elements to keep: the first index and the one behind the last.
        push: The elements to put behind them.
        records: What to add to ``ops``: one of each version, up to the last.
        results: What repeats return, by version.
        turns: The turns that were published with them.
        missing: Versions that cannot be put back.
        lacks_elements: Whether elements that the server evicted cannot be put back.
    """

    position: LogPosition
    generation: int
    keep: tuple[int, int]
    push: tuple[bytes, ...] = field(repr=False)
    records: tuple[OpsRecord, ...] = ()
    results: dict[int, bytes] = field(default_factory=dict, repr=False)
    turns: tuple[PublishedTurn, ...] = field(default=(), repr=False)
    missing: tuple[int, ...] = ()
    lacks_elements: bool = False

    @property
    def gives_up(self) -> bool:
        """Whether there is anything that it cannot put back."""
        return bool(self.missing) or self.lacks_elements


def first_divergence(log: SessionLog, found: ServerState) -> int | None:
    """Return the first version at which another history is at the server than the one that is known, or None."""
    known, there = log.digests, found.digests
    diverged = [version for version in known.keys() & there.keys() if known[version] != there[version]]
    follows = _next_known(log, found)
    is_told = follows.id and follows.digest and (found.digest or not found.version)
    if is_told and not _is_next(follows, found):
        diverged.append(follows.version)
    return min(diverged, default=None)


def given_up(log: SessionLog, found: ServerState, diverges_at: int) -> list[int]:
    """Return the known versions in whose place a no-op entry stands: they were lost, and given up.

    Where there is none, another process wrote the history that diverges: after the session was deleted, or in the place
    of changes whose loss no process had noticed yet.
    """
    known, there = log.digests, found.digests
    agreed = max((v for v in known.keys() & there.keys() if v < diverges_at and known[v] == there[v]), default=0)
    return [version for version, id_ in found.ids.items() if is_noop(id_) and agreed < version <= log.version]


def has_beginning(log: SessionLog, found: ServerState) -> bool:
    """Whether a server has the beginning of what is known: one of its versions, or what is right before it."""
    if not found.version:
        return False
    return bool(log.digests.items() & found.digests.items()) or _is_next(_next_known(log, found), found)


def was_deleted(log: SessionLog, found: ServerState) -> bool:
    """Whether the session was deleted by another client: the server that confirmed it lost nothing since."""
    if log.history != found.history or found.history.replication_id is None:
        return False
    if found.hints:
        return False  # another process has seen that something is missing, and waits for processes that know it
    if has_beginning(log, found):
        return False  # the end of the known history is cut off: a deletion would have left none of it
    diverges_at = first_divergence(log, found)
    return found.version < log.version if diverges_at is None else not given_up(log, found, diverges_at)


def is_noop(id_: bytes) -> bool:
    """Whether this stands in ``ops`` for a change that was given up."""
    return id_.startswith(_NOOP)


def fragments_of(log: SessionLog, found: ServerState) -> list[HistoryFragment]:
    """Return what is known of the changes that follow what a server has, or of all where it lacks elements.

    Later snapshots only if the history up to the server's version is known to be theirs: otherwise another process may
    have written it in the place of something that was read.
    """
    after = -1 if found.lacks_elements else found.version
    entries = [entry for version, entry in sorted(log.entries.items()) if version > after]
    is_known = not found.version or log.digests.get(found.version) == found.digest
    is_theirs = is_known or _is_next(_next_known(log, found), found)
    read = [snapshot for snapshot in log.readings if snapshot.version > after]
    return [*(snapshot for snapshot in read if is_theirs or snapshot.version <= found.version), *entries]


def make_plan(fragments: Iterable[HistoryFragment], found: ServerState, target: int) -> Plan:
    """Return how to bring a session from a server's state to a version, as far as the fragments allow.

    In the place of a change that is missing stands a no-op entry, as Paxos fills the gaps of its log. Behind one, only
    appends are replayed: a pop or a replacement would meet other elements than it did. So it would where it was made in
    another history than the one that is put back before it. A last no-op entry stands behind them, so that every
    process that knew an earlier version sees that changes were given up. The same holds behind elements that were
    evicted.

    Args:
        fragments: What is known, in any order; what is there already is passed over. Of two changes that made one
            version, that counts which was made behind what is put back before it.
        found: The state to start from.
        target: The version to reach.
    """
    published = {id_[:PUBLICATION_LENGTH] for id_ in found.ids.values()}
    fragments = [
        fragment
        for fragment in fragments
        if (_is_of(fragment, found) if isinstance(fragment, Snapshot) else not _ran_again(fragment, found, published))
    ]
    snapshots = sorted((f for f in fragments if isinstance(f, Snapshot)), key=lambda s: s.version, reverse=True)
    entries: dict[int, list[LogEntry]] = {}
    for fragment in fragments:
        if isinstance(fragment, LogEntry) and fragment.edit is not None:
            entries.setdefault(fragment.version, []).append(fragment)
    state = _State(found, _evicted_elements(snapshots, entries, found) if found.lacks_elements else None)
    while state.version < target:
        # As far as a snapshot leads; where none does, by one change.
        if not any(snapshot.version <= target and state.apply_snapshot(snapshot) for snapshot in snapshots):
            state.pass_over(min((v for v in entries if v > state.version), default=target) - 1, target - MOST_IDS)
            state.apply_entry(_following(state.digest, entries.get(state.version + 1, ())))
    if state.has_gap:
        state.append_noop()
    position = LogPosition(state.version, state.digest)
    return Plan(
        position,
        state.generation,
        state.keep,
        tuple(state.push),
        tuple(state.records),
        state.results,
        tuple(_turns_of(entry for entry in fragments if isinstance(entry, LogEntry) and entry.id in state.ids)),
        tuple(state.missing),
        state.lacks_elements,
    )


def _turns_of(entries: Iterable[LogEntry]) -> Iterator[PublishedTurn]:
    """Yield the turns that changes published, in order, and what a clear did to those before it."""
    for entry in sorted(entries, key=lambda each: each.version):
        if entry.turn is not None:
            yield entry.turn
        elif entry.clears:
            yield WIPED


def replay_command(spec: SessionSpec, found: ServerState, plan: Plan) -> Command[bool]:
    """Return the command that puts back what a plan says."""
    return restore(
        spec,
        found,
        position=plan.position,
        generation=plan.generation,
        keep=plan.keep,
        push=plan.push,
        records=plan.records,
        results=plan.results,
        turns=plan.turns,
        abandons=plan.gives_up,
        evicted=plan.lacks_elements,
    )


def _is_of(snapshot: Snapshot, found: ServerState) -> bool:
    """Whether a snapshot tells of the history that the server has: a process may have known one that was deleted."""
    if snapshot.version <= found.version or not found.version:
        return True
    return any(record[::2] == found.position or _is_next(record, found) for record in snapshot.records)


def _ran_again(entry: LogEntry, found: ServerState, published: set[bytes]) -> bool:
    """Whether the turn that a lost change published was delivered again, and is in the history that the server has."""
    return entry.turn is not None and entry.version > found.version and entry.id[:PUBLICATION_LENGTH] in published


def _next_known(log: SessionLog, found: ServerState) -> OpsRecord:
    """Return what is known of the change behind the server's last one: its id and its digest, empty if unknown."""
    version = found.version + 1
    return OpsRecord(version, log.ids.get(version, b""), log.digests.get(version, b""))


def _is_next(record: OpsRecord, found: ServerState) -> bool:
    """Whether a change was made right behind the server's last one: then the server has the beginning of its log."""
    is_told = record.version == found.version + 1 and record.id and (found.digest or not found.version)
    return bool(is_told) and record.digest == chain(found.digest, record.id)


def _following(digest: bytes, entries: Sequence[LogEntry]) -> LogEntry | None:
    """Return the change that was made behind this digest; if none is known to be, the one that was told last."""
    following = [entry for entry in entries if entry.digest == chain(digest, entry.id)]
    return next(reversed(following or entries), None)


def _evicted_elements(
    snapshots: Sequence[Snapshot], entries: dict[int, list[LogEntry]], found: ServerState
) -> list[bytes] | None:
    """Return all elements that the session had at the server's version, or None if that is not known."""
    whole = [(s.version, s.digest, s.newest(s.count)) for s in snapshots if s.is_whole and s.version <= found.version]
    for version, begins, read in [*whole, (0, b"", [])]:
        digest, elements = begins, read
        for at in range(version + 1, found.version + 1):
            entry = _following(digest, entries.get(at, ()))
            if entry is None or entry.edit is None:
                break
            digest, elements = chain(digest, entry.id), entry.edit.apply(elements)
        else:
            if digest == found.digest and len(elements) == found.expected_length:
                return elements
    return None


class _State:
    """A list of elements of which only the beginning is at the server."""

    def __init__(self, found: ServerState, elements: list[bytes] | None) -> None:
        self.version, self.digest = found.position
        self.generation = found.generation
        self.keep = (0, found.length) if elements is None else (0, 0)
        self.push = elements or []
        self.records: list[OpsRecord] = []
        self.results: dict[int, bytes] = {}
        self.missing: list[int] = []
        self.lacks_elements = found.lacks_elements and elements is None

    @property
    def ids(self) -> set[bytes]:
        """The ids of the changes that were made."""
        return {record.id for record in self.records}

    @property
    def has_gap(self) -> bool:
        """Whether something before this cannot be put back."""
        return bool(self.missing) or self.lacks_elements

    def apply_snapshot(self, snapshot: Snapshot) -> bool:
        """Go to what was read later, if all that is missing was read."""
        if snapshot.version <= self.version:
            return False
        grown = snapshot.length - (self.keep[1] - self.keep[0] + len(self.push))
        if snapshot.generation == self.generation and 0 <= grown <= snapshot.count and not self.has_gap:
            self.push += snapshot.newest(grown)
        elif snapshot.is_whole:
            self.keep, self.push, self.lacks_elements = (0, 0), snapshot.newest(snapshot.count), False
        else:
            return False
        known = {record.version: record for record in snapshot.records}
        between = range(self.version + 1, snapshot.version)
        self.records += [known.get(version, OpsRecord(version, b"", b"")) for version in between]
        last = known.get(snapshot.version)
        self.records.append(OpsRecord(snapshot.version, last.id if last else b"", snapshot.digest))
        self.version, self.digest, self.generation = snapshot.version, snapshot.digest, snapshot.generation
        return True

    def pass_over(self, *until: int) -> None:
        """Pass over changes of which nothing is known and that are too many to note each."""
        version = min(until)
        if version > self.version:
            self.missing += range(self.version + 1, version + 1)
            self.version, self.digest = version, b""
            self.records.clear()

    def apply_entry(self, entry: LogEntry | None) -> None:
        """Make one change, or note that it is missing."""
        is_behind = entry is not None and entry.digest == chain(self.digest, entry.id) and not self.has_gap
        if entry is None or entry.edit is None or not (is_behind or entry.appends):
            self.missing.append(self.version + 1)
            self.append_noop()
            return
        self._record(entry.id)
        self._apply_edit(entry.edit)
        if entry.result is not None:
            self.results[self.version] = entry.result
        self.generation += entry.edit.keep != KEEP_ALL

    def append_noop(self) -> None:
        """Make a change of nothing: its id shows a process that knows another in this place that it was given up."""
        self._record(_NOOP + new_operation_id()[len(_NOOP) :])

    def _record(self, id_: bytes) -> None:
        self.version, self.digest = self.version + 1, chain(self.digest, id_)
        self.records.append(OpsRecord(self.version, id_, self.digest))

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

    Two processes know different things up to the same version: one its own change, the other what it has read, and of
    histories that diverged each its own.
    """
    kind = "entry" if isinstance(fragment, LogEntry) else "whole" if fragment.is_whole else "tail"
    return f"{fragment.version}:{kind}:{fragment.digest.decode()}"


def pack(fragment: HistoryFragment) -> bytes:
    """Return a fragment as the hint that is left at the server."""
    if isinstance(fragment, LogEntry):
        edit = fragment.edit and [fragment.edit.keep, list(map(_text, fragment.edit.push))]
        result = None if fragment.result is None else _text(fragment.result)
        turn = fragment.turn and [_text(part) if isinstance(part, bytes) else part for part in fragment.turn]
        fields: list[object] = [fragment.version, _text(fragment.id), _text(fragment.digest), edit, result, turn]
    else:
        records = [[version, _text(id_), _text(digest)] for version, id_, digest in fragment.records]
        numbers = [fragment.version, _text(fragment.digest), fragment.generation, fragment.length, fragment.count]
        fields = [*numbers, _text(fragment.joined), _text(fragment.separator), records]
    return json.dumps(fields, ensure_ascii=False).encode("utf-8")


def unpack(packed: bytes) -> HistoryFragment:
    """Return a fragment that `pack` made."""
    fields = json.loads(packed)
    if len(fields) == 6:
        version, id_, digest, edit, result, turn = fields
        made = edit and ListEdit((edit[0][0], edit[0][1]), tuple(map(_bytes, edit[1])))
        published = turn and PublishedTurn._make(_bytes(part) if isinstance(part, str) else part for part in turn)
        result = None if result is None else _bytes(result)
        return LogEntry(version, _bytes(id_), _bytes(digest), made, result, published)
    version, digest, generation, length, count, joined, separator, records = fields
    known = tuple(OpsRecord(at, _bytes(id_), _bytes(its)) for at, id_, its in records)
    return Snapshot(version, _bytes(digest), generation, length, count, _bytes(joined), _bytes(separator), known)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")
