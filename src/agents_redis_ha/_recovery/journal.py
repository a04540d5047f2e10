"""What this process knows of the sessions that it used lately: enough to notice lost history, and to put it back. Pure.

Of each session: the latest log position that was seen, this process's own changes, and the newest snapshot. All of it
is bounded in number, bytes and age; see `RepairConfig` for what the bounds mean.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from .._commands import NO_POSITION, LogEntry, LogPosition, OpsRecord, ReplicationHistory, SessionSpec
from .._config import ClientOptions, RepairConfig

__all__ = ["MOST_IDS", "Journal", "SessionLog", "Snapshot"]

MOST_IDS = 1024
"""So many versions back, the ids of a session's changes are known."""
# A cluster has a thousand primaries at most; behind a stable name or in a long life, histories go by one after another.
_MOST_HISTORIES = 4096


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
        records: The newest changes up to the version, as in ``ops``.
    """

    version: int
    digest: bytes
    generation: int
    length: int
    count: int
    joined: bytes = field(repr=False)
    separator: bytes
    records: tuple[OpsRecord, ...] = field(default=(), repr=False)

    @property
    def is_whole(self) -> bool:
        """Whether it holds all elements, not only the newest."""
        return self.count >= self.length

    @cached_property
    def size(self) -> int:
        """Bytes of elements that it keeps."""
        return len(self.joined)

    def newest(self, count: int) -> list[bytes]:
        """Return the newest so many of the elements that were read."""
        return self.joined.split(self.separator)[self.count - count :] if count else []


@dataclass
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
        others: What ``ops`` holds of other processes' changes by version, as far as that is known.
        is_told: Whether a client that used it wants an error for what is lost.
        lost: Versions that are gone for good, of which such a client has not been told yet.
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

    @property
    def version(self) -> int:
        """The latest version that was seen; 0 is none."""
        return self.position.version

    @property
    def horizon_seconds(self) -> float:
        """What was seen longer ago does not count.

        A process that remembers for a shorter time may have cleared the session meanwhile: what it left is gone.
        """
        return min(self.spec.retention_ms, self.retention_ms or self.spec.retention_ms) / 1000

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

    def records_until(self, version: int, newest: Iterable[OpsRecord]) -> tuple[OpsRecord, ...]:
        """Return what stands in ``ops`` for the latest changes up to a version, as far as it is known.

        Args:
            version: The last one.
            newest: What was just read there.
        """
        known: dict[int, OpsRecord] = {}
        for snapshot in self.snapshots:
            known.update((record.version, record) for record in snapshot.records)
        known.update((at, entry.record) for at, entry in self.entries.items())
        known.update((record.version, record) for record in newest)
        return tuple(record for at, record in sorted(known.items()) if version - MOST_IDS < at <= version)

    def see(self, position: LogPosition, history: ReplicationHistory, expires_at: float | None) -> None:
        """Note that a server has this position."""
        self.seen_at = time.monotonic()
        self.expires_at = expires_at
        if position.version >= self.version:
            self.position = position
        if position.version == self.version:
            self.history = history


class Journal:
    """The session logs of this process, the latest used last, within bounds.

    Attributes:
        live: Whose data replies came from since the last failover or restart.
        waiting: The logs that are still to be compared with what a server has since then, the latest used last.
    """

    def __init__(self, max_changes: int, max_bytes: int) -> None:
        """Make an empty journal.

        Args:
            max_changes: Most own changes, and most sessions; 1 or more.
            max_bytes: Most bytes of elements, own, popped and read.
        """
        self._max_changes, self._max_bytes = max_changes, max_bytes
        self._logs: OrderedDict[bytes, SessionLog] = OrderedDict()
        self._changes = self._bytes = 0
        self.live: set[ReplicationHistory] = set()
        self.waiting: OrderedDict[bytes, SessionLog] = OrderedDict()
        self._met: OrderedDict[ReplicationHistory, None] = OrderedDict()
        self._newest: dict[str, ReplicationHistory] = {}  # by node

    def widen(self, repair: RepairConfig) -> None:
        """Keep as much as another client asks for, if that is more: of several clients the largest bounds count."""
        self._max_changes = max(self._max_changes, repair.max_changes)
        self._max_bytes = max(self._max_bytes, repair.max_bytes)

    def __len__(self) -> int:
        return len(self._logs) + len(self.waiting)

    def __iter__(self) -> Iterator[SessionLog]:
        return iter([*self.waiting.values(), *self._logs.values()])

    def meet(self, history: ReplicationHistory, *, anew: bool = False) -> None:
        """Note whose data a reply came from.

        From data that was not known, all logs wait to be looked at: the server was started or has become a primary. Two
        servers behind one name do not let them wait again and again, and neither do the primaries of a cluster.

        Args:
            history: Whose data it is.
            anew: Whether there was a failover, which the history need not show.
        """
        if history not in self._met:
            anew = bool(self._met)  # from the first one on, nothing can be known of older data
            self._met[history] = None
            self._newest[history.node] = history
            if len(self._met) > _MOST_HISTORIES:
                oldest, _ = self._met.popitem(last=False)
                if self._newest[oldest.node] == oldest:
                    del self._newest[oldest.node]
        if not anew:
            if self._newest[history.node] == history:  # no late reply of a server that was replaced
                self.live.add(history)
            return
        self.live = {history}
        self.waiting.update(self._logs)
        self._logs.clear()

    def next_waiting(self) -> SessionLog | None:
        """Return the log that was used last among those that wait, which waits no more; None if there is none."""
        if not self.waiting:
            return None
        key, log = self.waiting.popitem()
        self._logs[key] = log
        self._logs.move_to_end(key, last=False)  # the order among all of them stays
        return log

    def let_wait(self, log: SessionLog) -> None:
        """Let a log wait again that was not looked at to the end."""
        key = log.spec.keys.items
        if self._logs.get(key) is log:
            self.waiting[key] = self._logs.pop(key)

    def is_settled(self, log: SessionLog) -> bool:
        """Whether there is no need to compare a log with what a server has: nothing is known of it, or it was used.

        Without a replication id, data cannot be told from other data.
        """
        if self._is_past(log):
            self.forget(log)
        tells = log.history is not None and log.history.replication_id is not None
        return not log.version or (tells and log.history in self.live)

    def log(self, spec: SessionSpec) -> SessionLog:
        """Return what is known of a session.

        What was seen longer ago than a change's id is remembered, or may have expired meanwhile, is not known any more:
        the session may have been cleared since, of which the server would have no trace.
        """
        log = self._use(spec.keys.items)
        if log is None:
            log = self._logs[spec.keys.items] = SessionLog(spec)
            self._keep_within_bounds(log)
            return log
        log.spec = spec
        if self._is_past(log):
            self.forget(log)
        return log

    def _use(self, key: bytes) -> SessionLog | None:
        """Return a log as the one that was used last."""
        logs = self._logs if key in self._logs else self.waiting
        log = logs.get(key)
        if log is not None:
            logs.move_to_end(key)
        return log

    @staticmethod
    def _is_past(log: SessionLog) -> bool:
        now = time.monotonic()
        expired = log.expires_at is not None and now >= log.expires_at
        return log.version > 0 and (expired or now - log.seen_at > log.horizon_seconds)

    def forget(self, log: SessionLog) -> None:
        """Know nothing of a session any more, but what the user still has to be told."""
        log.position, log.history, log.expires_at = NO_POSITION, None, None
        log.others.clear()
        self._replace(log, None, None)
        self._drop(log, list(log.entries))

    def keep(self, log: SessionLog, kept: LogEntry | Snapshot) -> None:
        """Keep a change or a snapshot to put it back if need be, and drop the oldest until the bounds hold."""
        known = self._use(log.spec.keys.items)
        if known is None:  # it was dropped while the operation was under way
            self._logs[log.spec.keys.items] = log
        elif known is not log:
            return  # and begun anew
        if isinstance(kept, LogEntry):
            self._drop(log, (kept.version,))  # of a history that is gone, if there was one
            log.entries[kept.version] = kept
            self._changes += 1
            self._bytes += kept.size
        else:
            self._keep_snapshot(log, kept)
        self._keep_within_bounds(log)

    def abandon(self, log: SessionLog, noops: Iterable[LogEntry]) -> None:
        """Keep the no-op entries in the place of changes that were given up; a snapshot behind them tells no more."""
        self._replace(log, log.whole, None)
        for noop in noops:
            self.keep(log, noop)

    def _keep_snapshot(self, log: SessionLog, snapshot: Snapshot) -> None:
        if snapshot.version < max((kept.version for kept in log.snapshots), default=0):
            return
        log.others.update((record.version, record) for record in snapshot.records)
        if snapshot.size > self._max_bytes:
            return  # its own changes would be dropped for nothing
        if snapshot.is_whole:
            self._replace(log, snapshot, None)
            self._drop(log, [version for version in log.entries if version <= snapshot.version])
        else:
            self._replace(log, log.whole, snapshot)

    def _replace(self, log: SessionLog, whole: Snapshot | None, tail: Snapshot | None) -> None:
        before = sum(snapshot.size for snapshot in log.snapshots)
        log.whole, log.tail = whole, tail
        self._bytes += sum(snapshot.size for snapshot in log.snapshots) - before

    def _drop(self, log: SessionLog, versions: Iterable[int]) -> None:
        for version in versions:
            entry = log.entries.pop(version, None)
            if entry is not None:
                self._changes -= 1
                self._bytes -= entry.size

    def _keep_within_bounds(self, latest: SessionLog) -> None:
        old = time.monotonic() - latest.horizon_seconds
        while latest.entries and next(iter(latest.entries.values())).made_at < old:
            self._drop(latest, (next(iter(latest.entries)),))
        if len(latest.others) > 2 * MOST_IDS:
            for version in sorted(latest.others)[:-MOST_IDS]:
                del latest.others[version]
        while self._bytes > self._max_bytes or max(self._changes, len(self)) > self._max_changes:
            logs, key, oldest = self._oldest_but(latest)
            if oldest is not latest:
                self.forget(oldest)
                del logs[key]
            elif oldest.snapshots and self._bytes > self._max_bytes:
                self._replace(oldest, None, None)
            else:
                self._drop(oldest, [next(iter(oldest.entries))])

    def _oldest_but(self, latest: SessionLog) -> tuple[OrderedDict[bytes, SessionLog], bytes, SessionLog]:
        """Return the log to drop next and where it is: none that waits, and the latest, if another one is there."""
        for logs in (self._logs, self.waiting):
            for key, log in itertools.islice(logs.items(), 2):
                if log is not latest:
                    return logs, key, log
        key = latest.spec.keys.items
        return (self._logs if key in self._logs else self.waiting), key, latest
