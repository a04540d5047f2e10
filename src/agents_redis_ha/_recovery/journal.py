"""What this process knows of the sessions that it used lately: enough to notice lost history, and to put it back. Pure.

Of each session: the latest log position that was seen, this process's own changes, and the newest snapshot. All of it
is bounded in number, bytes and age; see `RepairConfig` for what the bounds mean.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .. import _ambient as ambient
from .._commands import NO_POSITION, LogEntry, LogPosition, OpsRecord, ReplicationHistory, SessionSpec
from .._config import RepairConfig
from .session_log import MOST_IDS, RECORD_BYTES, SessionLog, Snapshot, entry_cost

__all__ = ["Journal"]

# A cluster has a thousand primaries at most; behind a stable name or in a long life, histories go by one after another.
_MOST_HISTORIES = 4096


class _Pool:
    """Logs in the order of their last use, and of which of them something else can be dropped, the oldest first."""

    def __init__(self) -> None:
        self.logs: OrderedDict[bytes, SessionLog] = OrderedDict()
        self.read: OrderedDict[bytes, SessionLog] = OrderedDict()
        self.changed: OrderedDict[bytes, SessionLog] = OrderedDict()

    def move(self, key: bytes, to: _Pool, *, last: bool) -> SessionLog:
        """Put a log into another pool, as the newest or the oldest there; return it."""
        log = self.logs[key]
        for mine, its in ((self.logs, to.logs), (self.read, to.read), (self.changed, to.changed)):
            if mine.pop(key, None) is not None:
                its[key] = log
                its.move_to_end(key, last=last)
        return log

    def move_all(self, to: _Pool) -> None:
        """Put all logs into another pool, as the newest there."""
        for mine, its in ((self.logs, to.logs), (self.read, to.read), (self.changed, to.changed)):
            its.update(mine)
            mine.clear()


class Journal:
    """The session logs of this process, the latest used last, within bounds.

    Attributes:
        live: Whose data replies came from since the last failover or restart.
    """

    def __init__(self, max_changes: int, max_bytes: int) -> None:
        """Make an empty journal.

        Args:
            max_changes: Most own changes, and most sessions; 1 or more.
            max_bytes: Most bytes that all of it takes.
        """
        self._max_changes, self._max_bytes = max_changes, max_bytes
        self._settled, self._waiting = _Pool(), _Pool()
        self._changes = self._bytes = self._bytes_of_logs = 0
        self.live: set[ReplicationHistory] = set()
        self._met: OrderedDict[ReplicationHistory, None] = OrderedDict()
        self._newest: dict[str, ReplicationHistory] = {}  # by node

    def widen(self, repair: RepairConfig) -> None:
        """Keep as much as another client asks for, if that is more: of several clients the largest bounds count."""
        self._max_changes = max(self._max_changes, repair.max_changes)
        self._max_bytes = max(self._max_bytes, repair.max_bytes)

    def __len__(self) -> int:
        return len(self._settled.logs) + len(self._waiting.logs)

    def __iter__(self) -> Iterator[SessionLog]:
        return iter([*self._waiting.logs.values(), *self._settled.logs.values()])

    @property
    def waits(self) -> int:
        """How many logs are still to be compared with what a server has since the last failover or restart."""
        return len(self._waiting.logs)

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
        self._settled.move_all(self._waiting)

    def next_waiting(self) -> SessionLog | None:
        """Return the log that was used last among those that wait, which waits no more; None if there is none."""
        if not self._waiting.logs:
            return None
        return self._waiting.move(next(reversed(self._waiting.logs)), self._settled, last=False)  # the order stays

    def let_wait(self, log: SessionLog) -> None:
        """Let a log wait again that was not looked at to the end."""
        key = log.spec.keys.items
        if self._settled.logs.get(key) is log:
            self._settled.move(key, self._waiting, last=True)

    def is_settled(self, log: SessionLog) -> bool:
        """Whether there is no need to compare a log with what a server has: nothing is known of it, or it was used.

        Without a replication id, data cannot be told from other data.
        """
        if self._is_past(log):
            self._forget_past(log)
        tells = log.history is not None and log.history.replication_id is not None
        return not log.version or (tells and log.history in self.live)

    def is_outdated(self, log: SessionLog, position: LogPosition, history: ReplicationHistory) -> bool:
        """Whether a reply came late, from a server that was replaced, and its version may be another change by now."""
        if history in self.live or not position.digest or position.version > log.version:
            return False
        return log.digests.get(position.version) != position.digest

    def log(self, spec: SessionSpec) -> SessionLog:
        """Return what is known of a session.

        What was seen longer ago than a change's id is remembered, or may have expired meanwhile, is not known any more:
        the session may have been cleared since, of which the server would have no trace.
        """
        log = self._use(spec.keys.items)
        if log is None:
            self.drop_past(2)  # one more than the new one: what is not used any more comes to an end
            log = SessionLog(spec, seen_at=ambient.monotonic())
            self._begin(log)
            self._keep_within_bounds(log)
            return log
        log.spec = spec
        if self._is_past(log):
            self.forget(log)
        return log

    def _use(self, key: bytes) -> SessionLog | None:
        """Return a log as the one that was used last."""
        logs = self._pool(key).logs
        log = logs.get(key)
        if log is not None:
            logs.move_to_end(key)
        return log

    def _pool(self, key: bytes) -> _Pool:
        waiting = self._waiting
        return waiting if waiting.logs and key in waiting.logs else self._settled

    def _begin(self, log: SessionLog) -> None:
        self._settled.logs[log.spec.keys.items] = log
        self._bytes_of_logs += log.own_cost
        self._bytes += log.own_cost

    @staticmethod
    def _is_past(log: SessionLog) -> bool:
        now, expires_at = ambient.monotonic(), log.expires_at
        return (expires_at is not None and now >= expires_at) or now - log.seen_at > log.horizon_seconds

    def drop_past(self, most: int) -> None:
        """Free the logs that do not count any more, at most so many of those that were used longest ago."""
        for log in list(itertools.islice(self._settled.logs.values(), most)):
            if not self._is_past(log):
                break
            self._forget_past(log)

    def _forget_past(self, log: SessionLog) -> None:
        if log.lost:  # of which the user is still to be told
            self.forget(log)
            self._use(log.spec.keys.items)
        else:
            self._drop_log(log)

    def _drop_log(self, log: SessionLog) -> None:
        self.forget(log)
        del self._pool(log.spec.keys.items).logs[log.spec.keys.items]
        self._bytes_of_logs -= log.own_cost
        self._bytes -= log.own_cost

    def forget(self, log: SessionLog) -> None:
        """Know nothing of a session any more, but what the user still has to be told."""
        log.position, log.history, log.expires_at, log.emptied_at = NO_POSITION, None, None, 0
        self._drop_readings(log)
        self._drop(log, list(log.entries))

    def keep(self, log: SessionLog, kept: LogEntry | Snapshot) -> None:
        """Keep a change or a snapshot to put it back if need be, and drop the oldest until the bounds hold."""
        key = log.spec.keys.items
        pool = self._pool(key)
        known = pool.logs.get(key)
        if known is None:  # it was dropped while the operation was under way
            self._begin(log)
        elif known is not log:
            return  # and begun anew
        if isinstance(kept, LogEntry):
            self._keep_entry(log, kept, pool)
        else:
            self._keep_snapshot(log, kept)
        self._keep_within_bounds(log)

    def learn(self, log: SessionLog, records: Iterable[OpsRecord]) -> None:
        """Know the ids of changes that other processes made."""
        if records and self._pool(log.spec.keys.items).logs.get(log.spec.keys.items) is log:
            self._learn(log, records)
            self._keep_within_bounds(log)

    def abandon(self, log: SessionLog, noops: Iterable[LogEntry]) -> None:
        """Keep the no-op entries in the place of changes that were given up; a snapshot behind them tells no more."""
        self._replace(log, log.whole, None)
        for noop in noops:
            self.keep(log, noop)

    def _fits(self, cost: int) -> bool:
        """Whether something can be kept at all: the positions of all sessions come first."""
        return cost + self._bytes_of_logs <= self._max_bytes

    def _keep_entry(self, log: SessionLog, entry: LogEntry, pool: _Pool) -> None:
        if entry.version in log.entries:  # of a history that is gone
            self._drop(log, (entry.version,))
        if log.others.pop(entry.version, None) is not None:
            self._bytes -= RECORD_BYTES
            self._unfile(log)
        cost = entry_cost(entry)
        if self._fits(cost):
            log.entries[entry.version] = entry
            self._changes += 1
            self._bytes += cost
            pool.changed[log.spec.keys.items] = log
            pool.changed.move_to_end(log.spec.keys.items)

    def _keep_snapshot(self, log: SessionLog, snapshot: Snapshot) -> None:
        if snapshot.version < max((kept.version for kept in log.snapshots), default=0):
            return
        self._learn(log, snapshot.records)
        if not self._fits(snapshot.cost):
            return  # own changes would be dropped for nothing
        snapshot = replace(snapshot, records=()) if snapshot.records else snapshot
        if snapshot.is_whole:
            self._replace(log, snapshot, None)
            shown = [entry for version, entry in log.entries.items() if version <= snapshot.version]
            self._learn(log, [entry.record for entry in shown])
            self._drop(log, [entry.version for entry in shown if entry.turn is None])
            self._slim(log, [entry for entry in shown if entry.turn is not None])
        else:
            self._replace(log, log.whole, snapshot)
        read = self._pool(log.spec.keys.items).read
        read[log.spec.keys.items] = log
        read.move_to_end(log.spec.keys.items)

    def _slim(self, log: SessionLog, entries: Iterable[LogEntry]) -> None:
        """Keep of changes that a snapshot shows what it does not: the turns that they published."""
        for entry in entries:
            slim = log.entries[entry.version] = replace(entry, edit=None)
            self._bytes += entry_cost(slim) - entry_cost(entry)

    def _learn(self, log: SessionLog, records: Iterable[OpsRecord]) -> None:
        before = len(log.others)
        log.others.update((record.version, record) for record in records)
        if len(log.others) > 2 * MOST_IDS:
            log.others = {version: log.others[version] for version in sorted(log.others)[-MOST_IDS:]}
        self._bytes += (len(log.others) - before) * RECORD_BYTES
        if log.others:
            self._pool(log.spec.keys.items).read.setdefault(log.spec.keys.items, log)

    def _replace(self, log: SessionLog, whole: Snapshot | None, tail: Snapshot | None) -> None:
        before = log.read_cost
        log.whole, log.tail = whole, tail
        self._bytes += log.read_cost - before

    def _drop_readings(self, log: SessionLog) -> None:
        self._bytes -= log.read_cost
        log.whole = log.tail = None
        log.others.clear()
        self._unfile(log)

    def _drop(self, log: SessionLog, versions: Iterable[int]) -> None:
        for version in versions:
            entry = log.entries.pop(version, None)
            if entry is not None:
                self._changes -= 1
                self._bytes -= entry_cost(entry)
        self._unfile(log)

    def _unfile(self, log: SessionLog) -> None:
        """Note what is not kept of a log any more, unless it was dropped and begun anew."""
        key = log.spec.keys.items
        pool = self._pool(key)
        if not log.entries and pool.changed.get(key) is log:
            del pool.changed[key]
        if not log.snapshots and not log.others and pool.read.get(key) is log:
            del pool.read[key]

    def _keep_within_bounds(self, latest: SessionLog) -> None:
        old = ambient.monotonic() - latest.horizon_seconds
        while latest.entries and next(iter(latest.entries.values())).made_at < old:
            self._drop(latest, (next(iter(latest.entries)),))
        while self._changes > self._max_changes:
            self._drop_changes(self._settled.changed or self._waiting.changed, latest)
        while len(self._settled.logs) + len(self._waiting.logs) > self._max_changes:
            self._drop_log(self._oldest_but(latest))
        while self._bytes > self._max_bytes and self._drop_something(latest):
            pass

    def _drop_something(self, latest: SessionLog) -> bool:
        """Drop what is needed least: readings, own changes, then positions; what waits to be put back after the rest.

        Without its position, the loss of a session is not noticed. The latest log's own is kept in any case.
        """
        for pool in (self._settled, self._waiting):
            if pool.read:
                self._drop_readings(next(iter(pool.read.values())))
                return True
            if pool.changed:
                self._drop_changes(pool.changed, latest)
                return True
        if len(self) > 1:
            self._drop_log(self._oldest_but(latest))
            return True
        return False

    def _drop_changes(self, changed: OrderedDict[bytes, SessionLog], latest: SessionLog) -> None:
        """Drop the own changes of the session that was changed longest ago; of the latest only the oldest one."""
        log = next(iter(changed.values()))
        self._drop(log, [next(iter(log.entries))] if log is latest else list(log.entries))

    def _oldest_but(self, latest: SessionLog) -> SessionLog:
        """Return the log that was used longest ago, if possible none that waits, and not the latest."""
        logs = itertools.chain(self._settled.logs.values(), self._waiting.logs.values())
        return next(log for log in itertools.islice(logs, 3) if log is not latest)
