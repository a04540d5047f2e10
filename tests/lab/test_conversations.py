"""Cutting conversations into turns."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_redis_ha.lab.conversations import (
    PACKAGED_COPIES,
    ConversationError,
    distinct_call_ids,
    is_user_message,
    load_conversations,
    parse_conversations,
    split_turns,
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "role": "assistant", "status": "completed", "id": "m", "content": content}


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "id": f"fc_{call_id}", "name": "look", "arguments": "{}"}


def output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "seen"}


def _answered(call_ids: list[str]) -> list[dict[str, Any]]:
    return [*map(call, call_ids), *map(output, call_ids)]


def _joined(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return list(chain.from_iterable(parts))


_calls = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3, unique=True).map(_answered)
_answers = st.lists(st.text().map(assistant), max_size=2)
_rest_of_turn = st.lists(st.one_of(_calls, _answers), max_size=4).map(_joined)
_turn = st.tuples(st.text().map(user), _rest_of_turn).map(lambda turn: [turn[0], *turn[1]])
_conversation = st.lists(_turn, min_size=1, max_size=6).map(_joined)


@given(_conversation)
def test_the_turns_of_a_conversation_joined_are_the_conversation(items: list[dict[str, Any]]) -> None:
    turns = split_turns(items)
    assert [item for turn in turns for item in turn.items] == items


@given(_conversation)
def test_every_turn_starts_at_a_user_message_and_holds_no_other(items: list[dict[str, Any]]) -> None:
    for turn in split_turns(items):
        assert [is_user_message(item) for item in turn.items] == [True] + [False] * (len(turn.items) - 1)


@given(_conversation)
def test_the_responses_and_outputs_of_a_turn_are_the_turn(items: list[dict[str, Any]]) -> None:
    for turn in split_turns(items):
        said: list[Any] = []
        while len(said) < len(turn.items) - 1:
            response = turn.response_at(len(said))
            said += response
            said += [output(item["call_id"]) for item in response if item["type"] == "function_call"]
        assert said == list(turn.items[1:])


def test_a_call_id_that_is_used_again_becomes_another_one() -> None:
    items = [user("a"), call("x"), output("x"), user("b"), call("x"), output("x"), call("y"), output("y")]
    ids = [item.get("call_id") for item in distinct_call_ids(items)]
    assert ids == [None, "x", "x", None, "x.2", "x.2", "y", "y"]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "begin with a user message"),
        ([assistant("hello")], "begin with a user message"),
        ([user("a"), call("x")], "output of x was not recorded"),
        ([user("a"), call("x"), user("b"), output("x")], "output of x was not recorded"),
        ([user("a"), output("x")], "output of x is not in its place"),
        ([user("a"), call("x"), call("y"), output("y"), output("x")], "output of y is not in its place"),
        ([user("a"), call("x"), call("y"), output("x"), assistant("so"), output("y")], "output of y is not in its"),
        ([user("a"), {"type": "reasoning", "summary": []}], "'reasoning' cannot be replayed"),
    ],
)
def test_a_conversation_that_no_run_can_reproduce_is_refused(items: list[Any], reason: str) -> None:
    with pytest.raises(ConversationError, match=reason):
        split_turns(items)


def test_an_error_in_a_file_names_the_line() -> None:
    good = json.dumps({"conversation": "a", "items": [user("hi")]})
    with pytest.raises(ConversationError, match="talks, line 3: "):
        parse_conversations(iter([good, "", '{"conversation": "b"}']), "talks")
    with pytest.raises(ConversationError, match="line 2: the id 'a' occurs twice"):
        parse_conversations(iter([good, good]), "talks")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversationError, match="cannot read"):
        load_conversations(tmp_path / "nothing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConversationError, match="holds no conversation"):
        load_conversations(tmp_path / "empty")


def test_the_packaged_conversations_have_distinct_ids_and_what_makes_replaying_hard() -> None:
    found = load_conversations(None)
    assert len({one.conversation_id for one in found}) == len(found) == 8 * PACKAGED_COPIES
    items = [item for one in found for item in one.items]
    pairs = list(pairwise(items))
    assert any(a.get("type") == b.get("type") == "function_call" for a, b in pairs), "parallel calls"
    assert any(turn.responses > 2 for one in found for turn in one.turns), "several model calls in a turn"
    assert any(ord(character) > 0xFFFF for character in json.dumps(items, ensure_ascii=False)), "emoji"
    assert any(isinstance(value, dict) for item in items for value in json.loads(item.get("arguments", "{}")).values())


def test_the_limit_takes_the_first_conversations() -> None:
    assert load_conversations(None, 3) == load_conversations(None)[:3]
