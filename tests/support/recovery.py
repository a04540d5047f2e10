"""Processes that use one session on a scripted server, and the pieces of history that they know."""

from __future__ import annotations

from typing import Any

from agents_redis_ha import HAConfig, RepairConfig, RetryConfig, session_keys
from agents_redis_ha._commands import (
    Change,
    Description,
    ListEdit,
    LogEntry,
    OpsRecord,
    Reading,
    SessionSpec,
    append,
    chain,
    info,
    read,
)
from agents_redis_ha._recovery import RecoveryCoordinator
from agents_redis_ha._recovery.journal import Journal
from agents_redis_ha._recovery.replay import HistoryFragment, hint_name, pack
from agents_redis_ha._recovery.session_log import SessionLog, Snapshot, entry_cost
from agents_redis_ha._retry import Executor, Operation
from agents_redis_ha._telemetry import OperationSpan
from tests.support.fakes import SPEC, FakeServer, a_digest, an_id, noted

PATIENT = RetryConfig(deadline_seconds=50, initial_backoff_seconds=0.001, max_backoff_seconds=0.002)


def spec(name: str = "u", retention_seconds: int = 120) -> SessionSpec:
    return SessionSpec(session_keys("p", name), name, retention_ms=retention_seconds * 1000)


def entry(version: int, *items: bytes, id_: bytes = b"", before: bytes | None = None, **more: Any) -> LogEntry:
    """Return an append; its id is `an_id` of its version unless one is given, and so is the digest before it."""
    made = id_ or an_id(version)
    digest = chain(a_digest(version - 1) if before is None else before, made)
    return LogEntry(version, made, digest, ListEdit(push=items), **more)


def snapshot(
    version: int,
    *elements: bytes,
    length: int | None = None,
    digest: bytes | None = None,
    records: tuple[OpsRecord, ...] = (),
) -> Snapshot:
    """Return the newest elements; with a length they are not all that there were."""
    there = len(elements) if length is None else length
    which = a_digest(version) if digest is None else digest
    return Snapshot(version, which, 0, there, len(elements), b",1,".join(elements), b",1,", records)


def record(version: int, id_: bytes = b"") -> OpsRecord:
    """Return what ``ops`` holds of a change behind `an_id` of each version before it."""
    made = id_ or an_id(version)
    return OpsRecord(version, made, chain(a_digest(version - 1), made))


def found(
    version: int,
    *ids: bytes,
    fence: int = 0,
    age_ms: int = 0,
    length: int = 1,
    expected_length: int | None = None,
    evicted_at: int = 0,
    hints: tuple[HistoryFragment, ...] = (),
) -> list[Any]:
    """Return the reply to an inspect: the ids are those of the newest changes, the newest first.

    The history before these has the ids of `an_id`.
    """
    changes = noted(*reversed(ids), before=a_digest(version - len(ids)), length=length)
    digest = changes[-1][:12] if changes else a_digest(version)
    fields = [field for hint in hints for field in (b"hint:" + hint_name(hint).encode(), pack(hint))]
    expected = length if expected_length is None else expected_length
    fenced, evicted = (b"%d" % at if at else b"" for at in (fence, evicted_at))
    return [version, 0, digest, length, expected, fenced, age_ms, evicted, changes, fields]


def kept_anew(journal: Journal) -> tuple[int, int]:
    """Return the own changes that are kept and what all of it costs, counted anew."""
    entries = [entry for log in journal for entry in log.entries.values()]
    return len(entries), sum(log.own_cost + log.read_cost for log in journal) + sum(map(entry_cost, entries))


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
