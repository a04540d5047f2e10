"""A turn is answered once, however often and from wherever it is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleet import chat
from fleet.chat import Message
from fleet.turns import PositionError, Turn

from agents_redis_ha import ConflictError
from agents_redis_ha.lab.conversations import shapes
from tests.support.chat import LONGEST, expected


def says(conversation: str, position: int, text: str) -> Message:
    return Message(conversation=conversation, position=position, text=text)


async def test_every_turn_is_stored_as_it_was_recorded(store: Any, conversation: Any, stored: Any) -> None:
    position = 0
    for text in LONGEST:
        position = (await chat.answer(store, says(conversation, position, text))).position
    assert shapes(await stored()) == shapes(expected(LONGEST))
    assert position == len(expected(LONGEST))


async def test_a_turn_that_is_asked_for_again_gives_the_same_answer_and_stores_nothing(
    store: Any, conversation: Any, stored: Any
) -> None:
    message = says(conversation, 0, LONGEST[0])
    first = await chat.answer(store, message)
    assert await chat.answer(store, message) == first
    await chat.answer(store, says(conversation, first.position, LONGEST[1]))
    assert await chat.answer(store, message) == first, "also after the conversation went on"
    assert shapes(await stored()) == shapes(expected(LONGEST[:2]))


def prefixes() -> list[int]:
    """Where the longest turn may have been interrupted: behind its message, or behind the outputs of calls."""
    kinds = [item.get("type") for item in expected(LONGEST[:1])]
    behind = (n for n in range(2, len(kinds)) if kinds[n - 1] == "function_call_output" != kinds[n])
    return [1, *behind]


@pytest.mark.parametrize("stored_before", prefixes())
async def test_an_interrupted_turn_is_finished(store: Any, conversation: Any, stored: Any, stored_before: int) -> None:
    items = expected(LONGEST[:1])
    await store.session(conversation).add_items(items[:stored_before])
    answer = await chat.answer(store, says(conversation, 0, LONGEST[0]))
    assert answer.position == len(items)
    assert shapes(await stored()) == shapes(items)


async def test_a_call_is_stored_together_with_its_output(store: Any, conversation: Any) -> None:
    session = store.session(conversation)
    turn = await Turn.begin(session, 0, LONGEST[0])
    message, call, output = expected(LONGEST[:1])[:3]
    await turn.add_items([message])
    await turn.add_items([call])
    assert shapes(await session.get_items()) == shapes([message])
    assert shapes(await turn.get_items()) == shapes([message, call]), "the run itself sees it"
    await turn.add_items([output])
    assert shapes(await session.get_items()) == shapes([message, call, output])


async def test_of_two_runs_of_a_turn_one_is_stored(store: Any, conversation: Any, stored: Any) -> None:
    async def run() -> None:
        async for _ in chat.run(await Turn.begin(store.session(conversation), 0, LONGEST[0])):
            pass

    outcomes = await asyncio.gather(*(run() for _ in range(4)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), ConflictError}
    assert outcomes.count(None) == 1
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


async def test_a_run_that_was_cut_off_adds_nothing_once_another_has_finished_the_turn(
    store: Any, conversation: Any, stored: Any
) -> None:
    late = await Turn.begin(store.session(conversation), 0, LONGEST[0])
    await chat.answer(store, says(conversation, 0, LONGEST[0]))
    with pytest.raises(ConflictError):
        async for _ in chat.run(late):
            pass
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_turn_whose_client_left_is_finished_when_it_comes_back(
    store: Any, conversation: Any, stored: Any, steps: int
) -> None:
    answering = asyncio.create_task(chat.answer(store, says(conversation, 0, LONGEST[0])))
    for _ in range(steps):  # of the event loop: wherever the run is then
        await asyncio.sleep(0)
    answering.cancel()
    answer = None
    while answer is None:
        try:
            answer = await chat.answer(store, says(conversation, 0, LONGEST[0]))
        except ConflictError:  # what the cancelled run was about to add came through
            continue
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


@pytest.mark.parametrize(("position", "text"), [(0, "something else"), (1, LONGEST[0]), (99, LONGEST[0])])
async def test_a_turn_that_stands_elsewhere_is_refused(
    store: Any, conversation: Any, stored: Any, position: int, text: str
) -> None:
    await chat.answer(store, says(conversation, 0, LONGEST[0]))
    before = await stored()
    with pytest.raises(PositionError) as refusal:
        await chat.answer(store, says(conversation, position, text))
    assert refusal.value.position == len(before)
    assert await stored() == before
