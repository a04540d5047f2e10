"""Positions and entries of a session's log, and what a change tells."""

from __future__ import annotations

import pytest

from agents_redis_ha._commands import (
    NO_POSITION,
    Change,
    ListEdit,
    LogEntry,
    LogPosition,
    ReplicationHistory,
    Status,
)
from agents_redis_ha._commands import change as changes
from agents_redis_ha._commands.change import KEEP_ALL, OPERATION_ID_BYTES
from tests.support.recovery import Clock

HISTORY = ReplicationHistory("h:1", "1f")
ID = b"sixteen-bytes-id"


def test_a_position_serves_where_a_log_would_that_moves_on() -> None:
    position = LogPosition(4, ID)
    assert position.position is position
    assert (NO_POSITION.version, NO_POSITION.id) == (0, b"")


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
    assert LogEntry(1, ID, b"", edit).appends is appends


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
    assert LogEntry(1, ID, b"", edit, result).size == size


def test_what_stands_in_ops_for_a_change_is_its_id_and_its_result_behind_the_id() -> None:
    assert len(ID) == OPERATION_ID_BYTES
    assert LogEntry(7, ID, b"", ListEdit()).members == [(7, ID)]
    assert LogEntry(7, ID, b"", None, b"popped").members == [(7, ID), (7, ID + b"popped")]
    assert LogEntry(7, ID, b"", None, b"").members == [(7, ID), (7, ID)]  # as a set they are one


def test_an_entry_knows_when_it_was_made_and_is_equal_to_the_same_change_of_another_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "time", clock := Clock(7.0))
    first = LogEntry(1, ID, b"", ListEdit())
    clock.now = 8.0
    second = LogEntry(1, ID, b"", ListEdit())
    assert (first.made_at, second.made_at) == (7.0, 8.0)
    assert (first, hash(first)) == (second, hash(second))
    assert first != LogEntry(2, ID, b"", ListEdit())


def test_a_change_tells_what_its_entry_returned() -> None:
    made = LogEntry(5, ID, b"", ListEdit((0, -1)), b"popped")
    assert Change(Status.APPLIED, 5, HISTORY, made).result == b"popped"
    assert Change(Status.APPLIED, 5, HISTORY).result is None


@pytest.mark.parametrize("status", Status)
def test_only_a_log_mismatch_is_one(status: Status) -> None:
    assert Change(status, 5, HISTORY).log_mismatch is (status is Status.LOG_MISMATCH)


def test_an_edit_keeps_all_unless_it_is_told_otherwise() -> None:
    assert ListEdit(push=(b"a",)).keep == KEEP_ALL
