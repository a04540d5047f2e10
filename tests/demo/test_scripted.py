"""The scripted agent, run by the SDK's own Runner on an in-memory session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from agents import SQLiteSession, TResponseInputItem

from agents_redis_ha.demo.scripted import RunWatch, TurnRun, run_turn
from agents_redis_ha.lab.conversations import Conversation, load_conversations, mark_attempt, shapes

PACKAGED = load_conversations(None, 8)


@pytest.fixture
def memory() -> Iterator[SQLiteSession]:
    session = SQLiteSession("conversation")
    yield session
    session.close()


async def play(conversation: Conversation, number: int, session: SQLiteSession, attempt: int = 1) -> bool | None:
    run = TurnRun(conversation, number, attempt)
    watch = RunWatch(run)
    await run_turn(run, session, watch)
    return watch.right


@pytest.mark.parametrize("conversation", PACKAGED, ids=lambda one: one.conversation_id)
async def test_an_undisturbed_run_stores_exactly_what_was_recorded(
    conversation: Conversation, memory: SQLiteSession
) -> None:
    for number in range(len(conversation.turns)):
        assert await play(conversation, number, memory), f"turn {number} was given a wrong history"
    assert await memory.get_items() == conversation.items  # to the letter, ids and all


@pytest.mark.parametrize("damage", ["missing", "doubled", "swapped", "foreign"])
async def test_a_wrong_history_is_noticed(damage: str, memory: SQLiteSession) -> None:
    conversation = PACKAGED[0]
    history = conversation.items_before(2)
    damages: dict[str, Callable[[], object]] = {
        "missing": lambda: history.pop(3),
        "doubled": lambda: history.insert(3, history[2]),
        "swapped": lambda: history.insert(1, history.pop(2)),
        "foreign": lambda: history.append({"role": "user", "content": "?"}),
    }
    damages[damage]()
    await memory.add_items(history)  # type: ignore[arg-type]
    assert await play(conversation, 2, memory) is False


async def test_a_turn_that_is_sent_again_gets_ids_of_its_own_and_is_otherwise_the_same(memory: SQLiteSession) -> None:
    conversation = PACKAGED[0]
    await play(conversation, 0, memory, attempt=1)
    once = await memory.get_items()
    assert await play(conversation, 0, memory, attempt=2) is False
    again = (await memory.get_items())[len(once) :]
    assert shapes(again) == shapes(once)
    assert {item.get("call_id") for item in again} & {item.get("call_id") for item in once} == {None}


@pytest.mark.parametrize("stored", [1, 3])
async def test_a_resumed_run_goes_on_behind_what_is_stored_of_its_turn(memory: SQLiteSession, stored: int) -> None:
    conversation = PACKAGED[0]
    turn = conversation.turns[0].items
    assert [item.get("type") for item in turn[:3]] == [None, "function_call", "function_call_output"]
    await memory.add_items(list(turn[:stored]))  # type: ignore[arg-type]
    run = TurnRun(conversation, 0, 2)
    watch = RunWatch(run)
    assert await run_turn(run, memory, watch, []) == turn[-1]["content"][0]["text"]
    assert (watch.right, watch.resumed) == (True, True)
    assert shapes(await memory.get_items()) == shapes(turn)


async def test_a_resumed_run_that_is_given_something_else_is_noticed(memory: SQLiteSession) -> None:
    conversation = PACKAGED[0]
    await memory.add_items(list(conversation.turns[0].items[:1]) * 2)  # type: ignore[arg-type]
    run = TurnRun(conversation, 0, 2)
    watch = RunWatch(run)
    await run_turn(run, memory, watch, [])
    assert watch.right is False


async def test_a_run_that_cannot_read_its_history_says_nothing_about_it() -> None:
    class Broken(SQLiteSession):
        async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
            raise ConnectionError("gone")

    run = TurnRun(PACKAGED[0], 0)
    watch = RunWatch(run)
    session = Broken("x")
    with pytest.raises(ConnectionError):
        await run_turn(run, session, watch)
    session.close()
    assert watch.right is None


async def test_the_models_time_is_measured(memory: SQLiteSession) -> None:
    run = TurnRun(PACKAGED[0], 0, seed=1, latency_ms=(10.0, 12.0))
    watch = RunWatch(run)
    began = asyncio.get_running_loop().time()
    await run_turn(run, memory, watch)
    assert 0.01 * PACKAGED[0].turns[0].responses <= watch.model.seconds
    assert watch.model.seconds < asyncio.get_running_loop().time() - began


def test_the_first_attempt_keeps_the_recorded_ids() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
    assert mark_attempt(item, 1) == item
    assert mark_attempt(item, 3) == {"type": "function_call", "id": "fc_1~3", "call_id": "call_1~3"}
    assert shapes([mark_attempt(item, 3)]) == shapes([item])
