"""The mark that every item of the campaign carries: who wrote it, in which batch, and where in that batch it stands."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_TEXT = re.compile(r"([^:]+):(\d+):(\d+)/(\d+)")
_FIELD = "campaign"
_TURN = ".turns"


class Mark(NamedTuple):
    """What makes an item unique within its session.

    Attributes:
        writer: The task that wrote it; a writer sends one batch after the other.
        sequence: Number of the batch among all of that writer's.
        place: Where within the batch, from 0.
        size: Length of the batch.
    """

    writer: str
    sequence: int
    place: int
    size: int

    def __str__(self) -> str:
        return f"{self.writer}:{self.sequence}:{self.place}/{self.size}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Return the mark of its text; ValueError if it is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a mark: {text!r}")
        return cls(match[1], int(match[2]), int(match[3]), int(match[4]))

    @property
    def batch(self) -> tuple[str, int]:
        """What the items of one batch have in common."""
        return self.writer, self.sequence


def make_batch(writer: str, sequence: int, size: int) -> tuple[Mark, ...]:
    """Return the marks of a whole batch."""
    return tuple(Mark(writer, sequence, place, size) for place in range(size))


def put_mark(item: Mapping[str, Any], mark: Mark, session: str) -> dict[str, Any]:
    """Return the item with its mark; the session's name is there for whoever reads it with redis-cli."""
    return {**item, _FIELD: str(mark), "session": session}


def find_mark(item: Any, session: str) -> Mark | None:
    """Return the mark of an item that belongs to this session; None for anything else."""
    if not isinstance(item, Mapping) or item.get("session") != session:
        return None
    try:
        return Mark.parse(str(item.get(_FIELD)))
    except ValueError:
        return None


def make_turn(writer: str, sequence: int) -> tuple[Mark, ...]:
    """Return the marks of a turn's items: any process that delivers it makes the same."""
    size = random.Random(f"{writer}/{sequence}").choice((2, 4, 4, 6))
    return make_batch(writer + _TURN, sequence, size)


def is_turn(mark: Mark) -> bool:
    """Whether an item was written in a turn."""
    return mark.writer.endswith(_TURN)
