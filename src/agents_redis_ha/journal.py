"""What this process knows of the sessions that it used lately: enough to notice lost history, and to put it back. Pure.

Of each session: the latest version that was seen and the change that made it, this process's own changes, and the
newest reading. All of it is bounded in number, bytes and age; see `RepairConfig` for what the bounds mean.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from .connections.node import Tenure
from .request import Known, Subject

__all__ = ["KEEP_ALL", "MOST_IDS", "OPERATION_ID_BYTES", "Effect", "Journal", "Record", "Sight", "Unit"]

KEEP_ALL = (0, None)

OPERATION_ID_BYTES = 16
"""Length of an operation's id; a longer member of ``ops`` is an id with its result."""

MOST_IDS = 1024
"""So many versions back, the ids of a session's changes are known."""


@dataclass(slots=True)
class Effect:
    """What a change did to the list of elements: ``elements[keep[0]:keep[1]] + push``."""

    keep: tuple[int, int | None] = KEEP_ALL
    push: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its elements."""
        return sum(map(len, self.push))


@dataclass(slots=True)
class Unit:
    """One change as it can be made again.

    Attributes:
        version: The version that it made.
        id: Its id.
        before: The id of the change before it; empty where that is not known.
        effect: What it did; None if that cannot be repeated.
        result: What its repeat returns, None for nothing.
        made_at: When, by `time.monotonic`.
    """

    version: int
    id: bytes
    before: bytes
    effect: Effect | None
    result: bytes | None = None
    made_at: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes of elements that it keeps, put in and taken out."""
        return (self.effect.size if self.effect else 0) + len(self.result or b"")

    @property
    def appends(self) -> bool:
        """Whether it only adds elements to the end."""
        return self.effect is not None and self.effect.keep == KEEP_ALL

    @property
    def members(self) -> list[tuple[int, bytes]]:
        """What stands in ``ops`` for it."""
        result = [] if self.result is None else [(self.version, self.id + self.result)]
        return [(self.version, self.id), *result]


