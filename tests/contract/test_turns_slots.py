"""A turn is stored once and whole while the slot of its session moves to another node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import OutcomeLostError, RedisHASession, ha_session, ha_turn, lab, session_keys
from tests.support.history import message
from tests.support.turns import CALL, OUTPUT

pytestmark = pytest.mark.parametrize("topology", ["cluster"], indirect=True)


async def run(session: RedisHASession, turn_id: str) -> Any:
    async with ha_turn(session, turn_id, turn_id) as turn:
        if not turn.is_answered:
            await turn.session.add_items([message(turn_id)])
            await turn.session.add_items([CALL, OUTPUT])  # saved: the server is asked here, too
            turn.answer(turn_id)
    return turn.result


def whole(*turns: str) -> list[Any]:
    return [item for turn in turns for item in (message(turn), CALL, OUTPUT)]


@pytest.mark.parametrize("before", [[], ["t1"]], ids=["new", "with-a-turn"])
@pytest.mark.parametrize("moved", range(5))
async def test_a_turn_waits_for_the_keys_of_its_session_and_no_longer(
    servers: lab.Lab, session_id: str, before: list[str], moved: int
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    for each in before:
        await run(session, each)
    move = await asyncio.to_thread(servers.begin_slot_move, session_keys("agents:ha", session_id).slot)
    await asyncio.to_thread(move.migrate_keys, moved)
    turn = asyncio.create_task(run(session, "t2"))
    try:
        if await asyncio.to_thread(move.keys_left):
            await asyncio.wait([turn], timeout=0.2)
            await asyncio.to_thread(move.migrate_keys)
        assert await turn == "t2"  # the slot has not moved yet
    finally:
        await asyncio.to_thread(move.finish)
    assert await session.get_items() == whole(*before, "t2")
    assert await run(session, "t2") == "t2"
    assert (await session.info()).version == len(before) + 1


async def test_a_turn_whose_slot_moves_under_it_is_published_once(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "t1") as turn:
        move = await asyncio.to_thread(servers.begin_slot_move, session_keys("agents:ha", session_id).slot)
        await asyncio.to_thread(move.migrate_keys)
        await turn.session.add_items([message("t1")])
        await turn.session.add_items([CALL, OUTPUT])
        turn.answer("t1")
    await asyncio.to_thread(move.finish)
    assert await session.get_items() == whole("t1")
    assert await run(session, "t1") == "t1"


async def test_turns_of_a_moving_slot_are_whole_and_in_order(servers: lab.Lab, session_id: str) -> None:
    config, stop = servers.config(), asyncio.Event()
    done: list[list[str]] = [[] for _ in range(4)]

    async def work(worker: int) -> None:
        session = ha_session(config, session_id)
        while not stop.is_set():
            name = f"{worker}/{len(done[worker])}"
            assert await run(session, name) == name
            done[worker].append(name)

    workers = [asyncio.create_task(work(each)) for each in range(len(done))]
    for _ in range(4):
        await asyncio.to_thread(servers.move_slot, session_keys("agents:ha", session_id).slot)
    stop.set()
    await asyncio.gather(*workers)
    items: list[Any] = list(await ha_session(config, session_id).get_items())
    names = [item["content"] for item in items[::3]]
    assert items == whole(*names)
    for worker, own in enumerate(done):
        assert [name for name in names if name.startswith(f"{worker}/")] == own
    assert len(names) == sum(map(len, done)) > 0


@pytest.mark.parametrize("moved", range(5))
async def test_a_session_that_is_cleared_while_its_slot_moves_loses_its_results(
    servers: lab.Lab, session_id: str, moved: int
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await run(session, "t1")
    move = await asyncio.to_thread(servers.begin_slot_move, session_keys("agents:ha", session_id).slot)
    await asyncio.to_thread(move.migrate_keys, moved)
    clearing = asyncio.create_task(session.clear_session())
    try:
        await asyncio.wait([clearing], timeout=0.2)
        await asyncio.to_thread(move.migrate_keys)
        await clearing
    finally:
        await asyncio.to_thread(move.finish)
    async with ha_turn(session, "t1", "t1") as turn:
        assert turn.is_answered
        with pytest.raises(OutcomeLostError):
            assert turn.result
    assert await session.get_items() == []
