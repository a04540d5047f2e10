"""A run that waits for an approval is suspended, and goes on once, in whichever process claims it."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest
from agents import Agent, Runner
from agents.extensions.memory import EncryptedSession
from agents.memory import SQLiteSession

from agents_redis_ha import (
    InvalidResultError,
    RedisHASession,
    Turn,
    TurnBusyError,
    TurnLostError,
    TurnNotFoundError,
    claim_turn,
    ha_session,
    ha_turn,
    lab,
    list_suspended,
    release_turn,
    run_turn,
)
from tests.support.history import History, Workers, message
from tests.support.runs import QUIET, ScriptedModel, calls, interrupted_and_resumed, says, transfer, weather

standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)
PAY = [calls("transfer", "t1", '{"amount":5}')]


def agent(*outputs: list[Any]) -> Agent[Any]:
    return Agent(name="a", model=ScriptedModel(*outputs), tools=[transfer, weather])


async def suspend(session: Any, turn_id: str = "t1", *outputs: list[Any]) -> None:
    """Run a turn until it waits for an approval."""
    done = await run_turn(agent(*(outputs or [PAY])), "pay", session=session, turn_id=turn_id, run_config=QUIET)
    assert (done.status, done.output) == ("suspended", None)


async def approve(session: Any, turn_id: str = "t1", *outputs: list[Any], **options: Any) -> Turn:
    """Claim a turn, approve what waits, and answer it."""
    runs = agent(*(outputs or [[says("done")]]))
    async with claim_turn(session, turn_id, runs, **options) as turn:
        if not turn.is_answered:
            assert turn.state is not None
            turn.state.approve(turn.state.get_interruptions()[0])
            result = await Runner.run(runs, turn.state, session=turn.session, run_config=QUIET)
            turn.answer(result.final_output)
    return turn


async def expected() -> list[Any]:
    reference = SQLiteSession("reference")
    await interrupted_and_resumed(reference)
    items: list[Any] = await reference.get_items()
    reference.close()
    return items


async def test_a_suspended_run_goes_on_and_is_stored_as_an_undisturbed_one(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await suspend(session)
    assert await session.get_items() == []
    (waiting,) = await list_suspended(session)
    assert (waiting.id, waiting.attempts) == ("t1", 1)
    turn = await approve(session)
    assert (turn.result, turn.attempt) == ("done", 2)
    assert await session.get_items() == await expected()
    assert (await session.info()).version == 1
    assert await list_suspended(session) == []
    assert (await approve(session)).result == "done"  # nothing runs


async def test_other_turns_go_ahead_meanwhile(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await suspend(ours)
    await suspend(ours, "t2", [calls("transfer", "t2", '{"amount":7}')])
    await theirs.add_items([message("plain")])
    done = await run_turn(agent([says("sunny")]), "weather?", session=theirs, turn_id="t3", run_config=QUIET)
    assert done.status == "computed"
    assert [turn.id for turn in await list_suspended(theirs)] == ["t1", "t2"]
    await approve(theirs, "t2")
    await approve(theirs)
    items: Any = await ours.get_items()
    assert [item["call_id"] for item in items if item.get("type") == "function_call"] == ["t2", "t1"]
    assert await texts_of(ours) == ["plain", "weather?", "pay", "pay"]


async def texts_of(session: RedisHASession) -> list[Any]:
    items: Any = await session.get_items()
    return [item["content"] for item in items if item.get("role") == "user"]


@standalone
async def test_a_suspended_turn_that_is_delivered_again_runs_nothing(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await suspend(session)
    done = await run_turn(agent(), "pay", session=session, turn_id="t1", run_config=QUIET)
    assert done.status == "suspended"
    async with ha_turn(session, "t1", "pay") as turn:
        assert turn.is_suspended
        with pytest.raises(ValueError, match="claim_turn"):
            assert turn.session
    assert (await approve(session)).result == "done"


@standalone
async def test_two_approvals_in_one_turn(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await suspend(session)
    runs = agent([calls("transfer", "t2", '{"amount":7}')])
    async with claim_turn(session, "t1", runs) as turn:
        assert turn.state is not None
        turn.state.approve(turn.state.get_interruptions()[0])
        result = await Runner.run(runs, turn.state, session=turn.session, run_config=QUIET)
        await turn.suspend(result.to_state())
    assert await session.get_items() == []
    assert [turn.attempts for turn in await list_suspended(session)] == [2]
    assert (await approve(session)).attempt == 3
    items: Any = await session.get_items()
    assert [item.get("type", item.get("role")) for item in items] == [
        "user", "function_call", "function_call_output", "function_call", "function_call_output", "message",
    ]  # fmt: skip


@standalone
async def test_a_turn_that_does_not_wait_is_not_claimed(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    with pytest.raises(TurnNotFoundError):
        await approve(session, "never")
    async with ha_turn(session, "t1", "hello"):
        pass
    with pytest.raises(TurnNotFoundError):
        await approve(session)


@standalone
async def test_one_claim_wins_and_the_others_are_told_at_once(workers: Workers) -> None:
    processes = [await workers.make() for _ in range(4)]
    await suspend(processes[0])
    won: list[Turn] = []

    async def claim(session: RedisHASession) -> None:
        async with claim_turn(session, "t1", agent()) as turn:
            if not turn.is_answered:
                won.append(turn)
                await asyncio.sleep(0.3)
                turn.answer("mine")

    results = await asyncio.gather(*(claim(each) for each in processes * 12), return_exceptions=True)
    assert len(won) == 1
    assert {type(each) for each in results} <= {type(None), TurnBusyError}
    assert any(isinstance(each, TurnBusyError) for each in results)


@standalone
async def test_a_claim_that_fails_or_dies_leaves_the_turn_to_the_next_one(workers: Workers) -> None:
    ours, theirs = await workers.make(retry={"deadline_seconds": 1.0}), await workers.make()
    await suspend(ours)

    async def fail() -> None:
        async with claim_turn(ours, "t1", agent()) as turn:
            await turn.session.add_items([message("not to be seen")])
            raise KeyError("what")

    with pytest.raises(KeyError):
        await fail()
    assert [turn.attempts for turn in await list_suspended(theirs)] == [2]

    async def die() -> None:
        block = claim_turn(ours, "t1", agent(), lease_seconds=1.0)
        await block.__aenter__()
        block._renewal.cancel()

    await asyncio.create_task(die())
    await asyncio.sleep(1.3)
    assert (await approve(theirs)).attempt == 4
    assert await theirs.get_items() == await expected()


@standalone
async def test_a_claim_that_is_released_can_be_made_again(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await suspend(ours)
    block = claim_turn(ours, "t1", agent([says("done")]))
    turn = await Context().run(asyncio.create_task, block.__aenter__())
    released = await release_turn(theirs)
    assert released is not None
    assert (released.id, released.attempt) == ("t1", 2)
    assert [each.id for each in await list_suspended(theirs)] == ["t1"]
    assert (await approve(theirs)).attempt == 3
    turn.answer("too late")
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == await expected()


@standalone
async def test_a_block_may_go_on_for_longer_than_a_lease_after_it_was_suspended(workers: Workers) -> None:
    ours, theirs = await workers.make(retry={"deadline_seconds": 1.0}), await workers.make()
    runs = agent(PAY)
    async with ha_turn(ours, "t1", "pay", lease_seconds=1.0) as turn:
        result = await Runner.run(runs, turn.input, session=turn.session, run_config=QUIET)
        await turn.suspend(result.to_state())
        await theirs.add_items([message("plain")])
        await asyncio.sleep(1.0)
    assert (await approve(theirs)).result == "done"


@standalone
async def test_a_state_that_is_too_large_leaves_the_turn_as_it_is(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)

    class Large:
        def to_json(self) -> Any:
            return {"x": "y" * 1_100_000}

    async with ha_turn(session, "t1", "hello") as turn:
        with pytest.raises(InvalidResultError):
            await turn.suspend(Large())  # type: ignore[arg-type]
        turn.answer("yes")
    assert turn.result == "yes"


@standalone
async def test_the_state_of_an_encrypted_session_is_encrypted(
    servers: lab.Lab, session_id: str, history: History
) -> None:
    session: Any = ha_session(servers.config(), session_id, ttl=600)
    encrypted = EncryptedSession(session_id, session, encryption_key="a-test-key")
    await suspend(encrypted, "t1", [calls("transfer", "t1", '{"amount":51423}')])
    stored = repr(await history.turns())
    assert "51423" not in stored
    assert "transfer" not in stored
    assert (await approve(encrypted)).result == "done"
    assert await encrypted.get_items() != []


async def test_clearing_drops_what_waits(servers: lab.Lab, session_id: str, history: History) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await suspend(session)
    await session.clear_session()
    assert await list_suspended(session) == []
    assert "transfer" not in repr(await history.turns())
    with pytest.raises(TurnNotFoundError):
        await approve(session)


async def test_a_draft_that_was_lost_with_a_server_is_suspended_whole(workers: Workers, history: History) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await ours.add_items([message("before")])
    runs = agent([calls("weather", "c1", '{"city":"x"}')], PAY)
    async with ha_turn(ours, "t1", "pay") as turn:
        await history.save()
        result = await Runner.run(runs, "pay", session=turn.session, run_config=QUIET)
        await history.lose()
        await turn.suspend(result.to_state())
    await approve(theirs)
    items: Any = await theirs.get_items()
    assert [item.get("type", item.get("role")) for item in items] == [
        "user", "user", "function_call", "function_call_output", "function_call", "function_call_output", "message",
    ]  # fmt: skip


@standalone
async def test_a_claimed_turn_that_runs_is_waited_for_and_waits_for_no_claim(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await suspend(ours)
    runs = agent([says("done")])
    async with claim_turn(ours, "t1", runs) as turn:
        assert await Context().run(asyncio.create_task, list_suspended(theirs)) == []
        again = Context().run(
            asyncio.create_task, run_turn(agent(), "pay", session=theirs, turn_id="t1", run_config=QUIET)
        )
        await asyncio.wait([again], timeout=0.2)
        assert not again.done()
        turn.answer("done")
    assert (await again).status == "repeated"


@standalone
async def test_of_a_claimed_turn_that_is_interrupted_no_open_call_is_left(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await suspend(ours)

    async def be_interrupted() -> None:
        async with claim_turn(ours, "t1", agent()):
            async with ha_turn(theirs, "t2", "two", if_busy="interrupt") as turn:
                turn.answer()
            await asyncio.sleep(60)

    with pytest.raises(TurnLostError):
        await be_interrupted()
    assert await theirs.get_items() == []
