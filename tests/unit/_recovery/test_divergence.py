"""What is known against what a server has: where the histories diverge, why, and which pieces may be put back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents_redis_ha._commands import OpsRecord, ServerState, chain
from agents_redis_ha._recovery import replay
from agents_redis_ha._recovery.replay import first_divergence, fragments_of, has_beginning, make_plan
from agents_redis_ha._recovery.session_log import SessionLog
from tests.support.fakes import SPEC, a_position, an_id
from tests.support.model import SERVER, History, said
from tests.support.recovery import entry, record


def log(**fields: Any) -> SessionLog:
    return SessionLog(SPEC, **fields)


def server(version: int, *records: OpsRecord, digest: bytes | None = None) -> ServerState:
    """Return what a server has: these of its changes, and the digest of the last one unless one is given."""
    which = records[-1].digest if digest is None else digest
    return ServerState(version, 0, which, 1, 1, 0, 0.0, 0, records, (), SERVER)


def of_ids(*ids: bytes) -> list[OpsRecord]:
    """Return what ``ops`` holds of these changes, from the first one of the session on."""
    records, digest = list[OpsRecord](), b""
    for version, id_ in enumerate(ids, start=1):
        digest = chain(digest, id_)
        records.append(OpsRecord(version, id_, digest))
    return records


THREE = of_ids(an_id(1), an_id(2), an_id(3))
KNOWN = log(position=a_position(3), entries={2: entry(2)}, others={1: THREE[0]})


def test_equal_histories_and_such_that_have_no_version_in_common_do_not_diverge() -> None:
    assert first_divergence(KNOWN, server(3, *THREE)) is None
    assert first_divergence(KNOWN, server(2, *THREE[:2])) is None  # it only lost the third
    assert first_divergence(KNOWN, server(9, digest=b"digest of 9-")) is None
    assert first_divergence(log(), server(3, *THREE)) is None
    assert first_divergence(KNOWN, server(0, digest=b"")) is None  # it has nothing: 1 is not known by an entry


@pytest.mark.parametrize("where", [1, 2, 3])
def test_histories_diverge_at_the_first_change_that_is_another(where: int) -> None:
    there = of_ids(*(an_id(version if version < where else 90 + version) for version in (1, 2, 3)))
    assert first_divergence(KNOWN, server(3, *there)) == where


def test_the_same_change_behind_another_history_is_another_history() -> None:
    # The ids alone would not tell: this one was put back behind changes that are not known here.
    there = of_ids(b"another-change-1", an_id(2), an_id(3))
    assert first_divergence(KNOWN, server(3, *there[1:])) == 2
    assert first_divergence(KNOWN, server(3, there[2])) == 3


@pytest.mark.parametrize("what", [{"entries": {3: entry(3)}}, {"others": {3: THREE[2]}}])
def test_a_change_that_follows_another_history_than_the_servers_diverges_from_it(what: dict[str, Any]) -> None:
    # No version is in common: the server has 2, and only 3 is known here, behind a 2 of another digest.
    known = log(position=a_position(3), **what)
    there = of_ids(an_id(1), b"another-change-2")
    assert first_divergence(known, server(2, *there)) == 3
    assert first_divergence(known, server(2, *THREE[:2])) is None
    assert first_divergence(known, server(1, THREE[0])) is None  # 2 is not known: nothing to compare
    first = log(position=a_position(1), entries={1: entry(1)})
    assert first_divergence(first, server(0, digest=b"")) is None
    behind_another = log(entries={1: entry(1, before=b"passed over-")})
    assert first_divergence(behind_another, server(0, digest=b"")) == 1


@pytest.mark.parametrize(
    ("known", "found", "is_there"),
    [
        (KNOWN, server(2, *THREE[:2]), True),
        (log(position=a_position(3), others={1: THREE[0]}), server(2, *THREE[:2]), True),  # 2 is of another process
        (log(position=a_position(3), entries={3: entry(3)}), server(2, *THREE[:2]), True),  # what is known is behind it
        (log(position=a_position(3)), server(2, *THREE[:2]), False),
        (KNOWN, server(2, *of_ids(an_id(91), an_id(92))), False),
        (log(position=a_position(1), entries={1: entry(1)}), server(0, digest=b""), False),  # nothing is there
    ],
)
def test_a_server_has_the_beginning_of_what_is_known_where_a_version_agrees_or_the_next_one_follows(
    known: SessionLog, found: ServerState, is_there: bool
) -> None:
    assert has_beginning(known, found) is is_there


def test_what_is_not_remembered_is_not_compared() -> None:
    without_digest = [OpsRecord(version, id_, b"") for version, id_, _ in THREE]
    assert first_divergence(KNOWN, server(9, *without_digest, digest=b"digest of 9-")) is None
    known = log(entries={3: entry(3)}, others={1: OpsRecord(1, b"another-change-1", b"")})
    assert first_divergence(known, server(2, THREE[0], digest=b"")) is None


def given_up(number: int) -> bytes:
    return b"!!%014d" % number


@pytest.mark.parametrize(
    ("ids", "rewritten"),
    [
        ((b"another-change-1", an_id(2)), True),  # deleted, and begun anew
        ((an_id(1), b"another-change-2"), True),
        ((given_up(1), an_id(2)), False),  # the first was lost and given up
        ((an_id(1), given_up(2)), False),
        ((an_id(1), an_id(2), given_up(3)), False),
    ],
)
def test_a_history_that_diverges_was_rewritten_unless_changes_were_given_up_in_it(
    ids: tuple[bytes, ...], rewritten: bool
) -> None:
    known = log(position=a_position(len(ids)), others={record.version: record for record in THREE[: len(ids)]})
    found = server(len(ids), *of_ids(*ids))
    diverges_at = first_divergence(known, found)
    assert diverges_at is not None
    assert (replay.given_up(known, found, diverges_at) == []) is rewritten


def test_what_was_given_up_before_the_last_version_in_common_has_nothing_to_do_with_it() -> None:
    ids = (an_id(1), given_up(2), an_id(3))
    there = of_ids(*ids, b"another-change-4")
    known = log(others={record.version: record for record in of_ids(*ids, an_id(4))})
    assert first_divergence(known, server(4, *there)) == 4
    assert replay.given_up(known, server(4, *there), 4) == []


def test_what_was_given_up_between_two_known_versions_is_seen_at_the_later_one() -> None:
    # Of 2 nothing is known here; it was lost, and given up by the process that put 3 back.
    known = log(position=a_position(3), entries={3: entry(3)}, others={1: THREE[0]})
    there = server(3, *of_ids(an_id(1), given_up(2), an_id(3)))
    assert first_divergence(known, there) == 3
    assert replay.given_up(known, there, 3) == [2]


def knows(made: History, *versions: int, whole: int | None = None, tail: int | None = None) -> SessionLog:
    """Return what a process knows that made these changes and read the session at other versions."""
    found = log(
        position=made.position(made.last.version),
        entries={version: made.entries[version - 1] for version in sorted(versions, reverse=True)},
    )
    found.whole = None if whole is None else made.snapshot_at(whole, 99)
    found.tail = None if tail is None else made.snapshot_at(tail, 1)
    return found


FIVE = said(*(b"%d" % version for version in range(1, 6)))


def test_the_fragments_are_what_is_known_of_the_changes_after_a_version() -> None:
    known = knows(FIVE, 1, 2, 3, 4, 5, whole=3)
    assert fragments_of(known, FIVE.found_at(2)) == [known.whole, *FIVE.entries[2:]]
    assert fragments_of(known, FIVE.found_at(3)) == [*FIVE.entries[3:]]
    assert fragments_of(known, FIVE.found_at(5)) == []
    assert fragments_of(known, FIVE.found_at(0)) == [known.whole, *FIVE.entries]


def test_a_snapshot_is_no_fragment_where_another_process_may_have_written_what_is_there() -> None:
    known = knows(FIVE, 2, 5, whole=5)
    known.others = {}
    known.whole = replace(FIVE.snapshot_at(5, 9), records=())
    assert fragments_of(known, FIVE.found_at(3)) == [FIVE.entries[4]]  # of 3 nothing is known
    another = replace(FIVE.found_at(2), digest=b"of another 2")
    assert fragments_of(known, another) == [FIVE.entries[4]]
    assert fragments_of(known, FIVE.found_at(2)) == [*known.readings, FIVE.entries[4]]


def test_a_snapshot_counts_whose_next_change_was_made_behind_the_servers_last_one() -> None:
    known = knows(FIVE, 5, whole=4)  # another process has put back what it made: 1 to 3
    known.whole = replace(FIVE.snapshot_at(4, 9), records=())
    known.others = {4: FIVE.records(4, 4)[0]}
    fragments = fragments_of(known, FIVE.found_at(3))
    assert fragments == [*known.readings, FIVE.entries[4]]
    plan = make_plan(fragments, FIVE.found_at(3), 5)
    assert (plan.missing, plan.position) == ((), FIVE.position(5))
    other = replace(FIVE.found_at(3), digest=b"of another 3")
    assert fragments_of(known, other) == [FIVE.entries[4]]


def test_where_elements_were_evicted_all_that_is_known_counts() -> None:
    known = knows(FIVE, 1, 2, 3, 4, 5, whole=2, tail=4)
    evicted = FIVE.found_at(3, evicted=True)
    assert fragments_of(known, evicted) == [known.whole, known.tail, *FIVE.entries]
    assert fragments_of(known, FIVE.found_at(3)) == [known.tail, *FIVE.entries[3:]]


def test_what_was_read_later_takes_no_place_of_another_history_whose_elements_were_evicted() -> None:
    # After a failover another process made its own 3; then the server evicted the elements.
    known, another = knows(FIVE, 5, whole=4), record(3, b"another-change-3")
    found = replace(FIVE.found_at(3, evicted=True), digest=another.digest, records=(*FIVE.records(1, 2), another))
    assert fragments_of(known, found) == [FIVE.entries[4]]
    assert make_plan(fragments_of(known, found), found, 5).lacks_elements  # the other process may still know them
