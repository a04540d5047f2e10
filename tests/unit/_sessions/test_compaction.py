"""A snapshot for the SDK's compaction: what it replaces, and when it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from agents_redis_ha._commands import Description, LogPosition, Reading, ReplicationHistory
from agents_redis_ha._sessions.compaction import CompactionSnapshot, make_snapshot

AT_7 = LogPosition(7, b"0123456789ab")
CHANGED = [LogPosition(8, b"ab0123456789"), LogPosition(7, b"begun-anew--")]
HISTORY = ReplicationHistory("h:1", "1f")


def item(number: int) -> Any:
    return {"n": number}


class Session:
    """A history of so many items, of which one may be corrupt; notes what is replaced."""

    def __init__(self, length: int, corrupt: int | None = None) -> None:
        self.items: list[Any] = [None if n == corrupt else item(n) for n in range(length)]
        self.position = AT_7
        self.windows: list[int] = []
        self.replaced: list[tuple[Any, LogPosition, tuple[int, int]]] = []

    async def read(self, newest: int) -> tuple[Reading, list[Any]]:
        self.windows.append(newest)
        found = self.items[-newest:] if newest else self.items
        there = Description(
            len(self.items), -1, 1, 1, self.position.version, 0, self.position.digest, None, False, (), HISTORY
        )
        return Reading(there, len(found), b"", b",1,"), found

    async def replace_range(self, items: Any, expected: LogPosition, keep: tuple[int, int]) -> bool:
        self.replaced.append((items, expected, keep))
        return expected == self.position

    async def snapshot(self, limit: int, prune_prefix: Any = None) -> CompactionSnapshot | None:
        return await make_snapshot(self.read, self.replace_range, limit, prune_prefix)

    async def must_snapshot(self, limit: int, prune_prefix: Any = None) -> CompactionSnapshot:
        found = await self.snapshot(limit, prune_prefix)
        assert found is not None
        return found


@pytest.mark.parametrize(("limit", "first", "complete"), [(3, 2, False), (5, 0, True), (9, 0, True)])
async def test_a_snapshot_is_the_newest_items_and_says_whether_they_are_all(
    limit: int, first: int, complete: bool
) -> None:
    found = await Session(5).must_snapshot(limit)
    assert (found.items, found.complete) == ([item(n) for n in range(first, 5)], complete)


async def test_where_an_element_is_no_item_there_is_no_snapshot() -> None:
    assert await Session(5, corrupt=3).snapshot(3) is None
    assert await Session(5, corrupt=0).snapshot(3) is not None  # it is not among the newest


@pytest.mark.parametrize(("start", "kept"), [(0, 2), (1, 3), (2, 4)])
async def test_a_suffix_is_replaced_at_the_version_that_was_read(start: int, kept: int) -> None:
    session = Session(5)
    found = await session.must_snapshot(3)
    assert await found.replace_suffix(start, [item(9)]) is True
    assert session.replaced == [([item(9)], AT_7, (0, kept))]
    assert session.windows == [3]


async def test_a_suffix_of_nothing_is_not_replaced() -> None:
    session = Session(5)
    found = await session.must_snapshot(3)
    assert await found.replace_suffix(3, [item(9)]) is False
    assert session.replaced == []


@pytest.mark.parametrize("changed", CHANGED)
async def test_a_session_that_changed_since_is_left_alone(changed: LogPosition) -> None:
    session = Session(5)
    found = await session.must_snapshot(3)
    session.position = changed
    assert await found.replace_suffix(0, []) is False
    assert session.replaced == [([], AT_7, (0, 2))]  # the server compares the position


@pytest.mark.parametrize(
    ("corrupt", "prunable", "pruned"),
    [
        (None, {0, 1, 2, 3}, 4),
        (None, {0, 1, 3}, 2),
        (None, set(), 0),
        (1, {0, 2, 3}, 1),  # a corrupt element stays, and what is behind it
    ],
)
async def test_of_the_items_before_it_those_go_up_to_the_first_that_may_not(
    corrupt: int | None, prunable: set[int], pruned: int
) -> None:
    session = Session(7, corrupt)
    found = await session.must_snapshot(3, lambda each: each["n"] in prunable)
    assert await found.replace_suffix(1, [item(9)]) is True
    assert session.replaced == [([item(9)], AT_7, (pruned, 5))]
    assert session.windows == [3, 0]


async def test_nothing_of_the_snapshot_itself_is_pruned() -> None:
    session = Session(4)
    found = await session.must_snapshot(3, lambda each: True)
    await found.replace_suffix(2, [])
    assert session.replaced == [([], AT_7, (1, 3))]


@pytest.mark.parametrize("changed", CHANGED)
async def test_nothing_is_pruned_from_a_session_that_changed_since(changed: LogPosition) -> None:
    session = Session(7)
    found = await session.must_snapshot(3, lambda each: True)
    session.position = changed
    assert await found.replace_suffix(1, [item(9)]) is False
    assert session.replaced == []
