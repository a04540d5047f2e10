"""What is stored of a conversation, compared with what was said in it; pure.

Stored and said are laid side by side by their longest common subsequence. From that:

* **lost**: said, but not stored (as often as it was said).
* **duplicated**: stored more often than it was said.
* **foreign**: stored, but never said in this conversation.
* **out of order**: said and stored equally often, but at another place in the order.
* **torn turns**: turns of which a part is in its place and a part is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lab.conversations import Conversation, shapes


@dataclass(frozen=True)
class Comparison:
    """How a stored conversation differs from the one that was said.

    Attributes:
        said: Number of items that were said.
        stored: Number of items that are stored.
        lost: Number of items said, but not stored.
        duplicated: Number of items stored beyond the times that they were said.
        foreign: Number of items stored that were never said.
        out_of_order: Number of items stored at another place in the order.
        torn_turns: Turns, by number, that are in their place only in part.
        lost_by_turn: Number of lost items of each turn that lost any.
        duplicated_by_turn: Number of duplicates of each turn that has any.
    """

    said: int
    stored: int
    lost: int = 0
    duplicated: int = 0
    foreign: int = 0
    out_of_order: int = 0
    torn_turns: tuple[int, ...] = ()
    lost_by_turn: dict[int, int] = field(default_factory=dict)
    duplicated_by_turn: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.said} items said, {self.stored} stored, {self.lost} lost, {self.duplicated} duplicated, "
            f"{self.foreign} foreign, {self.out_of_order} out of order"
        )

    @property
    def intact(self) -> bool:
        """Whether the stored conversation is exactly the one that was said."""
        return not (self.lost or self.duplicated or self.foreign or self.out_of_order)


def compare(conversation: Conversation, stored: Sequence[Any], said_turns: int | None = None) -> Comparison:
    """Compare a stored history with the conversation as it was said.

    Args:
        conversation: The recording.
        stored: The items found in the store, in their order.
        said_turns: How many of the turns were said at all. ``None`` means all.
    """
    turns = conversation.turns if said_turns is None else conversation.turns[:said_turns]
    said = [shape for turn in turns for shape in shapes(turn.items)]
    turn_of = [number for number, turn in enumerate(turns) for _ in turn.items]
    found = shapes(stored)
    if said == found:
        return Comparison(said=len(said), stored=len(found))
    in_place = _common_positions(said, found)
    absent = Counter(said) - Counter(found)
    surplus = Counter(found) - Counter(said)
    foreign = {shape: count for shape, count in surplus.items() if shape not in said}
    doubled = {shape: count for shape, count in surplus.items() if shape not in foreign}
    common = len(said) - sum(absent.values())
    return Comparison(
        said=len(said),
        stored=len(found),
        lost=sum(absent.values()),
        duplicated=sum(doubled.values()),
        foreign=sum(foreign.values()),
        out_of_order=common - len(in_place),
        torn_turns=_torn(turn_of, in_place),
        lost_by_turn=_lost_by_turn(said, turn_of, in_place, absent),
        duplicated_by_turn=_by_turn(said, turn_of, doubled),
    )


def _common_positions(said: Sequence[str], found: Sequence[str]) -> set[int]:
    """Positions in ``said`` of a longest common subsequence of the two."""
    rows, columns = len(said), len(found)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            if said[row] == found[column]:
                best[row][column] = best[row + 1][column + 1] + 1
            else:
                best[row][column] = max(best[row + 1][column], best[row][column + 1])
    positions: set[int] = set()
    row = column = 0
    while row < rows and column < columns:
        if said[row] == found[column]:
            positions.add(row)
            row, column = row + 1, column + 1
        elif best[row + 1][column] >= best[row][column + 1]:
            row += 1
        else:
            column += 1
    return positions


def _torn(turn_of: Sequence[int], in_place: set[int]) -> tuple[int, ...]:
    """Turns of which some items are in place and some are not."""
    sizes = Counter(turn_of)
    placed = Counter(turn_of[position] for position in in_place)
    return tuple(turn for turn in sorted(sizes) if 0 < placed[turn] < sizes[turn])


def _lost_by_turn(
    said: Sequence[str], turn_of: Sequence[int], in_place: set[int], absent: Counter[str]
) -> dict[int, int]:
    """Lost items by turn; of equal items, those that are not in their place count as lost."""
    remaining = Counter(absent)
    lost: Counter[int] = Counter()
    for position, shape in enumerate(said):
        if position not in in_place and remaining[shape] > 0:
            remaining[shape] -= 1
            lost[turn_of[position]] += 1
    return dict(lost)


def _by_turn(said: Sequence[str], turn_of: Sequence[int], counts: dict[str, int]) -> dict[int, int]:
    """Counts of shapes, added up by the turn in which the shape was first said."""
    first: dict[str, int] = {}
    for shape, turn in zip(said, turn_of, strict=True):
        first.setdefault(shape, turn)
    totals: Counter[int] = Counter()
    for shape, count in counts.items():
        totals[first[shape]] += count
    return dict(totals)
