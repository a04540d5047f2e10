"""The checker of the load goes red for everything that may go wrong."""

from __future__ import annotations

import pytest
from fleet.chat import Answer
from fleet.verify import Said, Verdict

from agents_redis_ha.lab.conversations import Item


def user(text: str) -> Item:
    return {"role": "user", "content": text}


def assistant(text: str) -> Item:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


TURNS = [[user("one"), assistant("1")], [user("two"), assistant("2")]]
ITEMS = [item for turn in TURNS for item in turn]
HEARD = [Answer(text="1", position=2), Answer(text="2", position=4)]


def verdict(stored: list[Item], heard: list[Answer] = HEARD) -> Verdict:
    found = Verdict()
    found.add(Said("c", ["one", "two"], heard), TURNS, stored)
    return found


def test_what_was_said_and_is_stored_is_whole() -> None:
    found = verdict(ITEMS)
    assert found.is_whole
    assert (found.conversations, found.items) == (1, 4)


@pytest.mark.parametrize(
    ("forged", "name", "count"),
    [
        (ITEMS[:-1], "lost", 1),
        ([], "lost", 4),
        ([ITEMS[0], *ITEMS], "duplicated", 1),
        ([*ITEMS, *ITEMS[2:]], "duplicated", 2),
        ([*ITEMS, user("never said")], "duplicated", 1),
        ([*ITEMS[2:], *ITEMS[:2]], "out_of_order", 1),
    ],
)
def test_a_forged_history_is_found_out(forged: list[Item], name: str, count: int) -> None:
    found = verdict(forged)
    assert not found.is_whole
    wrong = {field: getattr(found, field) for field in ("lost", "duplicated", "out_of_order", "misheard")}
    assert wrong == {**dict.fromkeys(wrong, 0), name: count}


def test_a_changed_item_is_lost_and_another_one_is_there() -> None:
    found = verdict([*ITEMS[:-1], assistant("3")])
    assert (found.lost, found.duplicated) == (1, 1)


@pytest.mark.parametrize("heard", [Answer(text="3", position=4), Answer(text="2", position=5)])
def test_an_answer_that_is_not_the_stored_one_is_found_out(heard: Answer) -> None:
    assert verdict(ITEMS, [HEARD[0], heard]).misheard == 1
