"""Positions and entries of a session's log, and what a change tells."""

from __future__ import annotations

import functools

import pytest

from agents_redis_ha import _ambient as ambient
from agents_redis_ha._commands import (
    KEEP_ALL,
    NO_POSITION,
    Change,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    ReplicationHistory,
    Status,
    chain,
)
from agents_redis_ha._commands import change as changes
from tests.support.recovery import Clock

HISTORY = ReplicationHistory("h:1", "1f")
ID = b"sixteen-bytes-id"
DIGEST = b"12 of digest"


def test_a_position_serves_where_a_log_would_that_moves_on() -> None:
    position = LogPosition(4, DIGEST)
    assert position.position is position
    assert (NO_POSITION.version, NO_POSITION.digest) == (0, b"")


def test_a_digest_is_the_first_12_characters_of_the_sha1_of_the_one_before_it_and_the_id() -> None:
    # As redis.sha1hex makes them in prelude.lua: printf sixteen-bytes-id | sha1sum, and so on.
    assert (first := chain(b"", ID)) == b"a407d05ae18d"
    assert chain(first, b"another-16-bytes") == b"2f13861b899a"


def test_equal_changes_behind_unequal_histories_have_unequal_digests() -> None:
    histories = [[b"a", b"b", b"c"], [b"b", b"a", b"c"], [b"a", b"c"], [b"b", b"c"], [b"c"]]
    digests = {functools.reduce(chain, ids, b"") for ids in histories}
    assert len(digests) == len(histories)


def test_the_statuses_are_the_numbers_of_the_scripts() -> None:
    prelude = changes.__file__.replace("change.py", "prelude.lua")
    with open(prelude, encoding="utf-8") as file:
        (line,) = (line for line in file if line.startswith("local REPEAT"))
    names, numbers = line.removeprefix("local ").split("=")
    there = dict(zip(map(str.strip, names.split(",")), map(int, numbers.split(",")), strict=True))
    assert there == {status.name: status.value for status in Status}


@pytest.mark.parametrize(
    ("edit", "appends"),
    [(ListEdit(push=(b"a",)), True), (ListEdit(), True), (ListEdit((0, -1)), False), (None, False)],
)
def test_an_entry_appends_if_it_keeps_all(edit: ListEdit | None, appends: bool) -> None:
    assert LogEntry(1, ID, DIGEST, edit).appends is appends


@pytest.mark.parametrize(
    ("edit", "result", "size"),
    [
        (ListEdit(push=(b"abc", b"de")), None, 5),
        (ListEdit((0, -1)), b"popped", 6),
        (None, b"popped", 6),
        (None, None, 0),
    ],
)
def test_the_size_of_an_entry_is_that_of_its_elements_put_in_and_taken_out(
    edit: ListEdit | None, result: bytes | None, size: int
) -> None:
    assert LogEntry(1, ID, DIGEST, edit, result).size == size


def test_what_stands_in_ops_for_a_change_is_its_id_and_its_digest_and_no_result() -> None:
    assert LogEntry(7, ID, DIGEST, ListEdit()).record == OpsRecord(7, ID, DIGEST)
    assert LogEntry(7, ID, DIGEST, None, b"popped").record == OpsRecord(7, ID, DIGEST)


def test_an_entry_knows_when_it_was_made_and_is_equal_to_the_same_change_of_another_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(7.0)
    monkeypatch.setattr(ambient, "monotonic", clock.monotonic)
    first = LogEntry(1, ID, DIGEST, ListEdit())
    clock.now = 8.0
    second = LogEntry(1, ID, DIGEST, ListEdit())
    assert (first.made_at, second.made_at) == (7.0, 8.0)
    assert first == second
    assert first != LogEntry(2, ID, DIGEST, ListEdit())
    assert first != LogEntry(1, ID, b"of another history", ListEdit())


def test_a_change_tells_what_its_entry_returned() -> None:
    made = LogEntry(5, ID, DIGEST, ListEdit((0, -1)), b"popped")
    change = Change(Status.APPLIED, 5, DIGEST, HISTORY, made)
    assert (change.result, change.position) == (b"popped", (5, DIGEST))
    assert Change(Status.APPLIED, 5, DIGEST, HISTORY).result is None


@pytest.mark.parametrize("status", Status)
def test_only_a_log_mismatch_is_one(status: Status) -> None:
    assert Change(status, 5, b"", HISTORY).log_mismatch is (status is Status.LOG_MISMATCH)


def test_an_edit_keeps_all_unless_it_is_told_otherwise() -> None:
    assert ListEdit(push=(b"a",)).keep == KEEP_ALL


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        (ListEdit(push=(b"c", b"d")), [b"a", b"b", b"c", b"d"]),
        (ListEdit((0, -1)), [b"a"]),
        (ListEdit((0, 0)), []),
        (ListEdit((1, 2), (b"c",)), [b"b", b"c"]),
        (ListEdit((5, 9), (b"c",)), [b"c"]),
    ],
)
def test_an_edit_of_a_whole_list_makes_another_one(edit: ListEdit, left: list[bytes]) -> None:
    elements = [b"a", b"b"]
    assert edit.apply(elements) == left
    assert elements == [b"a", b"b"]
