"""Turns of a session run one after the other: what waits for one, and what may take its place."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agents_redis_ha import (
    DeadlineExceededError,
    RedisHASession,
    TurnBusyError,
    TurnCancelledError,
    TurnLostError,
    ha_session,
    ha_turn,
    lab,
)
from tests.support.history import History, Workers, message, texts
from tests.support.turns import CALL, OUTPUT, abandon, elsewhere, run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def test_turns_do_not_interleave_and_run_in_the_order_of_arrival(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    tasks = []
    async with ha_turn(session, "first") as turn:
        for i in range(5):
            tasks.append(elsewhere(run(session, f"t{i}", str(i))))
            await queued(servers, session, i + 1)
        turn.answer()
    await asyncio.gather(*tasks)
    assert await session.get_items() == [item for i in range(5) for item in whole(str(i))]


async def queued(servers: lab.Lab, session: RedisHASession, number: int) -> None:
    """Wait until so many turns are in the queue."""
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))

    def waits() -> bool:
        queue: Any = client.hget(keys.turns, "queue")
        return len((queue or b"").split()) == 2 * number

    await asyncio.to_thread(lab.wait_until, waits, f"{number} turns wait", 20)


async def test_info_tells_which_turn_has_the_session_and_since_when(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    assert (await theirs.info()).turn is None
    await abandon(ours, "t1", [message("hello")])
    first = (await theirs.info()).turn
    async with ha_turn(theirs, "t1", "hello") as turn:  # as soon as the lease is over
        begun = (await ours.info()).turn
        await turn.session.add_items([CALL, OUTPUT])
        renewed = (await ours.info()).turn
        turn.answer()
    assert first is not None
    assert begun is not None
    assert renewed is not None
    assert [(each.id, each.attempt) for each in (first, begun, renewed)] == [("t1", 1), ("t1", 2), ("t1", 2)]
    assert first.held_since + timedelta(seconds=1) == first.held_until <= begun.held_since == renewed.held_since
    assert begun.held_until <= renewed.held_until
    info = await theirs.info()
    assert (info.turn, info.item_count) == (None, 2)


@standalone
async def test_one_whose_turn_runs_elsewhere_waits_for_its_result(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        repeat = elsewhere(run(theirs, "t1", if_busy="reject"))  # that is for other ids
        await asyncio.sleep(0.1)
        assert not repeat.done()
        turn.answer("ours")
    assert await repeat == "ours"


@standalone
async def test_a_turn_that_may_not_wait_is_refused(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        with pytest.raises(TurnBusyError) as caught:
            await run(session, "t2", if_busy="reject")
        assert caught.value.outcome == "not_applied"
        with pytest.raises(TurnBusyError):
            await run(session, "t2", wait_seconds=0.2)
        turn.answer()
    assert await run(session, "t2") == {"text": "hello", "attempt": 1}


@standalone
@pytest.mark.parametrize("save", ["steps", "end"])
async def test_an_interrupted_turn_leaves_what_it_had_saved(workers: Workers, save: Any) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_interrupted() -> None:
        async with ha_turn(ours, "t1", "one", save=save) as turn:
            await turn.session.add_items([message("one")])
            await turn.session.add_items([CALL, OUTPUT])
            await turn.session.add_items([CALL])  # no output: it is not saved
            await run(theirs, "t2", "two", if_busy="interrupt")
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_interrupted()
    saved = [message("one"), CALL, OUTPUT] if save == "steps" else []
    assert await theirs.get_items() == [*saved, *whole("two")]
    with pytest.raises(TurnCancelledError):
        await run(ours, "t1", "one")
    assert await ours.get_items() == [*saved, *whole("two")]


@standalone
async def test_a_turn_that_is_rolled_back_leaves_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_rolled_back() -> None:
        async with ha_turn(ours, "t1", "one") as turn:
            await turn.session.add_items([message("one")])
            await turn.session.add_items([CALL, OUTPUT])
            await run(theirs, "t2", "two", if_busy="rollback")
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_rolled_back()
    assert await theirs.get_items() == whole("two")
    with pytest.raises(TurnCancelledError):
        await run(theirs, "t1", "one")


@standalone
async def test_a_turn_that_was_cancelled_stays_so_where_the_other_one_changed_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_cancelled() -> None:
        async with ha_turn(ours, "t1", "one") as turn:
            async with ha_turn(theirs, "t2", "two", if_busy="rollback"):
                pass
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_cancelled()
    with pytest.raises(TurnCancelledError):
        await run(ours, "t1", "one")
    assert await theirs.get_items() == []


async def test_plain_changes_wait_for_a_turn(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    has_begun = asyncio.Event()

    async def append() -> None:
        await has_begun.wait()
        await theirs.add_items([message("plain")])

    appended = asyncio.create_task(append())  # not from within the turn
    async with ha_turn(ours, "t1", "hello") as turn:
        has_begun.set()
        await turn.session.add_items([message("hello")])
        await asyncio.sleep(0.1)
        assert not appended.done()
        turn.answer()
    await appended
    assert await texts(ours) == ["hello", "plain"]


@standalone
@pytest.mark.parametrize("operation", ["add_items", "pop_item", "clear_session"])
async def test_a_change_that_waits_too_long_is_refused(workers: Workers, operation: str) -> None:
    ours, theirs = await workers.make(), await workers.make(**QUICK)
    await ours.add_items([message("before")])
    async with ha_turn(ours, "t1", "hello") as turn:
        arguments = ([message("no")],) if operation == "add_items" else ()
        with pytest.raises(TurnBusyError) as caught:
            await getattr(theirs, operation)(*arguments)
        assert caught.value.outcome == "not_applied"
        turn.answer()
    assert await texts(ours) == ["before"]


@standalone
async def test_a_tool_that_writes_to_the_plain_session_of_its_turn_is_told_at_once(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(retry={"deadline_seconds": 30.0}), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TurnBusyError, match=r"turn\.session"):
            await asyncio.create_task(session.add_items([message("no")]))
        assert asyncio.get_running_loop().time() - began < 15  # not the deadline
        turn.answer()
    await session.add_items([message("behind it")])
    assert await texts(session) == ["behind it"]


@standalone
async def test_a_turn_that_gave_up_its_place_holds_nobody_up(workers: Workers, history: History) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        with pytest.raises(TurnBusyError):
            await elsewhere(run(theirs, "t2", wait_seconds=0.2))
        assert b"queue" not in await history.turns()
        with pytest.raises(TurnBusyError, match="in whose block"):
            await run(ours, "t3")
        turn.answer()
    assert (await run(theirs, "t3", if_busy="reject"))["attempt"] == 1


@standalone
async def test_a_change_of_another_task_waits_for_its_whole_deadline(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make(**QUICK)
    async with ha_turn(ours, "t1", "hello") as turn:
        # On a busy machine its last attempt may be cut off.
        with pytest.raises((TurnBusyError, DeadlineExceededError)):
            await elsewhere(theirs.add_items([message("no")]))
        turn.answer()
    assert await ours.get_items() == []


@standalone
async def test_a_turn_without_an_id_is_taken_by_no_other_call(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    ids = set()
    for _ in range(2):
        async with ha_turn(session, None) as turn:
            assert turn.input == []
            with pytest.raises(ValueError, match="not answered"):
                assert turn.result
            assert turn.idempotency_key("c1") != turn.idempotency_key("c2")
            assert turn.idempotency_key("c1") == turn.idempotency_key("c1")
            ids.add((turn.id, turn.idempotency_key("c1")))
            turn.answer()
        assert "attempt=1" in repr(turn)
    assert len(ids) == 2
