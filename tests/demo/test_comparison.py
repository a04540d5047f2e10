"""The comparison on forged histories: it must not overlook what the demo exists to show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_redis_ha.demo.comparison import compare
from agents_redis_ha.lab.conversations import Conversation, load_conversations, mark_attempt

CONVERSATION = load_conversations(None, 1)[0]
ITEMS = CONVERSATION.items
SIZES = [len(turn.items) for turn in CONVERSATION.turns]


def said_twice() -> Conversation:
    """A conversation in which the user says "yes" to two questions."""
    found = next(one for one in load_conversations(None) if one.conversation_id.startswith("bank-card"))
    assert sum(item.get("content") == "yes" for item in found.items) == 2
    return found


def test_an_exact_copy_is_intact() -> None:
    result = compare(CONVERSATION, ITEMS)
    assert result.intact
    assert (result.said, result.stored) == (len(ITEMS), len(ITEMS))


@given(st.integers(0, len(ITEMS) - 1))
def test_every_single_loss_is_caught(position: int) -> None:
    result = compare(CONVERSATION, ITEMS[:position] + ITEMS[position + 1 :])
    assert (result.lost, result.duplicated, result.foreign, result.out_of_order) == (1, 0, 0, 0)


@given(st.integers(0, len(ITEMS) - 1), st.integers(0, len(ITEMS)))
def test_every_single_duplicate_is_caught_wherever_it_stands(which: int, where: int) -> None:
    result = compare(CONVERSATION, [*ITEMS[:where], ITEMS[which], *ITEMS[where:]])
    assert (result.lost, result.duplicated, result.foreign, result.out_of_order) == (0, 1, 0, 0)


@given(st.integers(0, len(ITEMS) - 1), st.integers(0, len(ITEMS) - 1))
def test_every_swap_is_caught(left: int, right: int) -> None:
    forged = list(ITEMS)
    forged[left], forged[right] = forged[right], forged[left]
    result = compare(CONVERSATION, forged)
    assert (result.lost, result.duplicated, result.foreign) == (0, 0, 0)
    assert (result.out_of_order > 0) == (forged != ITEMS) == (not result.intact)


@given(st.lists(st.sampled_from(ITEMS), max_size=30))
def test_the_counts_add_up_for_any_history(forged: list[Any]) -> None:
    result = compare(CONVERSATION, forged)
    assert result.stored == result.said - result.lost + result.duplicated + result.foreign
    assert result.intact == (forged == ITEMS)


def test_a_turn_that_is_stored_only_in_part_is_torn_and_one_that_is_gone_is_not() -> None:
    torn = compare(CONVERSATION, ITEMS[: SIZES[0] - 1] + ITEMS[SIZES[0] :])
    assert (torn.torn_turns, torn.lost_by_turn) == ((0,), {0: 1})
    gone = compare(CONVERSATION, ITEMS[SIZES[0] :])
    assert (gone.torn_turns, gone.lost_by_turn) == ((), {0: SIZES[0]})


def test_an_item_of_another_conversation_is_foreign() -> None:
    result = compare(CONVERSATION, [*ITEMS, {"role": "user", "content": "who am I?"}, "not even an item"])
    assert (result.foreign, result.duplicated, result.intact) == (2, 0, False)


def test_what_was_said_twice_may_be_stored_twice_and_not_three_times() -> None:
    conversation = said_twice()
    yes = {"role": "user", "content": "yes"}
    assert compare(conversation, conversation.items).intact
    assert compare(conversation, [*conversation.items, yes]).duplicated == 1
    once = list(conversation.items)
    once.remove(yes)
    assert compare(conversation, once).lost == 1


def test_a_turn_that_was_sent_again_after_half_of_it_was_stored_counts_as_duplicates_of_that_turn() -> None:
    first, second = CONVERSATION.turns[0].items, CONVERSATION.turns[1].items
    again = [mark_attempt(item, 2) for item in second]
    rest = ITEMS[len(first) + len(second) :]
    result = compare(CONVERSATION, [*first, *second[:3], *again, *rest])
    assert (result.duplicated, result.duplicated_by_turn, result.lost) == (3, {1: 3}, 0)


def test_only_turns_that_were_said_are_missed() -> None:
    assert compare(CONVERSATION, CONVERSATION.items_before(2), said_turns=2).intact


@pytest.mark.parametrize("field", ["status", "id", "name", "arguments"])
def test_no_field_of_an_item_may_change(field: str) -> None:
    position = next(index for index, item in enumerate(ITEMS) if item.get("type") == "function_call")
    forged = [dict(item) for item in ITEMS]
    forged[position][field] += " "
    result = compare(CONVERSATION, forged)
    assert (result.lost, result.foreign) == (1, 1)


def test_a_field_that_is_null_counts_as_absent() -> None:
    assert compare(CONVERSATION, [{**item, "phase": None} for item in ITEMS]).intact
