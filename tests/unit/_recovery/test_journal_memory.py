"""What the journal counts is what it takes of the process's memory."""

from __future__ import annotations

import gc
import os
import tracemalloc
import uuid
from collections.abc import Callable, Iterator

import pytest

from agents_redis_ha import HAConfig
from agents_redis_ha._commands import (
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    ReplicationHistory,
    SessionSpec,
    new_operation_id,
)
from agents_redis_ha._recovery.journal import Journal
from agents_redis_ha._recovery.session_log import SessionLog, Snapshot

CONFIG = HAConfig(nodes=["h"])
HISTORY = ReplicationHistory("h:1", "1f" * 20)
MANY = 2_000


def a_digest() -> bytes:
    return os.urandom(6).hex().encode()


def some_logs(journal: Journal, number: int = MANY) -> Iterator[SessionLog]:
    """Yield new logs, as an operation on each of so many sessions makes them."""
    options = CONFIG.client_options()
    for version in range(1_000, 1_000 + number):
        log = journal.log(SessionSpec.of(CONFIG, uuid.uuid4().hex))
        log.options = options
        log.see(LogPosition(version, a_digest()), HISTORY, None)
        yield log


def entry(version: int, *elements: bytes) -> LogEntry:
    return LogEntry(version, new_operation_id(), a_digest(), ListEdit(push=elements))


def positions(journal: Journal) -> None:
    for _ in some_logs(journal):
        pass


def a_turn_each(journal: Journal) -> None:
    for log in some_logs(journal):
        for back in range(5):
            journal.keep(log, entry(log.version - back, os.urandom(300), os.urandom(900)))


def many_changes_of_one(journal: Journal) -> None:
    (log,) = some_logs(journal, 1)
    for version in range(1_000, 1_000 + MANY):
        journal.keep(log, entry(version, os.urandom(200)))


def readings(journal: Journal) -> None:
    for log in some_logs(journal):
        records = tuple(OpsRecord(log.version - back, new_operation_id(), a_digest()) for back in range(20))
        joined = os.urandom(2_000)
        journal.keep(
            log, Snapshot(*log.position, 0, 20, 20, joined, b",%d," % int.from_bytes(os.urandom(4), "big"), records)
        )


@pytest.mark.parametrize("fill", [positions, a_turn_each, many_changes_of_one, readings])
def test_what_is_counted_is_what_it_takes(fill: Callable[[Journal], None]) -> None:
    journal = Journal(10**6, 10**9)
    fill(Journal(10**6, 10**9))  # what is made once, and kept
    gc.collect()
    tracemalloc.start()
    try:
        fill(journal)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 < journal._bytes / taken < 1.25


def test_losses_of_ten_thousand_sessions_are_noticed_within_the_bounds() -> None:
    repair = CONFIG.repair
    journal = Journal(repair.max_changes, repair.max_bytes)
    for log in some_logs(journal, 10_000):
        records = tuple(OpsRecord(log.version - back, new_operation_id(), a_digest()) for back in range(10))
        journal.keep(log, Snapshot(*log.position, 0, 20, 20, b"x" * 2_000, b",1,", records))
        for number in range(1, 4):
            journal.keep(log, entry(log.version + number, b"x" * 300))
    assert len(journal) == 10_000
    assert all(log.version for log in journal)
    assert journal._changes <= repair.max_changes
    assert journal._bytes <= repair.max_bytes
