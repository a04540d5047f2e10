"""Snapshots for the SDK's compaction: read a bounded tail, replace a suffix of it unless the session changed.

The SDK keeps this contract private (``agents.memory.session._CompactionSnapshot`` of openai-agents 0.24); the session
offers it defensively and a test runs it against the installed version. Redis gives what it asks for by one comparison:
the session's version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from agents.items import TResponseInputItem

from .._commands import LogPosition, Reading

__all__ = ["CompactionSnapshot", "make_snapshot"]

_Read: TypeAlias = "Callable[[int], Awaitable[tuple[Reading, list[TResponseInputItem | None]]]]"
_ReplaceRange: TypeAlias = "Callable[[list[TResponseInputItem], LogPosition, tuple[int, int]], Awaitable[bool]]"


@dataclass(frozen=True)
class CompactionSnapshot:
    """The newest items, as the SDK's compaction takes them.

    Attributes:
        items: The items, oldest first.
        complete: Whether they are the whole history.
        replace_suffix: Given an index into ``items`` and new items: puts these in the place of all from the index on,
            in one step; returns False without a change if the session changed since it was read.
    """

    items: list[TResponseInputItem]
    complete: bool
    replace_suffix: Callable[[int, list[TResponseInputItem]], Awaitable[bool]]


async def make_snapshot(
    read: _Read,
    replace_range: _ReplaceRange,
    limit: int,
    prune_prefix: Callable[[TResponseInputItem], bool] | None,
) -> CompactionSnapshot | None:
    """Return a snapshot of the newest ``limit`` items, or None if one of the elements is no item.

    Args:
        read: Reads the newest so many elements; 0 means all.
        replace_range: Replaces what is outside a range, at a log position.
        limit: Most items to return; at least 1.
        prune_prefix: Tells which of the oldest items before the snapshot may go with the replacement, up to the first
            one that may not.
    """
    reading, found = await read(limit)
    items = [item for item in found if item is not None]
    if len(items) != len(found):
        return None

    async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
        if start >= len(items):
            return False
        kept = reading.length - (len(items) - start)
        pruned = 0
        if prune_prefix is not None:
            whole, everything = await read(0)
            if whole.session.position != reading.session.position:
                return False
            pruned = _prunable(everything[: reading.length - reading.count], prune_prefix)
        return await replace_range(output, reading.session.position, (pruned, kept))

    return CompactionSnapshot(items, reading.count >= reading.length, replace_suffix)


def _prunable(older: list[TResponseInputItem | None], prune_prefix: Callable[[TResponseInputItem], bool]) -> int:
    """Return how many of the oldest elements may go."""
    return next((i for i, item in enumerate(older) if item is None or not prune_prefix(item)), len(older))
