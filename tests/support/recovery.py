"""Processes that use one session on a scripted server, and the pieces of history that they know."""

from __future__ import annotations

from typing import Any

from agents_redis_ha import HAConfig, RepairConfig, RetryConfig, session_keys
from agents_redis_ha._commands import (
    Change,
    Description,
    ListEdit,
    LogEntry,
    Reading,
    SessionSpec,
    append,
    info,
    read,
)
from agents_redis_ha._recovery import RecoveryCoordinator
from agents_redis_ha._recovery.journal import Journal, SessionLog, Snapshot
from agents_redis_ha._recovery.replay import HistoryFragment, hint_name, pack
from agents_redis_ha._retry import Executor, Operation
from agents_redis_ha._telemetry import OperationSpan
from tests.support.fakes import SPEC, FakeServer

PATIENT = RetryConfig(deadline_seconds=50, initial_backoff_seconds=0.001, max_backoff_seconds=0.002)


def an_id(number: int) -> bytes:
    return b"%016d" % number


def spec(name: str = "u", retention_seconds: int = 120) -> SessionSpec:
    return SessionSpec(session_keys("p", name), name, retention_ms=retention_seconds * 1000)


def entry(version: int, *items: bytes, id_: bytes = b"", before: bytes = b"", **more: Any) -> LogEntry:
    """Return an append; its id is `an_id` of its version unless one is given."""
    return LogEntry(version, id_ or an_id(version), before, ListEdit(push=items), **more)


def snapshot(version: int, *elements: bytes, length: int | None = None, members: Any = ()) -> Snapshot:
    """Return the newest elements; with a length they are not all that there were."""
    there = len(elements) if length is None else length
    return Snapshot(version, 0, there, len(elements), b",1,".join(elements), b",1,", members)


def found(
    version: int,
    *ids: bytes,
    fence: int = 0,
    age_ms: int = 0,
    length: int = 1,
    hints: tuple[HistoryFragment, ...] = (),
) -> list[Any]:
    """Return the reply to an inspect: the ids are those of the newest changes, the newest first."""
    members = [field for at, id_ in enumerate(ids) for field in (id_, b"%d" % (version - at))]
    fields = [field for hint in hints for field in (b"hint:" + hint_name(hint).encode(), pack(hint))]
    return [version, 0, length, b"%d" % fence if fence else b"", age_ms, members, fields]


def kept_anew(journal: Journal) -> tuple[int, int]:
    """Return the changes and the bytes that are kept, counted anew."""
    entries = [entry for log in journal for entry in log.entries.values()]
    snapshots = [snapshot for log in journal for snapshot in (log.whole, log.tail) if snapshot is not None]
    kept = [len(snapshot.joined) + sum(len(member) for _, member in snapshot.members) for snapshot in snapshots]
    kept += [len(item) for entry in entries if entry.edit for item in entry.edit.push]
    kept += [len(entry.result) for entry in entries if entry.result is not None]
    return len(entries), sum(kept)


class Clock:
    """Stands in for the machine's clock, which counts from its boot: no test depends on how long that is ago."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


class Process:
    """One process that uses the session: its coordinator, and an operation for each call."""

    def __init__(self, server: FakeServer, retry: RetryConfig = PATIENT, **repair: Any) -> None:
        config = HAConfig(nodes=["h"], retry=retry, repair=RepairConfig(**repair))
        self.coordinator = RecoveryCoordinator(config, Executor(config, server))

    def begin(self, name: str, *, changes: bool) -> Operation:
        return self.coordinator.executor.begin(OperationSpan(name, "sentinel", "u", "hashed"), changes=changes)

    async def append(self, *items: bytes, id_: bytes = b"own-change------", report_loss: bool = True) -> Change:
        command = append(SPEC, items, operation_id=id_)
        return await self.coordinator.execute(self.begin("append", changes=True), command, report_loss=report_loss)

    async def info(self) -> Description:
        return await self.coordinator.execute(self.begin("info", changes=False), info(SPEC))

    async def read(self) -> Reading:
        return await self.coordinator.execute(self.begin("read", changes=False), read(SPEC, 0))

    @property
    def log(self) -> SessionLog:
        """What the process knows of the session."""
        return self.coordinator._journal.log(SPEC)
