"""The SDK's real Runner in a turn: what each kind of run leaves behind, and what a repeat of it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    OutputGuardrailTripwireTriggered,
    Runner,
    UserError,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
)
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession, SQLiteSession

from agents_redis_ha import (
    Outcome,
    RedisHASession,
    Turn,
    TurnBusyError,
    TurnLostError,
    UnconfirmedError,
    ha_session,
    ha_turn,
    lab,
    run_turn,
)
from agents_redis_ha._turns.grant import TurnGrant
from tests.support.runs import QUIET, SUMMARY, ScriptedModel, calls, compaction_client, says, weather
from tests.support.waiting import eventually

SECRET = "Zürich"  # it is in messages, calls, outputs, answers and results


@input_guardrail(run_in_parallel=False)
def refuse(*_: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


@output_guardrail
def refuse_output(*_: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


@function_tool(failure_error_function=None)
def broken() -> str:
    raise RuntimeError("broken")


@function_tool
async def slow() -> str:
    await asyncio.sleep(30)
    return "late"


def tools_then(*outputs: Any) -> ScriptedModel:
    return ScriptedModel([calls("weather", "c1", f'{{"city":"{SECRET}"}}')], *outputs)


async def answer(session: Any, model: ScriptedModel, turn_id: str = "t1", agent: Any = None, **options: Any) -> Turn:
    """Answer "weather in Zürich?" in a turn; return it."""
    agent = agent or Agent(name="a", model=model, tools=[weather, broken, slow])
    async with ha_turn(session, turn_id, f"weather in {SECRET}?", **options) as turn:
        if not turn.is_answered:
            result = await Runner.run(agent, turn.input, session=turn.session, run_config=QUIET, max_turns=3)
            turn.answer(result.final_output)
    return turn


async def streamed(session: Any, model: ScriptedModel, turn_id: str = "t1", agent: Any = None, **options: Any) -> Turn:
    agent = agent or Agent(name="a", model=model, tools=[weather, broken, slow])
    async with ha_turn(session, turn_id, f"weather in {SECRET}?", **options) as turn:
        if not turn.is_answered:
            result = Runner.run_streamed(agent, turn.input, session=turn.session, run_config=QUIET)
            async for _ in result.stream_events():
                pass
            turn.answer(result.final_output)
    return turn


async def undisturbed(model: ScriptedModel) -> list[Any]:
    """Return what the SDK's own session has after the same run."""
    session = SQLiteSession("reference")
    agent = Agent(name="a", model=model, tools=[weather])
    await Runner.run(agent, f"weather in {SECRET}?", session=session, run_config=QUIET)
    items: list[Any] = await session.get_items()
    session.close()
    return items


def plainly(session: RedisHASession) -> tuple[Any, dict[str, Any]]:
    return session, {}


def encrypted(session: RedisHASession) -> tuple[Any, dict[str, Any]]:
    wrapped: Any = session
    return EncryptedSession(session.session_id, wrapped, encryption_key="a-test-key"), {}


def encrypting(session: RedisHASession) -> tuple[Any, dict[str, Any]]:
    def wrap(inner: Any) -> Any:
        return EncryptedSession(session.session_id, inner, encryption_key="a-test-key")

    return session, {"wrap": wrap}


wrappings = pytest.mark.parametrize("wrapping", [plainly, encrypted, encrypting], ids=lambda each: each.__name__)
runs = pytest.mark.parametrize("run", [answer, streamed], ids=lambda each: each.__name__)
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def items_of(session: RedisHASession, wrapping: Any) -> list[Any]:
    """Return the conversation as its user sees it."""
    wrapped, options = wrapping(session)
    reader = options["wrap"](session) if options else wrapped
    items: list[Any] = await reader.get_items()
    return items


