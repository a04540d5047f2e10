"""A run that is repeated after an error, although what it had sent was stored: in a turn it is there once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from agents import Agent, Runner, RunState, function_tool
from agents.memory import SQLiteSession

from agents_redis_ha import DeadlineExceededError, Outcome, RedisHASession, claim_turn, ha_session, lab, run_turn
from agents_redis_ha._commands import load_script
from tests.support.runs import QUIET, ScriptedModel, calls, says

pytestmark = pytest.mark.parametrize("topology", ["standalone"], indirect=True)

SCRIPTS = ("append", "turn_begin", "turn_save", "turn_finish", "turn_end")
CALL, ANSWER = [calls("count", "c1")], [says("done")]


class Application:
    """An agent with one tool, and what it keeps beside the session.

    Attributes:
        runs: How often the tool ran.
    """

    def __init__(self, *outputs: list[Any], needs_approval: bool = False) -> None:
        self.runs = 0

        @function_tool(needs_approval=needs_approval)
        def count() -> str:
            self.runs += 1
            return f"{self.runs}"

        self.agent = Agent(name="a", model=ScriptedModel(*outputs), tools=[count])

    async def answer(self, session: Any) -> str:
        """Answer a message in a turn; return how that came about."""
        done = await run_turn(
            self.agent, "go", session=session, turn_id="t1", turn_options={"lease_seconds": 1.0}, run_config=QUIET
        )
        return done.status

    async def approve(self, session: Any) -> bool:
        """Claim the turn and go on with its run; return whether there was something to run."""
        async with claim_turn(session, "t1", self.agent, lease_seconds=1.0) as turn:
            if turn.is_answered:
                return False
            await self.resume(turn.state, turn.session)
            turn.answer("done")
        return True

    async def resume(self, state: Any, session: Any) -> None:
        for call in state.get_interruptions():
            state.approve(call)
        await Runner.run(self.agent, state, session=session, run_config=QUIET)


@pytest.fixture
def session(proxied: lab.Lab, session_id: str) -> RedisHASession:
    for name in SCRIPTS:
        proxied.client(proxied.primary()).script_load(load_script(name).source)
    return ha_session(proxied.config(retry={"deadline_seconds": 1.0}), session_id, ttl=600)


@pytest.fixture
def raising(proxied: lab.Lab) -> Callable[[str], AbstractContextManager[None]]:
    """What runs in the block is stored by a script, and raises nevertheless: no reply of it comes back."""

    @contextmanager
    def raise_from(script: str) -> Any:
        proxy = proxied.primary().proxy
        assert proxy is not None
        sha = load_script(script).sha
        proxy.cut_replies(lambda request: sha in request)
        with pytest.raises(DeadlineExceededError) as caught:
            yield
        assert caught.value.outcome is Outcome.UNKNOWN
        proxy.heal()

    return raise_from


async def undisturbed() -> list[Any]:
    session = SQLiteSession("undisturbed")
    await Runner.run(Application(CALL, ANSWER).agent, "go", session=session, run_config=QUIET)
    items: list[Any] = await session.get_items()
    session.close()
    return items


@pytest.mark.parametrize(
    ("script", "status"), [("turn_begin", "computed"), ("turn_save", "computed"), ("turn_finish", "repeated")]
)
async def test_a_turn_that_is_repeated_after_its_step_was_stored_and_raised_is_stored_once(
    session: RedisHASession, raising: Any, script: str, status: str
) -> None:
    application = Application(CALL, ANSWER)
    with raising(script):
        await application.answer(session)
    assert await application.answer(session) == status
    assert await session.get_items() == await undisturbed()
    assert (await session.info()).version == 1
    assert application.runs == 1


async def test_a_run_state_that_is_resumed_again_after_its_turn_was_stored_and_raised_is_resumed_once(
    session: RedisHASession, raising: Any
) -> None:
    application = Application(CALL, ANSWER, needs_approval=True)
    assert await application.answer(session) == "suspended"
    with raising("turn_finish"):
        await application.approve(session)
    assert await application.approve(session) is False
    assert await session.get_items() == await undisturbed()
    assert application.runs == 1


async def test_outside_of_a_turn_a_run_that_is_repeated_stores_its_message_again(
    session: RedisHASession, raising: Any
) -> None:
    application = Application(CALL, ANSWER)
    with raising("append"):
        await Runner.run(application.agent, "go", session=session, run_config=QUIET)
    await Runner.run(application.agent, "go", session=session, run_config=QUIET)
    items: Any = await session.get_items()
    assert [item.get("role") for item in items].count("user") == 2  # which turns are for


async def test_outside_of_a_turn_a_run_state_that_is_resumed_again_runs_its_tool_again(
    session: RedisHASession, raising: Any
) -> None:
    application = Application(CALL, ANSWER, needs_approval=True)
    result = await Runner.run(application.agent, "go", session=session, run_config=QUIET)
    kept = result.to_state().to_json()
    with raising("append"):
        await application.resume(await RunState.from_json(application.agent, kept), session)
    await application.resume(await RunState.from_json(application.agent, kept), session)
    items: Any = await session.get_items()
    assert [item["output"] for item in items if item.get("type") == "function_call_output"] == ["1", "2"]
