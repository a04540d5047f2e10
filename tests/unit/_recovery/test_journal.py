"""What a process knows of its sessions: enough to put back, within its bounds, and forgotten in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from agents_redis_ha._commands.request import Subject
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agents_redis_ha import journal as journals
from agents_redis_ha._recovery.journal import KEEP_ALL, Effect, Journal, Record, Sight, Unit
from agents_redis_ha._storage.keys import session_keys

RETENTION_SECONDS = 120
TENURE: Any = (SimpleNamespace(name="h:1"), "1f")
OTHER_TENURE: Any = (SimpleNamespace(name="h:2"), "2e")


def subject(name: str = "u") -> Subject:
    return Subject(session_keys("p", name), name, retention_ms=RETENTION_SECONDS * 1000)


def an_id(number: int) -> bytes:
    return b"%016d" % number


def unit(version: int, *items: bytes, id_: bytes = b"", before: bytes = b"", **more: Any) -> Unit:
    return Unit(version, id_ or an_id(version), before, Effect(push=items), **more)


def sight(version: int, *elements: bytes, length: int | None = None, members: Any = ()) -> Sight:
    there = len(elements) if length is None else length
    return Sight(version, 0, there, len(elements), b",1,".join(elements), b",1,", members)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(journals, "time", found)
    return found


def saw(journal: Journal, name: str, version: int, expires_at: float | None = None) -> Record:
    record = journal.record(subject(name))
    record.see(version, an_id(version), TENURE, expires_at)
    return record


def total(journal: Journal) -> tuple[int, int]:
    """Return the changes and the bytes that are kept, counted anew."""
    units = [unit for record in journal for unit in record.units.values()]
    sights = [sight for record in journal for sight in (record.whole, record.tail) if sight is not None]
    kept = [len(sight.joined) + sum(len(member) for _, member in sight.members) for sight in sights]
    kept += [len(item) for unit in units if unit.effect for item in unit.effect.push]
    kept += [len(unit.result) for unit in units if unit.result is not None]
    return len(units), sum(kept)


def names(journal: Journal) -> list[str]:
    return [record.subject.session_id for record in journal]


def test_nothing_is_known_of_a_session_at_first() -> None:
    record = Journal(9, 99).record(subject())
    assert (record.knows(), record.ids, record.tenure) == ((0, b""), {}, None)
    assert (record.whole, record.tail, record.units) == (None, None, {})


def test_a_record_knows_the_latest_version_and_who_said_so() -> None:
    record = Record(subject())
    record.see(5, an_id(5), TENURE, None)
    record.see(4, an_id(4), OTHER_TENURE, None)  # a reply that was overtaken by another
    assert (record.knows(), record.tenure) == ((5, an_id(5)), TENURE)
    record.see(5, b"", OTHER_TENURE, None)  # the id is not remembered any more
    assert (record.knows(), record.tenure) == ((5, an_id(5)), OTHER_TENURE)
    record.see(6, b"", TENURE, None)
    assert (record.knows(), record.ids) == ((6, b""), {})
    record.see(6, an_id(6), TENURE, None)
    assert record.knows() == (6, an_id(6))


def test_the_ids_are_those_of_ones_own_changes_of_others_and_of_the_latest() -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 7)
    journal.keep(record, unit(5, b"x", before=b"before-version-4"))
    members = ((6, b"other-change-of6"), (6, b"other-change-of6" + b"its result"), (3, b"another-change-3"))
    journal.keep(record, sight(6, b"x", members=members))
    assert record.ids == {3: b"another-change-3", 4: b"before-version-4", 6: b"other-change-of6", 7: an_id(7)}
    # 5 was put into what was read, which is the whole session


def test_of_two_ids_under_one_version_the_later_one_counts() -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 5)
    journal.keep(record, unit(5, b"abc"))
    journal.keep(record, unit(5, b"defg", id_=an_id(77)))
    record.see(5, an_id(77), TENURE, None)
    assert [kept.id for kept in record.units.values()] == [an_id(77)]
    assert record.ids == {5: an_id(77)}
    assert (journal._changes, journal._bytes) == total(journal) == (1, 4)


def test_a_complete_reading_takes_the_place_of_the_changes_that_it_shows() -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 4)
    for version in (2, 3, 4):
        journal.keep(record, unit(version, b"x"))
    journal.keep(record, sight(3, b"x", length=2))  # the newest element alone: it replaces nothing
    assert sorted(record.units) == [2, 3, 4]
    journal.keep(record, sight(3, b"x", b"y"))
    assert sorted(record.units) == [4]
    assert (journal._changes, journal._bytes) == total(journal)


def test_a_reading_of_a_part_is_kept_beside_that_of_the_whole_until_all_is_read_again() -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 6)
    journal.keep(record, whole := sight(3, b"x", b"y"))
    journal.keep(record, sight(4, b"z", length=3))
    journal.keep(record, part := sight(5, b"z", length=4))
    assert (record.whole, record.tail) == (whole, part)
    assert journal._bytes == total(journal)[1]
    journal.keep(record, whole := sight(6, b"x", b"y", b"z"))
    assert (record.whole, record.tail) == (whole, None)
    assert journal._bytes == total(journal)[1]


def test_an_older_reading_does_not_replace_a_newer_one() -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 4)
    journal.keep(record, newer := sight(4, b"x"))
    journal.keep(record, sight(3, b"yy"))
    journal.keep(record, sight(3, b"yy", length=2))
    assert (record.whole, record.tail) == (newer, None)
    journal.keep(record, same := sight(4, b"zzz"))
    assert record.whole is same
    journal.keep(record, part := sight(5, b"x", length=4))
    journal.keep(record, sight(4, b"yy"))
    assert (record.whole, record.tail) == (same, part)
    assert (journal._changes, journal._bytes) == total(journal)


def test_the_oldest_changes_of_a_session_alone_are_dropped_beyond_the_number() -> None:
    journal = Journal(3, 999)
    record = saw(journal, "u", 9)
    for version in range(1, 10):
        journal.keep(record, unit(version, b"x"))
    assert list(record.units) == [7, 8, 9]
    assert record.knows() == (9, an_id(9))
    assert total(journal) == (3, 3)


def test_the_sessions_used_longest_ago_are_dropped_first() -> None:
    journal = Journal(4, 999)
    for name in ("a", "b"):
        record = saw(journal, name, 2)
        journal.keep(record, unit(1, b"x"))
        journal.keep(record, unit(2, b"x"))
    journal.record(subject("a"))
    journal.keep(saw(journal, "c", 1), unit(1, b"x"))
    assert names(journal) == ["a", "c"]
    assert total(journal) == (3, 3)


def test_sessions_are_bounded_in_number_also_if_nothing_of_them_is_kept() -> None:
    journal = Journal(3, 999)
    for name in "abcde":
        saw(journal, name, 1)  # such as by info() alone, or by reading a session that has no items
    assert names(journal) == ["c", "d", "e"]


def test_bytes_are_bounded_over_all_sessions() -> None:
    journal = Journal(99, 10)
    journal.keep(saw(journal, "a", 1), unit(1, b"x" * 6))
    journal.keep(saw(journal, "b", 1), unit(1, b"x" * 4))
    assert names(journal) == ["a", "b"]
    journal.keep(saw(journal, "c", 1), sight(1, b"x" * 5))
    assert names(journal) == ["b", "c"]
    assert total(journal) == (1, 9)


def test_what_a_session_had_before_gives_way_to_its_newest_change() -> None:
    journal = Journal(99, 10)
    record = saw(journal, "u", 3)
    journal.keep(record, sight(1, b"x" * 6))
    journal.keep(record, unit(2, b"x" * 3))
    journal.keep(record, unit(3, b"x" * 4))
    assert (record.whole, sorted(record.units)) == (None, [2, 3])
    journal.keep(record, unit(4, b"x" * 8))
    assert sorted(record.units) == [4]
    journal.keep(record, unit(5, b"x" * 11))  # larger than all that may be kept
    assert record.units == {}
    assert (journal._changes, journal._bytes) == total(journal) == (0, 0)
    assert record.knows() == (3, an_id(3))  # a loss is still noticed


def test_a_reading_that_is_too_large_to_be_kept_does_not_cost_the_changes_that_are_kept() -> None:
    journal = Journal(99, 10)
    record = saw(journal, "u", 2)
    journal.keep(record, unit(2, b"x" * 3))
    journal.keep(record, sight(2, b"x" * 11, b"y" * 3, members=((1, an_id(1)),)))
    assert (record.whole, record.tail, sorted(record.units)) == (None, None, [2])
    assert record.ids[1] == an_id(1)
    assert (journal._changes, journal._bytes) == total(journal)


def test_what_was_popped_counts_among_the_bytes() -> None:
    journal = Journal(99, 100)
    record = saw(journal, "u", 3)
    for version in (1, 2, 3):
        journal.keep(record, Unit(version, an_id(version), b"", Effect(keep=(0, -1)), result=b"x" * 40))
    assert sorted(record.units) == [2, 3]
    assert (journal._changes, journal._bytes) == total(journal) == (2, 80)
    members = tuple((version, an_id(version) + b"x" * 40) for version in (1, 2))
    journal.keep(record, sight(3, b"x", members=members))
    assert journal._bytes == total(journal)[1] <= 100


def test_nothing_of_no_bytes_is_dropped_where_no_bytes_may_be_kept() -> None:
    journal = Journal(99, 0)
    record = saw(journal, "u", 2)
    journal.keep(record, Unit(1, an_id(1), b"", Effect(keep=(0, 0))))
    assert list(record.units) == [1]
    journal.keep(record, unit(2, b"x"))
    assert (journal._bytes, list(record.units)) == (0, [])


def test_the_ids_of_others_are_bounded_to_the_newest() -> None:
    journal = Journal(99, 10**9)
    record = saw(journal, "u", 3000)
    journal.keep(record, sight(3000, b"x", members=tuple((version, an_id(version)) for version in range(1, 3001))))
    assert (min(record.others), max(record.others)) == (1977, 3000)
    for version in range(3001, 6000):
        journal.keep(record, sight(version, b"x", members=((version, an_id(version)),)))
        assert len(record.others) <= 2 * 1024
    assert set(record.others) >= set(range(6000 - 1024, 6000))


def test_changes_older_than_the_retention_are_dropped_with_the_next_one(clock: Clock) -> None:
    journal = Journal(99, 999)
    record = saw(journal, "u", 3)
    for version in (1, 2, 3):
        journal.keep(record, unit(version, b"x", made_at=clock.now))
        clock.now += RETENTION_SECONDS * 0.6
    assert sorted(record.units) == [2, 3]
    assert (journal._changes, journal._bytes) == total(journal) == (2, 2)


def full(journal: Journal, clock: Clock, expires_at: float | None = None) -> Record:
    record = saw(journal, "u", 3, expires_at)
    journal.keep(record, sight(2, b"x", members=((1, an_id(1)),)))
    journal.keep(record, unit(3, b"y", made_at=clock.now))
    record.lost = (2,)
    return record


def is_blank(record: Record) -> bool:
    known = (record.knows(), record.ids, record.tenure, record.expires_at, record.whole, record.tail, record.units)
    return known == ((0, b""), {}, None, None, None, None, {})


def test_what_was_seen_longer_ago_than_ids_are_remembered_is_not_known(clock: Clock) -> None:
    journal = Journal(99, 999)
    record = full(journal, clock)
    clock.now += RETENTION_SECONDS
    assert journal.record(subject()).version == 3
    clock.now += 0.1
    assert journal.record(subject()) is record
    assert is_blank(record)
    assert record.lost == (2,)  # the user has not been told yet
    assert (journal._changes, journal._bytes) == (0, 0)


def test_every_sight_of_the_session_puts_the_horizon_off(clock: Clock) -> None:
    journal = Journal(99, 999)
    record = full(journal, clock)
    for _ in range(5):
        clock.now += RETENTION_SECONDS * 0.9
        assert journal.record(subject()).version == 3
        record.see(3, b"", TENURE, None)


def test_a_session_that_may_have_expired_is_not_known(clock: Clock) -> None:
    journal = Journal(99, 999)
    record = full(journal, clock, expires_at=clock.now + 5)
    clock.now += 4.9
    assert journal.record(subject()).version == 3
    clock.now += 0.1
    assert is_blank(journal.record(subject()))
    assert (journal._changes, journal._bytes) == (0, 0)
    record.see(1, an_id(9), TENURE, None)
    assert journal.record(subject()).knows() == (1, an_id(9))


def test_the_latest_retention_of_a_session_counts() -> None:
    journal = Journal(99, 999)
    journal.record(subject())
    changed = Subject(subject().keys, "u", "off", retention_ms=7000)
    assert journal.record(changed).horizon_seconds == 7
    assert len(journal) == 1


def test_a_session_that_was_dropped_while_an_operation_was_under_way_is_kept_again() -> None:
    journal = Journal(1, 999)
    under_way = saw(journal, "a", 1)
    journal.keep(saw(journal, "b", 1), unit(1, b"x"))
    assert names(journal) == ["b"]
    under_way.see(2, an_id(2), TENURE, None)
    journal.keep(under_way, unit(2, b"y"))
    assert journal.record(subject("a")) is under_way
    assert under_way.knows() == (2, an_id(2))
    assert (journal._changes, journal._bytes) == total(journal) == (1, 1)


def test_a_session_that_was_dropped_and_begun_anew_meanwhile_is_not_mixed_with_what_was_known() -> None:
    journal = Journal(1, 999)
    under_way = saw(journal, "a", 1)
    saw(journal, "b", 1)
    anew = saw(journal, "a", 5)
    journal.keep(under_way, unit(2, b"y"))
    assert journal.record(subject("a")) is anew
    assert anew is not under_way
    assert (under_way.units, anew.units) == ({}, {})
    assert (journal._changes, journal._bytes) == total(journal) == (0, 0)


def test_a_session_may_be_dropped_while_all_are_looked_at() -> None:
    journal = Journal(2, 999)
    for name in "ab":
        saw(journal, name, 1)
    seen = []
    for record in journal:
        journal.record(subject(f"new {len(seen)}"))
        seen.append(record.subject.session_id)
    assert seen == ["a", "b"]


VERSIONS = st.integers(1, 9)
ITEMS = st.lists(st.binary(max_size=12), max_size=3).map(tuple)
MEMBERS = st.lists(st.tuples(VERSIONS, st.binary(max_size=20)), max_size=3).map(tuple)
EFFECTS = st.none() | st.builds(Effect, keep=st.sampled_from([KEEP_ALL, (0, -1), (0, 0)]), push=ITEMS)


class Accounting(RuleBasedStateMachine):
    """Counts anew what is kept after each step."""

    @initialize(max_changes=st.integers(1, 6), max_bytes=st.integers(0, 60))
    def begin(self, max_changes: int, max_bytes: int) -> None:
        self.clock = Clock()
        self.before = journals.time
        journals.time = self.clock  # type: ignore[assignment,attr-defined]
        self.bounds = (max_changes, max_bytes)
        self.journal = Journal(*self.bounds)
        self.handed_out: list[Record] = []

    def teardown(self) -> None:
        if hasattr(self, "before"):
            journals.time = self.before  # type: ignore[attr-defined]

    @rule(name=st.sampled_from("abcdefgh"))
    def use(self, name: str) -> None:
        record = self.journal.record(subject(name))
        if not any(record is known for known in self.handed_out):
            self.handed_out.append(record)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), version=VERSIONS, effect=EFFECTS, result=st.none() | st.binary(max_size=12))
    def change(self, data: st.DataObject, version: int, effect: Effect | None, result: bytes | None) -> None:
        record = self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))]
        record.see(version, an_id(version), TENURE, None)
        self.journal.keep(record, Unit(version, an_id(version), b"", effect, result, self.clock.now))

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), version=VERSIONS, elements=ITEMS, more=st.integers(0, 1), members=MEMBERS)
    def read(self, data: st.DataObject, version: int, elements: Any, more: int, members: Any) -> None:
        record = self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))]
        record.see(version, b"", TENURE, self.clock.now + 50 * more if more else None)
        self.journal.keep(record, sight(version, *elements, length=len(elements) + more, members=members))

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.journal.forget(self.handed_out[data.draw(st.integers(0, len(self.handed_out) - 1))])

    @rule(seconds=st.sampled_from([1, 60, RETENTION_SECONDS + 1]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def what_is_counted_is_what_is_kept(self) -> None:
        if hasattr(self, "journal"):
            assert (self.journal._changes, self.journal._bytes) == total(self.journal)

    @invariant()
    def the_bounds_hold(self) -> None:
        if hasattr(self, "journal"):
            changes, size = total(self.journal)
            assert max(changes, len(self.journal)) <= self.bounds[0]
            assert size <= self.bounds[1]

    @invariant()
    def what_was_dropped_holds_nothing(self) -> None:
        if hasattr(self, "journal"):
            kept = list(self.journal)
            for record in self.handed_out:
                if not any(record is known for known in kept):
                    assert (record.units, record.whole, record.tail) == ({}, None, None)


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