@runs
@wrappings
async def test_a_turn_stores_what_an_undisturbed_run_stores_and_does_not_run_again(
    servers: lab.Lab, session_id: str, run: Callable[..., Awaitable[Turn]], wrapping: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    expected = await undisturbed(tools_then([says("sunny")]))
    wrapped, options = wrapping(session)
    for _ in range(2):  # the second time, the model has nothing to say
        turn = await run(wrapped, tools_then([says("sunny")]), **options)
        assert turn.result == "sunny"
    assert await items_of(session, wrapping) == expected
    assert (await session.info()).version == 1


@wrappings
@standalone
async def test_nothing_of_an_encrypted_turn_is_stored_in_plain_text(
    servers: lab.Lab, session_id: str, wrapping: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    wrapped, options = wrapping(session)
    await answer(wrapped, tools_then([says(f"sunny in {SECRET}")]), **options)
    with pytest.raises(UserError, match="broken"):
        await answer(wrapped, tools_then([calls("broken", "c2")]), "t2", **options)  # its draft stays
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))
    stored = repr([client.lrange(keys.items, 0, -1), client.hgetall(keys.meta), client.hgetall(keys.turns)])
    shown = (
        SECRET in stored or repr(SECRET.encode())[2:-1] in stored or SECRET.encode("unicode_escape").decode() in stored
    )
    assert shown is (wrapping is plainly)
    assert "turn:t2" in stored


