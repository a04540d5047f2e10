"""What a process knows of its sessions: enough to put back, within its bounds, and forgotten in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from agents_redis_ha import _ambient as ambient
from agents_redis_ha._commands import (
    NO_POSITION,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    ReplicationHistory,
    SessionSpec,
)
from agents_redis_ha._recovery.journal import Journal
from agents_redis_ha._recovery.session_log import SessionLog, Snapshot, entry_cost
from tests.support.fakes import a_digest, a_position, an_id
from tests.support.recovery import Clock, entry, kept_anew, record, snapshot, spec

RETENTION_SECONDS = 120
ENOUGH = 10**9
HISTORY = ReplicationHistory("h:1", "1f")
OTHER_HISTORY = ReplicationHistory("h:2", "2e")


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(getattr(request, "param", 1000.0))
    monkeypatch.setattr(ambient, "monotonic", found.monotonic)
    return found


any_uptime = pytest.mark.parametrize(
    "clock", [0.0, 1.0, 10.0**7], ids=["at boot", "booted", "up for months"], indirect=True
)


def saw(journal: Journal, name: str, version: int, expires_at: float | None = None) -> SessionLog:
    log = journal.log(spec(name))
    log.see(a_position(version), HISTORY, expires_at)
    return log


def names(journal: Journal) -> list[str]:
    return [log.spec.session_id for log in journal]


def test_nothing_is_known_of_a_session_at_first() -> None:
    log = Journal(9, ENOUGH).log(spec())
    assert (log.position, log.ids, log.history) == (NO_POSITION, {}, None)
    assert (log.whole, log.tail, log.entries) == (None, None, {})


def test_a_log_knows_the_latest_position_and_which_server_has_it() -> None:
    log = SessionLog(spec())
    log.see(a_position(5), HISTORY, None)
    log.see(a_position(4), OTHER_HISTORY, None)  # a reply that was overtaken by another
    assert (log.position, log.history) == (a_position(5), HISTORY)
    log.see(LogPosition(5, b"of another 5"), OTHER_HISTORY, None)  # a process went on from another primary
    assert (log.position, log.history) == ((5, b"of another 5"), OTHER_HISTORY)
    log.see(a_position(6), HISTORY, None)
    assert (log.position, log.ids, log.digests) == (a_position(6), {}, {6: a_digest(6)})


def test_the_ids_are_those_of_ones_own_changes_and_of_others() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 8)
    journal.keep(log, own := entry(7, b"x", id_=b"own-change-of-7-"))
    others = (record(3, b"another-change-3"), record(6, b"other-change-of6"), record(7, b"not-own-change-7"))
    journal.keep(log, snapshot(6, b"x", records=(*others, OpsRecord(4, b"", b"digest of 4-"))))
    assert log.ids == {3: b"another-change-3", 6: b"other-change-of6", 7: own.id}


def test_the_digests_are_those_of_ones_own_changes_of_others_of_what_was_read_and_of_the_latest() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 9)
    others = (
        record(3, b"another-change-3"),
        OpsRecord(4, b"", b"digest of 4-"),
        OpsRecord(5, b"an-id-of-version5", b""),
    )
    journal.keep(log, whole := snapshot(6, b"x", records=others, digest=b"digest of 6-"))
    journal.keep(log, tail := snapshot(7, b"x", length=4, digest=b"digest of 7-"))
    journal.keep(log, own := entry(8, b"x", id_=b"own-change-of-8-"))
    known = {3: others[0].digest, 4: b"digest of 4-", 6: whole.digest, 7: tail.digest, 8: own.digest, 9: a_digest(9)}
    assert log.digests == known


def test_a_snapshot_names_the_newest_changes_that_are_known_of_whatever_told_them() -> None:
    journal = Journal(9999, ENOUGH)
    log = saw(journal, "u", 3000)
    journal.keep(log, snapshot(2990, b"x", records=tuple(record(version) for version in range(1900, 2991))))
    journal.keep(log, own := entry(2995, b"x", id_=b"own-change-of2995"))
    journal.keep(log, snapshot(3000, b"x", length=2, records=(record(2996), record(3001))))
    whole, tail = log.readings
    assert [each.version for each in whole.records] == [*range(2990 - 1023, 2991)]
    assert [each.version for each in tail.records] == [*range(3000 - 1023, 2991), 2995, 2996]
    assert tail.records[-2] == own.record
    told = record(2995, b"what-was-read2995")
    journal.keep(log, snapshot(3000, b"x", length=2, records=(told,)))
    assert log.readings[1].records[-2] == told  # what the server has just told counts, not what is remembered
    journal.keep(log, made := entry(2996, b"x", id_=b"own-change-of2996"))
    assert log.readings[1].records[-1] == made.record


def test_of_two_changes_of_one_version_the_later_one_counts() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 5)
    journal.keep(log, entry(5, b"abc"))
    journal.keep(log, later := entry(5, b"defg", id_=an_id(77)))
    log.see(LogPosition(5, later.digest), HISTORY, None)
    assert [kept.id for kept in log.entries.values()] == [an_id(77)]
    assert (log.ids, log.digests) == ({5: an_id(77)}, {5: later.digest})
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_a_whole_snapshot_takes_the_place_of_the_changes_that_it_shows() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 4)
    for version in (2, 3, 4):
        journal.keep(log, entry(version, b"x"))
    journal.keep(log, snapshot(3, b"x", length=2))  # the newest element alone: it replaces nothing
    assert sorted(log.entries) == [2, 3, 4]
    journal.keep(log, snapshot(3, b"x", b"y"))
    assert sorted(log.entries) == [4]
    assert log.ids == {version: an_id(version) for version in (2, 3, 4)}  # what they were is still known
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_a_snapshot_of_the_tail_is_kept_beside_that_of_the_whole_until_all_is_read_again() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 6)
    journal.keep(log, whole := snapshot(3, b"x", b"y"))
    journal.keep(log, snapshot(4, b"z", length=3))
    journal.keep(log, part := snapshot(5, b"z", length=4))
    assert (log.whole, log.tail) == (whole, part)
    assert journal._bytes == kept_anew(journal)[1]
    journal.keep(log, whole := snapshot(6, b"x", b"y", b"z"))
    assert (log.whole, log.tail) == (whole, None)
    assert journal._bytes == kept_anew(journal)[1]


def test_where_changes_were_given_up_the_newest_elements_that_were_read_before_tell_no_more() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 4)
    journal.keep(log, whole := snapshot(2, b"x", b"y"))
    journal.keep(log, snapshot(4, b"z", length=4))
    noops = [LogEntry(version, b"!!%014d" % version, a_digest(version), ListEdit()) for version in (3, 5)]
    journal.abandon(log, noops)
    assert (log.whole, log.tail, [*log.entries.values()]) == (whole, None, noops)
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_an_older_snapshot_does_not_replace_a_newer_one() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 4)
    journal.keep(log, newer := snapshot(4, b"x"))
    journal.keep(log, snapshot(3, b"yy"))
    journal.keep(log, snapshot(3, b"yy", length=2))
    assert (log.whole, log.tail) == (newer, None)
    journal.keep(log, same := snapshot(4, b"zzz"))
    assert log.whole is same
    journal.keep(log, part := snapshot(5, b"x", length=4))
    journal.keep(log, snapshot(4, b"yy"))
    assert (log.whole, log.tail) == (same, part)
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_the_oldest_changes_of_a_session_alone_are_dropped_beyond_the_number() -> None:
    journal = Journal(3, ENOUGH)
    log = saw(journal, "u", 9)
    for version in range(1, 10):
        journal.keep(log, entry(version, b"x"))
    assert list(log.entries) == [7, 8, 9]
    assert log.position == a_position(9)
    assert journal._changes == 3


def test_beyond_the_number_of_changes_those_of_the_session_changed_longest_ago_are_dropped_and_no_positions() -> None:
    journal = Journal(4, ENOUGH)
    for name in ("a", "b"):
        log = saw(journal, name, 2)
        journal.keep(log, entry(1, b"x"))
        journal.keep(log, entry(2, b"x"))
    journal.keep(journal.log(spec("a")), entry(3, b"x"))
    assert {log.spec.session_id: sorted(log.entries) for log in journal} == {"a": [1, 2, 3], "b": []}
    assert journal.log(spec("b")).position == a_position(2)  # a loss is still noticed
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_the_sessions_used_longest_ago_are_dropped_first() -> None:
    journal = Journal(2, ENOUGH)
    for name in ("a", "b"):
        journal.keep(saw(journal, name, 1), entry(1, b"x"))
    journal.log(spec("a"))
    saw(journal, "c", 1)
    assert names(journal) == ["a", "c"]
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_sessions_are_bounded_in_number_also_if_nothing_of_them_is_kept() -> None:
    journal = Journal(3, ENOUGH)
    for name in "abcde":
        saw(journal, name, 1)  # such as by info() alone, or by reading a session that has no items
    assert names(journal) == ["c", "d", "e"]


def costs(sessions: int, *kept: LogEntry | Snapshot) -> int:
    """Return what sessions cost with what is kept of them."""
    own = SessionLog(spec()).own_cost
    return sessions * own + sum(entry_cost(each) if isinstance(each, LogEntry) else each.cost for each in kept)


def test_under_pressure_readings_go_first_then_own_changes_and_positions_last() -> None:
    change, read = entry(2, b"x" * 500), snapshot(1, b"x" * 500)
    journal = Journal(99, costs(4, change, change, change, change, read))

    def kept() -> tuple[str, ...]:
        """Return of which sessions the position is known, own changes and a reading are kept."""
        assert (journal._changes, journal._bytes) == kept_anew(journal)
        assert journal._bytes <= journal._max_bytes
        logs = {log.spec.session_id: log for log in journal}
        return "".join(logs), *("".join(n for n, log in logs.items() if of(log)) for of in (has_changes, has_reading))

    def has_changes(log: SessionLog) -> bool:
        return bool(log.entries)

    def has_reading(log: SessionLog) -> bool:
        return log.whole is not None

    for name in "ab":
        journal.keep(saw(journal, name, 2), read)
    for name in "abc":
        journal.keep(saw(journal, name, 2), change)
    assert kept() == ("abc", "abc", "ab")
    journal.keep(saw(journal, "d", 2), change)
    assert kept() == ("abcd", "abcd", "b")
    journal.keep(saw(journal, "e", 2), change)
    assert kept() == ("abcde", "cde", "")
    for name in "fgh":
        saw(journal, name, 2)
    assert kept() == ("abcdefgh", "", "")
    saw(journal, "i", 2)
    assert kept() == ("bcdefghi", "", "")


def test_under_pressure_what_waits_to_be_put_back_goes_after_the_rest() -> None:
    change, read = entry(2, b"x" * 500), snapshot(1, b"x" * 500)
    journal = Journal(99, costs(4, change, read, change) + 100)
    journal.meet(HISTORY)
    journal.keep(saw(journal, "a", 2), read)
    journal.keep(a := saw(journal, "a", 2), change)
    journal.meet(OTHER_HISTORY)
    journal.keep(b := saw(journal, "b", 2), change)
    journal.keep(c := saw(journal, "c", 2), read)
    assert (c.whole, len(b.entries)) == (read, 1)
    journal.keep(d := saw(journal, "d", 2), change)
    assert (c.whole, len(b.entries), len(d.entries)) == (None, 0, 1)
    saw(journal, "e", 2)
    assert (len(d.entries), len(a.entries), a.whole) == (0, 1, read)
    saw(journal, "f", 2)
    assert (len(journal), a.whole, len(a.entries)) == (6, None, 0)
    assert (journal._changes, journal._bytes) == kept_anew(journal)
    assert journal._bytes <= journal._max_bytes


def test_bytes_are_bounded_over_all_sessions() -> None:
    first, second, read = entry(1, b"x" * 60), entry(1, b"x" * 40), snapshot(1, b"x" * 50)
    journal = Journal(99, costs(3, first, second))
    journal.keep(saw(journal, "a", 1), first)
    journal.keep(saw(journal, "b", 1), second)
    journal.keep(log := saw(journal, "c", 1), read)
    assert names(journal) == ["a", "b", "c"]
    assert log.whole is None  # own changes cannot be read again once they are lost
    assert journal._bytes == kept_anew(journal)[1] == costs(3, first, second)


def test_a_change_larger_than_all_that_may_be_kept_costs_nothing_else() -> None:
    small, large = entry(1, b"x"), entry(2, b"x" * 10_000)
    journal = Journal(9999, 2_000_000)
    logs = [saw(journal, str(number), 2) for number in range(1_000)]
    for log in logs:
        journal.keep(log, small)
    kept = kept_anew(journal)
    for size in (1_500_000, 2_000_000):  # the smaller one would fit if the positions were given up
        journal.keep(logs[0], entry(3, b"x" * size))
        journal.keep(logs[0], snapshot(3, b"x" * size))
    journal.keep(logs[0], large)
    assert sorted(logs[0].entries) == [1, 2]
    journal.keep(logs[1], entry(2, b"x" * 2_000_000))
    assert sorted(logs[1].entries) == [1]
    assert logs[1].position == a_position(2)  # a loss is still noticed
    assert len(journal) == 1_000
    assert kept_anew(journal) == (kept[0] + 1, kept[1] + entry_cost(large))


def test_what_a_session_had_before_gives_way_to_its_newest_change() -> None:
    read, changes_ = snapshot(1, b"x" * 60), [entry(version, b"x" * 40) for version in (2, 3, 4)]
    journal = Journal(99, costs(1, *changes_[:2]))
    log = saw(journal, "u", 4)
    journal.keep(log, read)
    for change in changes_[:2]:
        journal.keep(log, change)
    assert (log.whole, sorted(log.entries)) == (None, [2, 3])
    journal.keep(log, changes_[2])
    assert sorted(log.entries) == [3, 4]
    assert (journal._changes, journal._bytes) == kept_anew(journal)
    assert log.position == a_position(4)


def test_a_snapshot_that_is_too_large_to_be_kept_does_not_cost_the_changes_that_are_kept() -> None:
    journal = Journal(99, 5000)
    log = saw(journal, "u", 2)
    journal.keep(log, entry(2, b"x" * 3))
    journal.keep(log, snapshot(2, b"x" * 5000, b"y" * 3, records=(record(1),)))
    assert (log.whole, log.tail, sorted(log.entries)) == (None, None, [2])
    assert log.ids[1] == an_id(1)
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_what_was_popped_counts_among_the_bytes() -> None:
    pops = [LogEntry(version, an_id(version), b"", ListEdit(keep=(0, -1)), result=b"x" * 400) for version in (1, 2, 3)]
    journal = Journal(99, costs(1, *pops[:2]) + 399)
    log = saw(journal, "u", 3)
    for popped in pops:
        journal.keep(log, popped)
    assert sorted(log.entries) == [2, 3]
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_the_position_of_the_latest_session_is_known_also_where_no_bytes_may_be_kept() -> None:
    journal = Journal(99, 0)
    for name in "abc":
        log = saw(journal, name, 2)
        journal.keep(log, entry(2, b"x"))
        journal.keep(log, snapshot(2, b"x", records=(record(1),)))
        assert (names(journal), log.position, log.entries, log.whole, log.others) == (
            [name],
            a_position(2),
            {},
            None,
            {},
        )


def test_sessions_past_their_retention_are_freed_as_new_ones_come(clock: Clock) -> None:
    journal = Journal(9999, ENOUGH)
    for number in range(100):
        journal.keep(saw(journal, f"old {number}", 1), entry(1, b"x"))
    told = journal.log(spec("old 0"))
    told.lost = (1,)
    clock.now += RETENTION_SECONDS + 1
    for number in range(60):
        saw(journal, f"new {number}", 1)
    assert set(names(journal)) == {"old 0", *(f"new {number}" for number in range(60))}
    assert (told.version, told.lost) == (0, (1,))  # the user has not been told yet
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_sessions_of_which_no_reply_ever_came_are_freed_too(clock: Clock) -> None:
    journal = Journal(9999, ENOUGH)
    under_way = journal.log(spec("never answered"))
    saw(journal, "other", 1)
    assert journal.log(spec("never answered")) is under_way
    clock.now += RETENTION_SECONDS + 1
    journal.drop_past(9)
    assert names(journal) == []
    assert journal._bytes == 0


def test_so_many_as_asked_for_are_freed_at_once(clock: Clock) -> None:
    journal = Journal(9999, ENOUGH)
    for number in range(10):
        saw(journal, str(number), 1)
    clock.now += RETENTION_SECONDS + 1
    saw(journal, "recent", 1)
    journal.drop_past(3)
    assert names(journal) == ["5", "6", "7", "8", "9", "recent"]


def test_the_ids_of_others_are_bounded_to_the_newest() -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 3000)
    journal.keep(log, snapshot(3000, b"x", records=tuple(record(version) for version in range(1, 3001))))
    assert (min(log.others), max(log.others)) == (1977, 3000)
    for version in range(3001, 6000):
        journal.keep(log, snapshot(version, b"x", records=(record(version),)))
        assert len(log.others) <= 2 * 1024
    assert set(log.others) >= set(range(6000 - 1024, 6000))


@any_uptime
def test_changes_older_than_the_retention_are_dropped_with_the_next_one(clock: Clock) -> None:
    journal = Journal(99, ENOUGH)
    log = saw(journal, "u", 3)
    for version in (1, 2, 3):
        journal.keep(log, entry(version, b"x"))
        clock.now += RETENTION_SECONDS * 0.6
    assert sorted(log.entries) == [2, 3]
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def full(journal: Journal, clock: Clock, expires_at: float | None = None) -> SessionLog:
    log = saw(journal, "u", 3, expires_at)
    journal.keep(log, snapshot(2, b"x", records=(record(1),)))
    journal.keep(log, entry(3, b"y"))
    log.lost = (2,)
    return log


def is_blank(log: SessionLog) -> bool:
    known = (log.position, log.ids, log.digests, log.history, log.expires_at, log.whole, log.tail, log.entries)
    return known == (NO_POSITION, {}, {}, None, None, None, None, {})


@any_uptime
def test_what_was_seen_longer_ago_than_ids_are_remembered_is_not_known(clock: Clock) -> None:
    journal = Journal(99, ENOUGH)
    log = full(journal, clock)
    clock.now += RETENTION_SECONDS
    assert journal.log(spec()).version == 3
    clock.now += 0.1
    assert journal.log(spec()) is log
    assert is_blank(log)
    assert log.lost == (2,)  # the user has not been told yet
    assert (journal._changes, journal._bytes) == (0, log.own_cost)


@any_uptime
def test_every_look_at_the_session_puts_the_horizon_off(clock: Clock) -> None:
    journal = Journal(99, ENOUGH)
    log = full(journal, clock)
    for _ in range(5):
        clock.now += RETENTION_SECONDS * 0.9
        assert journal.log(spec()).version == 3
        log.see(a_position(3), HISTORY, None)


@any_uptime
def test_a_session_that_may_have_expired_is_not_known(clock: Clock) -> None:
    journal = Journal(99, ENOUGH)
    log = full(journal, clock, expires_at=clock.now + 5)
    clock.now += 4.9
    assert journal.log(spec()).version == 3
    clock.now += 0.1
    assert is_blank(journal.log(spec()))
    assert (journal._changes, journal._bytes) == (0, log.own_cost)
    log.see(LogPosition(1, b"begun anew--"), HISTORY, None)
    assert journal.log(spec()).position == (1, b"begun anew--")


@any_uptime
def test_what_the_session_forgets_sooner_than_this_process_does_not_count_longer(clock: Clock) -> None:
    journal = Journal(99, ENOUGH)
    log = full(journal, clock)
    log.retention_ms = 30_000  # a process with less patience may have cleared it meanwhile
    clock.now += 30
    assert journal.log(spec()).version == 3
    clock.now += 0.1
    assert is_blank(journal.log(spec()))


@pytest.mark.parametrize(("told_ms", "seconds"), [(None, 120), (30_000, 30), (600_000, 120)])
def test_the_horizon_is_the_shorter_of_ones_own_retention_and_the_sessions(told_ms: int | None, seconds: int) -> None:
    log = SessionLog(spec())
    log.retention_ms = told_ms
    assert log.horizon_seconds == seconds


def test_the_latest_retention_of_a_session_counts() -> None:
    journal = Journal(99, ENOUGH)
    journal.log(spec())
    changed = SessionSpec(spec().keys, "u", "off", retention_ms=7000)
    assert journal.log(changed).horizon_seconds == 7
    assert len(journal) == 1


def test_a_session_that_was_dropped_while_an_operation_was_under_way_is_kept_again() -> None:
    journal = Journal(1, ENOUGH)
    under_way = saw(journal, "a", 1)
    journal.keep(saw(journal, "b", 1), entry(1, b"x"))
    assert names(journal) == ["b"]
    under_way.see(a_position(2), HISTORY, None)
    journal.keep(under_way, entry(2, b"y"))
    assert journal.log(spec("a")) is under_way
    assert under_way.position == a_position(2)
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_a_session_that_was_dropped_and_begun_anew_meanwhile_is_not_mixed_with_what_was_known() -> None:
    journal = Journal(1, ENOUGH)
    under_way = saw(journal, "a", 1)
    saw(journal, "b", 1)
    anew = saw(journal, "a", 5)
    journal.keep(anew, kept := entry(5, b"x"))
    journal.keep(under_way, entry(2, b"y"))
    journal.forget(under_way)
    assert journal.log(spec("a")) is anew
    assert anew is not under_way
    assert (under_way.entries, anew.entries) == ({}, {5: kept})
    assert [*journal._settled.changed.values()] == [anew]
    assert (journal._changes, journal._bytes) == kept_anew(journal)


def test_a_session_may_be_dropped_while_all_are_looked_at() -> None:
    journal = Journal(2, ENOUGH)
    for name in "ab":
        saw(journal, name, 1)
    seen: list[str] = []
    for log in journal:
        journal.log(spec(f"new {len(seen)}"))
        seen.append(log.spec.session_id)
    assert seen == ["a", "b"]


class Counted(dict[int, LogEntry]):
    """Own changes that count how many of them were looked at one after another."""

    walked = 0

    def _count(self, found: Iterable[Any]) -> Iterator[Any]:
        for each in found:
            self.walked += 1
            yield each

    def __iter__(self) -> Iterator[int]:
        return self._count(super().__iter__())

    def values(self) -> Any:
        return self._count(super().values())

    def items(self) -> Any:
        return self._count(super().items())


def test_a_reading_of_the_newest_items_does_not_walk_all_own_changes() -> None:
    journal = Journal(99_999, ENOUGH)
    log = saw(journal, "u", 10_000)
    for version in range(1, 10_001):
        journal.keep(log, entry(version, b"x"))
    log.entries = Counted(log.entries)
    for version in range(10_000, 10_100):
        journal.keep(log, snapshot(version, b"x", length=9_000, records=(record(version),)))
    assert log.entries.walked <= 100  # the oldest one each time, whose age is looked at
    assert log.readings[0].records[0].version == 10_099 - 1023