@dataclass(frozen=True)
class Sight:
    """The newest elements of a session, as they were read.

    Attributes:
        version: The session's version then.
        generation: Its generation: changes that are no appends.
        length: How many elements it had.
        count: How many of them were read.
        joined: These, with the separator between two of them.
        separator: What stands between.
        members: The newest changes up to the version, as in ``ops``.
    """

    version: int
    generation: int
    length: int
    count: int
    joined: bytes
    separator: bytes
    members: tuple[tuple[int, bytes], ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes that it keeps: members hold what was popped."""
        return len(self.joined) + sum(len(member) for _, member in self.members)

    def newest(self, count: int) -> list[bytes]:
        """Return the newest so many of the elements that were read."""
        return self.joined.split(self.separator)[self.count - count :] if count else []


@dataclass
class Record:
    """What is known of one session.

    Attributes:
        subject: The session.
        version: The latest version that was seen; 0 is none.
        id: The id of the change that made it; empty where that is not known.
        tenure: Who said so.
        seen_at: When, by `time.monotonic`.
        expires_at: When the session expires, if it is not changed; None means never or not known.
        whole: The newest reading of all elements, as far as it is still kept.
        tail: A newer one of the newest elements.
        units: Own changes by version, the oldest first.
        others: Ids of others' changes by version, as far as they are known.
        lost: Versions that are gone for good, of which the user has not been told yet.
    """

    subject: Subject
    version: int = 0
    id: bytes = b""
    tenure: Tenure | None = None
    seen_at: float = 0.0
    expires_at: float | None = None
    whole: Sight | None = None
    tail: Sight | None = None
    units: dict[int, Unit] = field(default_factory=dict)
    others: dict[int, bytes] = field(default_factory=dict)
    lost: tuple[int, ...] = ()

    def knows(self) -> Known:
        """Return the latest version and its id, as of now."""
        return self.version, self.id

    @property
    def horizon_seconds(self) -> float:
        """What was seen longer ago does not count."""
        return self.subject.retention_ms / 1000

    @property
    def ids(self) -> dict[int, bytes]:
        """All ids that are known, by version."""
        latest = {self.version: self.id} if self.id else {}
        return {**self.others, **{version: unit.id for version, unit in self.units.items()}, **latest}

    def members_until(self, version: int, newest: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
        """Return what stands in ``ops`` for the latest changes up to a version, as far as it is known.

        Args:
            version: The last one.
            newest: What was just read there.
        """
        known: dict[tuple[int, bytes], None] = {}
        for sight in (self.whole, self.tail):
            known.update(dict.fromkeys(sight.members if sight else ()))
        known.update(dict.fromkeys(member for unit in self.units.values() for member in unit.members))
        known.update(dict.fromkeys(newest))
        return tuple(member for member in known if version - MOST_IDS < member[0] <= version)

    def see(self, version: int, id_: bytes, tenure: Tenure, expires_at: float | None) -> None:
        """Take note that a server knows this version."""
        self.seen_at = time.monotonic()
        self.expires_at = expires_at
        if version > self.version or (version == self.version and id_):
            self.version, self.id = version, id_
        if version == self.version:
            self.tenure = tenure


class Journal:
    """The records of this process, the latest used last, within bounds."""

    def __init__(self, max_changes: int, max_bytes: int) -> None:
        """Make an empty journal.

        Args:
            max_changes: Most own changes, and most sessions; 1 or more.
            max_bytes: Most bytes of elements, own, popped and read.
        """
        self._max_changes, self._max_bytes = max_changes, max_bytes
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._changes = self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def record(self, subject: Subject) -> Record:
        """Return what is known of a session.

        What was seen longer ago than a change's id is remembered, or may have expired meanwhile, is not known any more:
        somebody else may have cleared the session since, of which the server would have no trace.
        """
        key = subject.keys.items
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record(subject)
            self._keep_within_bounds(record)
            return record
        self._records.move_to_end(key)
        record.subject = subject
        now = time.monotonic()
        expired = record.expires_at is not None and now >= record.expires_at
        if record.version and (expired or now - record.seen_at > record.horizon_seconds):
            self.forget(record)
        return record

    def forget(self, record: Record) -> None:
        """Know nothing of a session any more, but what the user still has to be told."""
        record.version, record.id, record.tenure, record.expires_at = 0, b"", None, None
        record.others.clear()
        self._replace(record, None, None)
        self._drop(record, list(record.units))

    def keep(self, record: Record, kept: Unit | Sight) -> None:
        """Keep a change or a reading to put it back if need be, and drop the oldest until the bounds hold."""
        if self._records.setdefault(record.subject.keys.items, record) is not record:
            return  # it was dropped while the operation was under way, and begun anew
        self._records.move_to_end(record.subject.keys.items)
        if isinstance(kept, Unit):
            self._drop(record, (kept.version,))  # of a history that is gone, if there was one
            record.units[kept.version] = kept
            self._changes += 1
            self._bytes += kept.size
            if kept.before and kept.version - 1 not in record.units:
                record.others[kept.version - 1] = kept.before
        else:
            self._keep_reading(record, kept)
        self._keep_within_bounds(record)

    def close(self, record: Record, gaps: Iterable[Unit]) -> None:
        """Keep what stands in the place of changes that were given up; a reading behind them tells no more."""
        self._replace(record, record.whole, None)
        for gap in gaps:
            self.keep(record, gap)

    def _keep_reading(self, record: Record, sight: Sight) -> None:
        if sight.version < max(kept.version if kept else 0 for kept in (record.whole, record.tail)):
            return
        record.others.update((version, id_) for version, id_ in sight.members if len(id_) == OPERATION_ID_BYTES)
        if sight.size > self._max_bytes:
            return  # its own changes would be dropped for nothing
        if sight.count >= sight.length:
            self._replace(record, sight, None)
            self._drop(record, [version for version in record.units if version <= sight.version])
        else:
            self._replace(record, record.whole, sight)

    def _replace(self, record: Record, whole: Sight | None, tail: Sight | None) -> None:
        before = sum(sight.size for sight in (record.whole, record.tail) if sight)
        self._bytes += sum(sight.size for sight in (whole, tail) if sight) - before
        record.whole, record.tail = whole, tail

    def _drop(self, record: Record, versions: Iterable[int]) -> None:
        for version in versions:
            unit = record.units.pop(version, None)
            if unit is not None:
                self._changes -= 1
                self._bytes -= unit.size

    def _keep_within_bounds(self, latest: Record) -> None:
        old = time.monotonic() - latest.horizon_seconds
        while latest.units and next(iter(latest.units.values())).made_at < old:
            self._drop(latest, (next(iter(latest.units)),))
        if len(latest.others) > 2 * MOST_IDS:
            for version in sorted(latest.others)[:-MOST_IDS]:
                del latest.others[version]
        while self._bytes > self._max_bytes or max(self._changes, len(self._records)) > self._max_changes:
            key, oldest = next(iter(self._records.items()))
            if oldest is not latest:
                self.forget(oldest)
                del self._records[key]
            elif (oldest.whole or oldest.tail) and self._bytes > self._max_bytes:
                self._replace(oldest, None, None)
            else:
                self._drop(oldest, [next(iter(oldest.units))])
