"""The checker of the load goes red for everything that may go wrong."""

from __future__ import annotations

import pytest
from fleet.recorded import NUDGE
from fleet.verify import Said, Verdict

from agents_redis_ha.lab.conversations import Item


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def assistant(text: str) -> Item:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


TURNS = [[user("one"), assistant("1")], [user(NUDGE), assistant("yes")], [user("two"), assistant("2")]]
FIRST, NUDGED, SECOND = TURNS
ITEMS = [*FIRST, *NUDGED, *SECOND]
HEARD = ["1", "yes", "2"]
WRONG = ("lost", "duplicated", "torn", "out_of_order", "misheard")


def verdict(stored: list[Item], heard: list[str] = HEARD) -> Verdict:
    found = Verdict()
    found.add(Said("c", ["one", NUDGE, "two"], heard), TURNS, stored)
    return found


def wrong(found: Verdict) -> dict[str, int]:
    return {name: getattr(found, name) for name in WRONG if getattr(found, name)}


@pytest.mark.parametrize("stored", [ITEMS, [*NUDGED, *FIRST, *SECOND]])
def test_what_was_said_and_is_stored_is_whole_wherever_a_nudge_was_answered(stored: list[Item]) -> None:
    found = verdict(stored)
    assert found.is_whole
    assert (found.conversations, found.turns, found.items) == (1, 3, 6)


@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        (ITEMS[:-2], {"lost": 1}),
        ([], {"lost": 3}),
        (ITEMS[:-1], {"lost": 1, "torn": 1}),
        (ITEMS[1:], {"lost": 1, "torn": 1}),
        ([*ITEMS, *SECOND], {"duplicated": 1}),
        ([*ITEMS, *SECOND, *NUDGED], {"duplicated": 2}),
        ([ITEMS[0], *ITEMS], {"torn": 1}),
        ([*ITEMS, ITEMS[-1]], {"lost": 1, "torn": 1}),
        ([*ITEMS, user("never said"), assistant("3")], {"torn": 1}),
        ([FIRST[0], *NUDGED, FIRST[1], *SECOND], {"lost": 2, "torn": 2}),
        ([FIRST[0], NUDGED[0], FIRST[1], NUDGED[1], *SECOND], {"lost": 2, "torn": 2}),
        ([*SECOND, *NUDGED, *FIRST], {"out_of_order": 1}),
        ([*ITEMS[:-1], assistant("3")], {"lost": 1, "torn": 1}),
    ],
)
def test_a_forged_history_is_found_out(forged: list[Item], expected: dict[str, int]) -> None:
    found = verdict(forged)
    assert not found.is_whole
    assert wrong(found) == expected


def test_an_answer_that_is_not_the_stored_one_is_found_out() -> None:
    found = verdict(ITEMS, ["1", "yes", "3"])
    assert not found.is_whole
    assert wrong(found) == {"misheard": 1}