@wrappings
@standalone
async def test_a_resumed_run_does_not_call_a_tool_again_whose_output_was_saved(
    servers: lab.Lab, session_id: str, wrapping: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    expected = await undisturbed(tools_then([says("sunny")]))
    wrapped, options = wrapping(session)
    with pytest.raises(UserError, match="broken"):
        await answer(wrapped, tools_then([calls("broken", "c2")]), **options)
    assert await session.get_items() == []
    model = ScriptedModel([says("sunny")])
    turn = await answer(wrapped, model, **options)
    assert (turn.attempt, turn.is_resumed, turn.result) == (2, True, "sunny")
    assert [item.get("type", item.get("role")) for item in model.inputs[0]] == [
        "user", "function_call", "function_call_output",
    ]  # fmt: skip
    assert await items_of(session, wrapping) == expected


FAILURES: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "input guardrail": (
        lambda: Agent(name="a", model=ScriptedModel([says("no")]), input_guardrails=[refuse]),
        InputGuardrailTripwireTriggered,
    ),
    "output guardrail": (
        lambda: Agent(name="a", model=tools_then([says("no")]), tools=[weather], output_guardrails=[refuse_output]),
        OutputGuardrailTripwireTriggered,
    ),
    "max_turns": (
        lambda: Agent(
            name="a",
            tools=[weather],
            model=ScriptedModel(*([calls("weather", f"c{i}", '{"city":"x"}')] for i in range(9))),
        ),
        MaxTurnsExceeded,
    ),
    "model": (lambda: Agent(name="a", model=tools_then(), tools=[weather]), IndexError),
    "tool": (lambda: Agent(name="a", model=tools_then([calls("broken", "c2")]), tools=[weather, broken]), UserError),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("on_error", ["keep", "rollback"])
@standalone
async def test_a_run_that_fails_leaves_no_half_turn_behind(
    servers: lab.Lab, session_id: str, failure: str, on_error: Any
) -> None:
    make, error = FAILURES[failure]
    session = ha_session(servers.config(), session_id, ttl=600)
    with pytest.raises(error):
        await answer(session, ScriptedModel(), agent=make(), on_error=on_error)
    assert await session.get_items() == []
    outputs = [[says("sunny")]] if on_error == "keep" and failure != "input guardrail" else []
    model = ScriptedModel(*outputs) if outputs else tools_then([says("sunny")])
    turn = await answer(session, model)
    assert turn.result == "sunny"
    assert turn.attempt == (2 if on_error == "keep" else 1)
    items: Any = await session.get_items()
    called = [item["call_id"] for item in items if item.get("type") == "function_call"]
    returned = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert called == returned  # nothing is left dangling
    assert [item.get("role") for item in items if "role" in item] == ["user", "assistant"]


@standalone
@runs
@wrappings
@pytest.mark.parametrize(
    ("if_busy", "outputs", "answers"),
    [
        ("enqueue", ["weather", "wait"], ["first", "second"]),
        ("reject", ["weather", "wait"], ["first"]),
        ("interrupt", ["weather"], ["second"]),
        ("rollback", [], ["second"]),
    ],
)
async def test_a_second_message_meets_a_run(
    servers: lab.Lab, session_id: str, run: Any, wrapping: Any, if_busy: Any, outputs: list[str], answers: list[str]
) -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        began.set()
        await goes_on.wait()
        return "waited"

    model = tools_then([calls("wait", "c2")], [says("first")])
    session = ha_session(servers.config(), session_id, ttl=600)
    wrapped, options = wrapping(session)
    first = asyncio.create_task(
        run(wrapped, model, agent=Agent(name="a", model=model, tools=[weather, wait]), **options)
    )
    await began.wait()
    second = asyncio.create_task(run(wrapped, ScriptedModel([says("second")]), "t2", if_busy=if_busy, **options))
    await asyncio.wait([second], timeout=0.2 if if_busy == "enqueue" else 30)
    goes_on.set()
    ends = [type(end) for end in await asyncio.gather(first, second, return_exceptions=True)]
    assert ends == [
        Turn if "first" in answers else TurnLostError,
        Turn if "second" in answers else TurnBusyError,
    ]
    items = await items_of(session, wrapping)
    called = {item["call_id"]: item["name"] for item in items if item.get("type") == "function_call"}
    assert [called[item["call_id"]] for item in items if item.get("type") == "function_call_output"] == outputs
    assert len(called) == len(outputs)  # nothing is left dangling
    assert [item["content"][0]["text"] for item in items if item.get("role") == "assistant"] == answers
    kinds = [item.get("role") or item["type"] for item in items]
    assert kinds[-2:] == (["user", "assistant"] if "second" in answers else ["function_call_output", "assistant"])


@standalone
@wrappings
@pytest.mark.parametrize("fails", ["the model", "the model after a round", "a save"])
async def test_a_run_that_failed_can_be_repeated_in_its_block(
    servers: lab.Lab, session_id: str, wrapping: Any, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = TurnGrant.save

    async def save_and_fail(grant: TurnGrant, draft: Any) -> None:
        monkeypatch.setattr(TurnGrant, "save", saved)
        await saved(grant, draft)
        raise UnconfirmedError("stored", operation="turn_save", topology="standalone", outcome=Outcome.APPLIED)

    if fails == "a save":
        monkeypatch.setattr(TurnGrant, "save", save_and_fail)
    expected = await undisturbed(tools_then([says("sunny")]))
    session = ha_session(servers.config(), session_id, ttl=600)
    wrapped, options = wrapping(session)
    models = {
        "the model": [ScriptedModel(), tools_then([says("sunny")])],
        "the model after a round": [tools_then(), ScriptedModel([says("sunny")])],
        "a save": [tools_then(), ScriptedModel([says("sunny")])],
    }[fails]
    async with ha_turn(wrapped, "t1", f"weather in {SECRET}?", **options) as turn:
        for model in models:
            with contextlib.suppress(IndexError, UnconfirmedError):  # the model has no answer left
                agent = Agent(name="a", model=model, tools=[weather])
                result = await Runner.run(agent, turn.input, session=turn.session, run_config=QUIET)
                turn.answer(result.final_output)
    assert turn.result == "sunny"
    assert await items_of(session, wrapping) == expected


@standalone
@pytest.mark.parametrize(("limit", "before"), [(0, 0), (2, 0), (3, 0), (4, 1), (None, 2)])
@pytest.mark.parametrize("resumed", [False, True])
async def test_a_run_that_is_repeated_in_its_block_sees_all_of_its_turn_whatever_the_limit(
    servers: lab.Lab, session_id: str, limit: int | None, before: int, resumed: bool
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600, session_settings={"limit": limit})
    await session.add_items([{"role": "user", "content": "old"}, {"role": "assistant", "content": "old"}])
    if resumed:
        with pytest.raises(IndexError):
            await answer(session, tools_then())
    models = [ScriptedModel() if resumed else tools_then(), ScriptedModel([says("sunny")])]
    async with ha_turn(session, "t1", f"weather in {SECRET}?") as turn:
        for model in models:
            with contextlib.suppress(IndexError):  # the model has no answer left
                agent = Agent(name="a", model=model, tools=[weather])
                await Runner.run(agent, turn.input, session=turn.session, run_config=QUIET)
    seen = [item.get("type", item.get("role")) for item in models[1].inputs[0]]
    assert seen == [*["user", "assistant"][2 - before :], "user", "function_call", "function_call_output"]


@standalone
async def test_the_message_is_given_to_the_runner_until_the_draft_has_it(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    message: Any = {"role": "user", "content": "hello"}
    context: Any = {"role": "system", "content": "be kind"}
    async with ha_turn(session, "t1", "hello") as turn:
        await turn.session.add_items([context])
        assert turn.input == "hello"
        await turn.session.add_items([message])
        assert turn.input == []
        assert await turn.session.pop_item() == message  # as the Runner does before it tries again
        assert turn.input == "hello"
        await turn.session.add_items([message])
        await turn.session.clear_session()
        assert turn.input == "hello"


@standalone
async def test_a_cancelled_run_is_resumed(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    model = tools_then([calls("slow", "c2")])
    task = asyncio.create_task(answer(session, model))
    await eventually(lambda: len(model.inputs) == 2, "the second tool is called")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.get_items() == []
    turn = await answer(session, ScriptedModel([says("sunny")]))
    assert (turn.attempt, turn.is_resumed) == (2, True)
    assert await session.get_items() == await undisturbed(tools_then([says("sunny")]))


@standalone
async def test_a_handoff_within_a_turn(servers: lab.Lab, session_id: str) -> None:
    def agent() -> Agent[Any]:
        model = ScriptedModel([calls("transfer_to_expert", "h1")], [says("expert-here")])
        return Agent(name="front", model=model, handoffs=[handoff(Agent(name="expert", model=model))])

    reference = SQLiteSession("reference")
    await Runner.run(agent(), f"weather in {SECRET}?", session=reference, run_config=QUIET)
    session = ha_session(servers.config(), session_id, ttl=600)
    assert (await answer(session, ScriptedModel(), agent=agent())).result == "expert-here"
    assert await session.get_items() == await reference.get_items()
    reference.close()


@standalone
async def test_run_turn_is_the_same_in_one_call(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    agent = Agent(name="a", model=tools_then([says("sunny")]), tools=[weather])
    first, second = [
        await run_turn(agent, "weather?", session=session, turn_id="t1", run_config=QUIET) for _ in range(2)
    ]
    assert (first.output, first.status, second.output, second.status) == ("sunny", "computed", "sunny", "repeated")
    assert first.run is not None
    assert second.run is None


@standalone
async def test_compaction_around_the_runs_session_is_published_with_the_turn(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await answer(session, tools_then([says("sunny")]), "t0")
    client = compaction_client([SUMMARY])

    def wrap(inner: Any) -> Any:
        return OpenAIResponsesCompactionSession(
            session_id, inner, client=client, model="gpt-4.1", compaction_mode="input",
            should_trigger_compaction=lambda context: False,
        )  # fmt: skip

    async with ha_turn(session, "t1", "again", wrap=wrap) as turn:
        agent = Agent(name="a", model=ScriptedModel([says("again")]))
        result = await Runner.run(agent, turn.input, session=turn.session, run_config=QUIET)
        staged: Any = turn.session
        await staged.run_compaction({"force": True})
        assert len(await session.get_items()) == 4  # the other turn's alone
        turn.answer(result.final_output)
    assert len(client.requests[0]["input"]) == 6
    assert await session.get_items() == [SUMMARY]
    assert (await session.info()).version == 2
