"""An operator takes a session from the turn that has it: others go on, and the turn is stored once and whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents_redis_ha import (
    ConfigurationError,
    RedisHASession,
    Turn,
    TurnLostError,
    ha_session,
    ha_turn,
    lab,
    list_suspended,
    release_turn,
)
from agents_redis_ha._commands import Command, TurnReply, TurnStatus, begin_turn, load_script, new_operation_id, turns
from agents_redis_ha._turns.block import TurnBlock
from tests.support.history import Workers, message
from tests.support.turns import ANSWER, CALL, OUTPUT, elsewhere

standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def begin(session: RedisHASession, turn_id: str = "t1") -> tuple[TurnBlock, Turn]:
    """Begin a turn in a worker that lives, and save a round."""
    block = ha_turn(session, turn_id, "hello")
    turn = await block.__aenter__()
    await turn.session.add_items([message("hello")])
    await turn.session.add_items([CALL, OUTPUT])
    return block, turn


async def leave(block: TurnBlock, turn: Turn) -> None:
    turn.answer("ours")
    await block.__aexit__(None, None, None)


async def resume(session: RedisHASession) -> Turn:
    async with ha_turn(session, "t1", "hello") as turn:
        if not turn.is_answered:
            await turn.session.add_items([ANSWER])
            turn.answer("theirs")
    return turn


async def say(session: RedisHASession) -> None:
    async with ha_turn(session, "t2", "two") as turn:
        await turn.session.add_items([message("two")])
        turn.answer()


async def test_what_waits_goes_on_and_the_released_turn_is_resumed(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    block, turn = await elsewhere(begin(ours))
    waiting = [elsewhere(say(theirs)), elsewhere(theirs.add_items([message("plain")]))]
    before = (await theirs.info()).turn
    assert before is not None
    assert await release_turn(theirs) == before
    await asyncio.gather(*waiting)
    with pytest.raises(TurnLostError, match="released") as caught:
        await leave(block, turn)
    assert caught.value.outcome == "not_applied"
    resumed = await resume(theirs)
    assert (resumed.attempt, resumed.is_resumed, resumed.result) == (2, True, "theirs")
    items: list[Any] = await theirs.get_items()
    assert items[2:] == [message("hello"), CALL, OUTPUT, ANSWER]
    assert sorted(item["content"] for item in items[:2]) == ["plain", "two"]


@standalone
async def test_a_worker_that_answers_before_any_other_turn_is_refused_all_the_same(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    block, turn = await elsewhere(begin(ours))
    assert await release_turn(theirs, "t1") is not None
    with pytest.raises(TurnLostError):
        await leave(block, turn)
    assert await theirs.get_items() == []
    assert (await resume(theirs)).attempt == 2


@standalone
async def test_the_block_of_a_released_turn_is_cancelled_at_its_next_step(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def work() -> None:
        async with ha_turn(ours, "t1", "hello") as turn:
            await release_turn(theirs, "t1")
            await turn.session.add_items([CALL, OUTPUT])
            raise AssertionError("it went on")

    with pytest.raises(TurnLostError, match="released"):
        await elsewhere(work())


@standalone
async def test_no_other_turn_than_the_named_one_is_released(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    assert await release_turn(theirs) is None
    block, turn = await elsewhere(begin(ours))
    assert await release_turn(theirs, "t2") is None
    await leave(block, turn)
    assert await release_turn(theirs, "t1") is None
    assert (await resume(theirs)).result == "ours"


def asking(session: RedisHASession, turn_id: str, text: str) -> Command[TurnReply]:
    spec = replace(ha_turn(session, turn_id, text)._spec, token=new_operation_id())
    return begin_turn(spec, if_busy="enqueue", if_unanswered="resume", newest=0)


@standalone
async def test_a_turn_that_was_delivered_again_keeps_its_place_before_others(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_PLACE_HOLDS_MS", 60_000)  # however long the next few lines take
    ours, theirs = await workers.make(), await workers.make()
    block, turn = await elsewhere(begin(ours))
    again, other = asking(theirs, "t1", "hello"), asking(theirs, "t2", "two")
    ask = theirs._operations.execute
    assert [(await ask(each)).place for each in (again, other)] == [1, 2]
    await release_turn(theirs)
    assert (await ask(other)).status is TurnStatus.HELD
    assert (await ask(again)).status is TurnStatus.GRANTED
    with pytest.raises(TurnLostError):
        await leave(block, turn)


@standalone
async def test_a_begin_that_comes_late_behind_the_release_gets_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    block, turn = await elsewhere(begin(ours))
    await release_turn(theirs)
    late = begin_turn(block._spec, if_busy="enqueue", if_unanswered="resume", newest=0)
    assert (await theirs._operations.execute(late)).status is TurnStatus.HELD
    assert (await theirs.info()).turn is None
    with pytest.raises(TurnLostError):
        await leave(block, turn)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_turn_is_released_once_when_the_reply_is_lost(proxied: lab.Lab, session_id: str, times: int) -> None:
    for node in proxied.primaries():
        proxied.client(node).script_load(load_script("turn_end").source)
    session = ha_session(proxied.config(), session_id, ttl=600)
    block, turn = await elsewhere(begin(session))
    proxy = proxied.primary(session._operations.spec.keys.items).proxy
    assert proxy is not None
    proxy.cut_next_reply(load_script("turn_end").sha, times=times)
    released = await release_turn(session)
    assert not proxy.cuts_pending
    assert released is not None
    with pytest.raises(TurnLostError):
        await leave(block, turn)
    assert (await resume(session)).attempt == 2


async def test_what_is_no_session_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        await release_turn(object())


@standalone
async def test_a_release_that_comes_behind_the_answer_leaves_it(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    block, turn = await elsewhere(begin(ours))
    token = block._spec.token
    await leave(block, turn)
    operations = theirs._operations
    reply = await operations.execute(turns.release_turn(operations.spec, b"t1", token))
    assert reply.status is TurnStatus.LOST
    assert await list_suspended(theirs) == []
    assert (await resume(theirs)).result == "ours"
