"""A turn is answered once, however often and from wherever it is asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from fleet import chat
from fleet.chat import Answer, Message, recorded_model
from fleet.recorded import NUDGE, RecordedModel

from agents_redis_ha import TurnMismatchError
from agents_redis_ha.lab.conversations import shapes, split_turns
from tests.support.chat import LONGEST, expected


class Model:
    """Counts what the model is asked, and breaks it.

    Attributes:
        asked: How often it was asked, by the last message of the user.
        breaks_at: The call, counted from 1, that raises; None for none.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.breaks_at: int | None = None

    def ask(self, history: Any) -> None:
        items = [{"role": "user", "content": history}] if isinstance(history, str) else history
        self.asked[next(item["content"] for item in reversed(items) if item.get("role") == "user")] += 1
        if self.asked.total() == self.breaks_at:
            raise ConnectionError("the model is away")


@pytest.fixture
def model(monkeypatch: Any) -> Model:
    found, say = Model(), RecordedModel._next

    def counted(recorded: RecordedModel, history: Any) -> Any:
        found.ask(history)
        return say(recorded, history)

    monkeypatch.setattr(RecordedModel, "_next", counted)
    return found


ITEMS = expected(LONGEST[:1])
ANSWER, CALLS = ITEMS[-1]["content"][0]["text"], split_turns(ITEMS)[0].responses
"""What the turn is answered with, and how often the model is asked for that."""


def says(conversation: str, text: str = LONGEST[0], name: str = "m1") -> Message:
    return Message(conversation=conversation, id=name, text=text)


async def streamed(store: Any, message: Message) -> Answer:
    *_, answer = [piece async for piece in chat.stream(store, message)]
    assert isinstance(answer, Answer)
    return answer


async def test_every_turn_is_stored_as_it_was_recorded(store: Any, conversation: Any, stored: Any) -> None:
    for number, text in enumerate(LONGEST):
        await chat.answer(store, says(conversation, text, f"m{number}"))
    assert shapes(await stored()) == shapes(expected(LONGEST))


@pytest.mark.parametrize("again", [chat.answer, streamed])
async def test_a_turn_that_is_asked_for_again_gives_the_same_answer_and_asks_no_model(
    store: Any, conversation: Any, stored: Any, model: Model, again: Any
) -> None:
    first = await chat.answer(store, says(conversation))
    asked = model.asked.total()
    assert await again(store, says(conversation)) == first == Answer(text=ANSWER)
    await chat.answer(store, says(conversation, LONGEST[1], "m2"))
    assert await again(store, says(conversation)) == first, "also after the conversation went on"
    assert model.asked[LONGEST[0]] == asked
    assert shapes(await stored()) == shapes(expected(LONGEST[:2]))


@pytest.mark.parametrize("begin", [chat.answer, streamed])
@pytest.mark.parametrize("call", range(1, CALLS + 1))
async def test_an_interrupted_turn_is_finished_and_the_model_asked_for_the_rest_alone(
    store: Any, conversation: Any, stored: Any, model: Model, begin: Any, call: int
) -> None:
    model.breaks_at = call
    with pytest.raises(ConnectionError):
        await begin(store, says(conversation))
    assert await stored() == [], "no part of a turn is in the history"
    model.breaks_at = None
    assert await begin(store, says(conversation)) == Answer(text=ANSWER)
    assert model.asked.total() == CALLS + 1, "the broken call alone was made again"
    assert shapes(await stored()) == shapes(ITEMS)


async def test_a_turn_that_is_asked_for_while_it_runs_is_run_once(
    store: Any, conversation: Any, stored: Any, model: Model
) -> None:
    ways = (chat.answer, streamed, chat.answer, streamed)
    answers = await asyncio.gather(*(way(store, says(conversation)) for way in ways))
    assert answers == [Answer(text=ANSWER)] * 4
    assert model.asked.total() == CALLS
    assert shapes(await stored()) == shapes(ITEMS)


async def test_a_message_that_comes_while_a_turn_runs_is_answered_behind_it(
    store: Any, conversation: Any, stored: Any
) -> None:
    begun = asyncio.Event()

    async def listen() -> list[str | Answer]:
        heard = []
        async for piece in chat.stream(store, says(conversation)):
            begun.set()
            heard.append(piece)
        return heard

    listening = asyncio.create_task(listen())
    await begun.wait()
    nudge = asyncio.create_task(chat.answer(store, says(conversation, NUDGE, "m2")))
    assert (await listening)[-1] == Answer(text=ANSWER)
    assert (await nudge).text == "Goodbye."
    assert shapes(await stored()) == shapes([*ITEMS, *recorded_model().turns_of([NUDGE])[0]])


@pytest.mark.parametrize("begin", [chat.answer, streamed])
@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_turn_whose_client_left_is_finished_when_it_comes_back(
    store: Any, conversation: Any, stored: Any, steps: int, begin: Any
) -> None:
    answering = asyncio.create_task(begin(store, says(conversation)))
    for _ in range(steps):  # of the event loop: wherever the run is then
        await asyncio.sleep(0)
    answering.cancel()
    assert await begin(store, says(conversation)) == Answer(text=ANSWER)
    assert shapes(await stored()) == shapes(ITEMS)


async def test_no_function_is_called_for_a_client_that_left_its_stream(
    store: Any, conversation: Any, stored: Any, monkeypatch: Any
) -> None:
    called: Counter[str] = Counter()

    def counting(call: Any) -> Any:
        async def counted(context: Any, arguments: str) -> Any:
            called[context.tool_call_id] += 1
            return await call(context, arguments)

        return counted

    tools: list[Any] = chat.agent().tools
    for tool in tools:
        monkeypatch.setattr(tool, "on_invoke_tool", counting(tool.on_invoke_tool))

    async def leave_at_the_first_word() -> None:
        pieces = chat.stream(store, says(conversation))
        await anext(pieces)
        await pieces.aclose()

    await asyncio.create_task(leave_at_the_first_word())
    assert await streamed(store, says(conversation)) == Answer(text=ANSWER)
    assert set(called.values()) == {1}, "by the run that was left, and once more by the one that was resumed"
    assert len(called) == len(split_turns(ITEMS)[0].tool_outputs)


async def test_another_message_under_the_id_of_a_turn_is_refused(store: Any, conversation: Any, stored: Any) -> None:
    await chat.answer(store, says(conversation))
    before = await stored()
    for way in (chat.answer, streamed):
        with pytest.raises(TurnMismatchError):
            await way(store, says(conversation, "something else"))
    assert await stored() == before
