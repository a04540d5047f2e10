"""What a process knows of one session, and what that costs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .. import _ambient as ambient
from .._commands import NO_POSITION, LogEntry, LogPosition, OpsRecord, Reading, ReplicationHistory, SessionSpec
from .._config import ClientOptions

__all__ = ["MOST_IDS", "RECORD_BYTES", "SessionLog", "Snapshot", "entry_cost"]

MOST_IDS = 1024
"""So many versions back, the ids of a session's changes are known."""

# What CPython takes, with the dictionaries' entries (tracemalloc, 3.10 to 3.13; see test_journal_memory). A log has its
# session's id, and three keys that it is in.
_LOG_BYTES, _ID_COPIES = 900, 4
_ENTRY_BYTES, _ELEMENT_BYTES = 350, 41
_SNAPSHOT_BYTES = 330
RECORD_BYTES = 230
"""What the id and the digest of a change take."""


def entry_cost(entry: LogEntry) -> int:
    """Return the bytes that an own change takes."""
    elements = len(entry.edit.push) if entry.edit else 0
    return _ENTRY_BYTES + entry.size + _ELEMENT_BYTES * (elements + (entry.result is not None))


@dataclass(frozen=True)
class Snapshot:
    """The newest elements of a session, as they were read.

    Attributes:
        version: The session's version then.
        digest: Its digest.
        generation: Its generation: changes that are no appends.
        length: How many elements it had.
        count: How many of them were read.
        joined: These, with the separator between two of them.
        separator: What stands between.
        records: The newest changes up to the version, as in ``ops``. A log keeps those of all its snapshots together.
    """

    version: int
    digest: bytes
    generation: int
    length: int
    count: int
    joined: bytes = field(repr=False)
    separator: bytes
    records: tuple[OpsRecord, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, reading: Reading) -> Snapshot:
        """Return what a reading showed."""
        session, count = reading.session, reading.count
        return cls(
            session.version,
            session.digest,
            session.generation,
            session.length,
            count,
            reading.joined,
            reading.separator,
            session.records,
        )

    @property
    def is_whole(self) -> bool:
        """Whether it holds all elements, not only the newest."""
        return self.count >= self.length

    @property
    def cost(self) -> int:
        """Bytes that it takes, without the records."""
        return _SNAPSHOT_BYTES + len(self.joined)

    def newest(self, count: int) -> list[bytes]:
        """Return the newest so many of the elements that were read."""
        return self.joined.split(self.separator)[self.count - count :] if count else []


@dataclass(slots=True)
class SessionLog:
    """What is known of one session.

    Attributes:
        spec: The session.
        options: Those of the client that used it last.
        position: The latest log position that was seen.
        history: Which server's data had it.
        seen_at: When, by `time.monotonic` (seconds).
        expires_at: When the session expires, if it is not changed, by `time.monotonic`; None means never or not known.
        whole: The newest snapshot of all elements, as far as it is still kept.
        tail: A newer one of the newest elements.
        entries: Own changes by version, the oldest first.
        retention_ms: Milliseconds for which the session remembers ids, as far as the server told.
        others: What ``ops`` holds by version, as far as that was read, and of own changes that a snapshot replaced.
        is_told: Whether a client that used it wants an error for what is lost.
        lost: Versions that are gone for good, of which such a client has not been told yet.
        emptied_at: The version whose elements were evicted and given up the last time; 0 means none.
    """

    spec: SessionSpec
    options: ClientOptions | None = None
    position: LogPosition = NO_POSITION
    history: ReplicationHistory | None = None
    seen_at: float = 0.0
    expires_at: float | None = None
    whole: Snapshot | None = None
    tail: Snapshot | None = None
    entries: dict[int, LogEntry] = field(default_factory=dict)
    retention_ms: int | None = None
    others: dict[int, OpsRecord] = field(default_factory=dict)
    is_told: bool = False
    lost: tuple[int, ...] = ()
    emptied_at: int = 0

    @property
    def version(self) -> int:
        """The latest version that was seen; 0 is none."""
        return self.position.version

    @property
    def horizon_seconds(self) -> float:
        """What was seen longer ago does not count.

        A process that remembers for a shorter time may have cleared the session meanwhile: what it left is gone.
        """
        own, told = self.spec.retention_ms, self.retention_ms
        return (told if told and told < own else own) / 1000

    @property
    def snapshots(self) -> list[Snapshot]:
        """The snapshots that are kept."""
        return [snapshot for snapshot in (self.whole, self.tail) if snapshot]

    @property
    def ids(self) -> dict[int, bytes]:
        """All ids of changes that are known, by version."""
        others = {version: record.id for version, record in self.others.items() if record.id}
        return {**others, **{version: entry.id for version, entry in self.entries.items()}}

    @property
    def digests(self) -> dict[int, bytes]:
        """All digests that are known, by version."""
        known = {version: record.digest for version, record in self.others.items() if record.digest}
        known.update((snapshot.version, snapshot.digest) for snapshot in self.snapshots)
        known.update((version, entry.digest) for version, entry in self.entries.items())
        return {**known, self.version: self.position.digest} if self.position.digest else known

    @property
    def readings(self) -> list[Snapshot]:
        """The snapshots, each with what is known of the changes up to it."""
        known = {version: entry.record for version, entry in self.entries.items()} | self.others
        records = [record for _, record in sorted(known.items())]
        return [
            replace(each, records=tuple(r for r in records if each.version - MOST_IDS < r.version <= each.version))
            for each in self.snapshots
        ]

    @property
    def own_cost(self) -> int:
        """Bytes that it takes whatever is kept of the session."""
        return _LOG_BYTES + _ID_COPIES * len(self.spec.keys.items)

    @property
    def read_cost(self) -> int:
        """Bytes of what was read."""
        return sum(snapshot.cost for snapshot in self.snapshots) + len(self.others) * RECORD_BYTES

    def see(self, position: LogPosition, history: ReplicationHistory, expires_at: float | None) -> None:
        """Note that a server has this position."""
        self.seen_at = ambient.monotonic()
        self.expires_at = expires_at
        if position.version >= self.version:
            self.position = position
        if position.version == self.version:
            self.history = history

    def lose_elements(self, until: int) -> tuple[int, ...]:
        """Note that all elements of a version are gone for good; return what is lost with them, each version once.

        That is what is known of the changes that may have made them: not those before an own change that kept nothing,
        nor own ones that added nothing. The version alone, if none is known.
        """
        own = [entry for entry in self.entries.values() if entry.edit is not None and entry.version <= until]
        first = max((entry.version for entry in own if entry.edit and entry.edit.keep == (0, 0)), default=0)
        added_nothing = {entry.version for entry in own if entry.edit and not entry.edit.push}
        known = {v for v in (*self.ids, self.version) if max(first, self.emptied_at + 1) <= v <= until}
        self.emptied_at = until
        return tuple(sorted(known - added_nothing)) or (until,)
