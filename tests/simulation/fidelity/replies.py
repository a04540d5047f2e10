"""Replies as a client reads them, and whether two servers said the same."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["ErrorReply", "Loose", "difference", "parse"]

_TIME = re.compile(rb"(?<!\d)\d{13}(?!\d)")
_TOLERANCE_MS = 20_000  # between the two runs of one sequence; what the sequences make of time lies far from it


class ErrorReply(bytes):
    """An error."""


class Status(bytes):
    """A status."""


class Loose:
    """Where a reply may differ: milliseconds that are left, or pairs in any order.

    Args:
        milliseconds: Paths of numbers that count milliseconds; () is the reply itself.
        pairs: Paths of arrays of names and values, in any order.
        ignored: Whether the reply is not compared at all.
    """

    def __init__(
        self,
        milliseconds: tuple[tuple[int, ...], ...] = (),
        pairs: tuple[tuple[int, ...], ...] = (),
        *,
        ignored: bool = False,
    ) -> None:
        self.milliseconds = milliseconds
        self.pairs = pairs
        self.ignored = ignored


def parse(data: bytes, count: int) -> tuple[list[Any], bytes] | None:
    """Return so many replies and what follows; None if they are not complete."""
    found, at = [], 0
    try:
        for _ in range(count):
            value, at = _value(data, at)
            found.append(value)
    except IndexError:
        return None
    return found, data[at:]


def _value(data: bytes, at: int) -> tuple[Any, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise IndexError
    kind, text, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b":":
        return int(text), at
    if kind in (b"+", b"-"):
        return (Status(text) if kind == b"+" else ErrorReply(text)), at
    if kind == b"_":
        return None, at
    size = int(text)
    if kind == b"*" and size < 0:
        return Status(b"null array"), at
    if kind == b"$":
        if size < 0:
            return None, at
        if len(data) < at + size + 2:
            raise IndexError
        return data[at : at + size], at + size + 2
    items = []
    for _ in range(size * 2 if kind == b"%" else size):
        item, at = _value(data, at)
        items.append(item)
    return items, at


def difference(ours: Any, theirs: Any, loose: Loose, path: tuple[int, ...] = ()) -> str | None:
    """Say where two replies differ; None if they do not."""
    if loose.ignored or ours == theirs:
        return None
    if type(ours) is not type(theirs):
        return f"at {path}: {ours!r} here, {theirs!r} there"
    if isinstance(ours, list):
        if path in loose.pairs:
            ours, theirs = _sorted_pairs(ours), _sorted_pairs(theirs)
        if len(ours) != len(theirs):
            return f"at {path}: {len(ours)} elements here, {len(theirs)} there: {ours!r} / {theirs!r}"
        found = (difference(a, b, loose, (*path, at)) for at, (a, b) in enumerate(zip(ours, theirs, strict=True)))
        return next((each for each in found if each), None)
    if isinstance(ours, int):
        is_time = path in loose.milliseconds or min(ours, theirs) > 10**12
        if is_time and (ours < 0) == (theirs < 0) and abs(ours - theirs) < _TOLERANCE_MS:
            return None
    elif isinstance(ours, bytes) and _same_but_for_times(ours, theirs):
        return None
    return f"at {path}: {ours!r} here, {theirs!r} there"


def _sorted_pairs(items: list[Any]) -> list[Any]:
    return [part for pair in sorted(zip(items[::2], items[1::2], strict=True)) for part in pair]


def _same_but_for_times(ours: bytes, theirs: bytes) -> bool:
    if _TIME.sub(b"", ours) != _TIME.sub(b"", theirs):
        return False
    pairs = zip(_TIME.findall(ours), _TIME.findall(theirs), strict=True)
    return all(abs(int(a) - int(b)) < _TOLERANCE_MS for a, b in pairs)
