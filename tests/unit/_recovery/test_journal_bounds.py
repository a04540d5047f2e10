"""The journal's bounds hold and its sums are right, whatever is done to it: a state machine that counts anew."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agents_redis_ha import _ambient as ambient
from agents_redis_ha._commands import ListEdit, LogEntry, OpsRecord, ReplicationHistory
from agents_redis_ha._commands.change import KEEP_ALL
from agents_redis_ha._recovery.journal import Journal
from agents_redis_ha._recovery.session_log import SessionLog
from tests.support.fakes import a_position, an_id
from tests.support.recovery import Clock, kept_anew, snapshot, spec

RETENTION_SECONDS = 120
HISTORY = ReplicationHistory("h:1", "1f")

VERSIONS = st.integers(1, 9)
ITEMS = st.lists(st.binary(max_size=12), max_size=3).map(tuple)
RECORDS = st.lists(st.builds(OpsRecord, VERSIONS, st.binary(max_size=20), st.binary(max_size=12)), max_size=3).map(
    tuple
)
EDITS = st.none() | st.builds(ListEdit, keep=st.sampled_from([KEEP_ALL, (0, -1), (0, 0)]), push=ITEMS)


class Accounting(RuleBasedStateMachine):
    """Counts anew what is kept after each step."""

    @initialize(max_changes=st.integers(1, 6), max_bytes=st.integers(0, 9000))
    def begin(self, max_changes: int, max_bytes: int) -> None:
        self.clock = Clock()
        self.before, ambient.monotonic = ambient.monotonic, self.clock.monotonic
        self.bounds = (max_changes, max_bytes)
        self.journal = Journal(*self.bounds)
        self.handed_out: list[SessionLog] = []

    def teardown(self) -> None:
        if hasattr(self, "before"):
            ambient.monotonic = self.before

    @rule(name=st.sampled_from("abcdefgh"))
    def use(self, name: str) -> None:
        log = self.journal.log(spec(name))
        if not any(log is known for known in self.handed_out):
            self.handed_out.append(log)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), version=VERSIONS, edit=EDITS, result=st.none() | st.binary(max_size=12))
    def change(self, data: st.DataObject, version: int, edit: ListEdit | None, result: bytes | None) -> None:
        log = self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))]
        log.see(a_position(version), HISTORY, None)
        self.journal.keep(log, LogEntry(version, an_id(version), b"", edit, result, made_at=self.clock.now))

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), version=VERSIONS, elements=ITEMS, more=st.integers(0, 1), records=RECORDS)
    def read(self, data: st.DataObject, version: int, elements: Any, more: int, records: Any) -> None:
        log = self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))]
        log.see(a_position(version), HISTORY, self.clock.now + 50 * more if more else None)
        self.journal.keep(log, snapshot(version, *elements, length=len(elements) + more, records=records))

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.journal.forget(self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))])

    @rule(replication_id=st.sampled_from(["1f", "2e", "3d"]))
    def meet(self, replication_id: str) -> None:
        self.journal.meet(ReplicationHistory("h:1", replication_id))

    @rule(put_back=st.booleans())
    def look(self, put_back: bool) -> None:
        log = self.journal.next_waiting()
        if log is not None and not self.journal.is_settled(log) and put_back:
            self.journal.let_wait(log)

    @rule(most=st.integers(1, 3))
    def free(self, most: int) -> None:
        self.journal.drop_past(most)

    @rule(seconds=st.sampled_from([1, 60, RETENTION_SECONDS + 1]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def what_is_counted_is_what_is_kept(self) -> None:
        if hasattr(self, "journal"):
            assert (self.journal._changes, self.journal._bytes) == kept_anew(self.journal)

    @invariant()
    def the_bounds_hold(self) -> None:
        if hasattr(self, "journal"):
            changes, size = kept_anew(self.journal)
            assert max(changes, len(self.journal)) <= self.bounds[0]
            # The latest position is kept in any case.
            assert size <= max(self.bounds[1], SessionLog(spec("a")).own_cost)

    @invariant()
    def what_was_dropped_holds_nothing(self) -> None:
        if hasattr(self, "journal"):
            kept = list(self.journal)
            for log in self.handed_out:
                if not any(log is known for known in kept):
                    assert (log.entries, log.whole, log.tail, log.others) == ({}, None, None, {})

    @invariant()
    def what_can_be_dropped_is_found(self) -> None:
        if hasattr(self, "journal"):
            filed = [(pool.logs, pool.read, pool.changed) for pool in (self.journal._settled, self.journal._waiting)]
            for logs, read, changed in filed:
                assert set(read) == {key for key, log in logs.items() if log.snapshots or log.others}
                assert set(changed) == {key for key, log in logs.items() if log.entries}


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
