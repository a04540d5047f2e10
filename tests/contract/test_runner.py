"""The SDK's real Runner and wrappers on top: they store here what they store in the SDK's own SQLite session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from agents import Agent, ModelResponse, Runner, handoff
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession, Session, SQLiteSession

from agents_redis_ha import close_shared_connections, ha_session, lab
from tests.support.runs import (
    QUIET,
    SUMMARY,
    ScriptedModel,
    calls,
    compaction_client,
    interrupted_and_resumed,
    says,
    weather,
)


async def plain(session: Session) -> Any:
    model = ScriptedModel(
        [calls("weather", "c1", '{"city":"Zürich"}'), calls("weather", "c2", '{"city":"東京"}')],
        [says("sunny")],
        [says("bye")],
    )
    agent = Agent(name="a", model=model, tools=[weather])
    await Runner.run(agent, "weather?", session=session, run_config=QUIET)
    await Runner.run(agent, "thanks", session=session, run_config=QUIET)
    return model.inputs


async def streamed(session: Session) -> Any:
    model = ScriptedModel([calls("weather", "c1", '{"city":"Oslo"}')], [says("sunny")])
    agent = Agent(name="a", model=model, tools=[weather])
    result = Runner.run_streamed(agent, "weather?", session=session, run_config=QUIET)
    async for _ in result.stream_events():
        pass
    return model.inputs


async def handed_off(session: Session) -> Any:
    model = ScriptedModel([calls("transfer_to_expert", "h1")], [says("expert-here")], [says("still-here")])
    expert = Agent(name="expert", model=model)
    front = Agent(name="front", model=model, handoffs=[handoff(expert)])
    await Runner.run(front, "help", session=session, run_config=QUIET)
    await Runner.run(expert, "more", session=session, run_config=QUIET)
    return model.inputs


SCENARIOS: list[Callable[[Session], Awaitable[Any]]] = [plain, streamed, handed_off, interrupted_and_resumed]
scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


async def reference(scenario: Callable[[Session], Awaitable[Any]]) -> tuple[Any, list[Any]]:
    session = SQLiteSession("reference")
    inputs = await scenario(session)
    items = await session.get_items()
    session.close()
    return inputs, items


@scenarios
async def test_the_runner_stores_and_sees_what_it_does_with_the_sdks_own_session(
    servers: lab.Lab, session_id: str, scenario: Callable[[Session], Awaitable[Any]]
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    inputs = await scenario(session)
    expected_inputs, expected_items = await reference(scenario)
    assert await session.get_items() == expected_items
    assert inputs == expected_inputs


@scenarios
async def test_an_encrypted_session_works_on_top(
    servers: lab.Lab, session_id: str, scenario: Callable[[Session], Awaitable[Any]]
) -> None:
    underlying = ha_session(servers.config(), session_id, ttl=600)
    session = EncryptedSession(session_id, cast("Any", underlying), encryption_key="a-test-key", ttl=600)
    await scenario(session)
    _, expected_items = await reference(scenario)
    assert await session.get_items() == expected_items
    stored: Any = await underlying.get_items()
    assert len(stored) == len(expected_items)
    assert all(item["__enc__"] == 1 for item in stored)
    assert await session.pop_item() == expected_items[-1]


async def test_compaction_replaces_the_history_in_one_change(servers: lab.Lab, session_id: str) -> None:
    underlying = ha_session(servers.config(), session_id, ttl=600)
    client = compaction_client([SUMMARY])
    session = OpenAIResponsesCompactionSession(
        session_id, underlying, client=client, model="gpt-4.1", compaction_mode="input",
        should_trigger_compaction=lambda context: False,
    )  # fmt: skip
    await plain(session)
    before = await underlying.info()
    await session.run_compaction({"force": True})
    assert len(client.requests) == 1
    assert await underlying.get_items() == [SUMMARY]
    after = await underlying.info()
    assert (after.version, after.generation) == (before.version + 1, before.generation + 1)


async def test_automatic_compaction_gives_way_to_another_writer(servers: lab.Lab, session_id: str) -> None:
    underlying = ha_session(servers.config(), session_id, ttl=600)
    await underlying.add_items([{"role": "user", "content": str(n)} for n in range(6)])
    snapshot = await underlying._get_compaction_snapshot(4)
    assert snapshot is not None
    assert [item["content"] for item in snapshot.items] == ["2", "3", "4", "5"]  # type: ignore[typeddict-item]
    assert not snapshot.complete
    other = ha_session(servers.config(), session_id)
    await other.add_items([{"role": "user", "content": "meanwhile"}])
    assert not await snapshot.replace_suffix(1, [SUMMARY])
    assert len(await underlying.get_items()) == 7
    again = await underlying._get_compaction_snapshot(99)
    assert again is not None
    assert again.complete
    assert await again.replace_suffix(2, [SUMMARY])
    texts: list[Any] = [item.get("content") for item in await underlying.get_items()]
    assert texts == ["0", "1", SUMMARY["content"]]


async def test_compaction_prunes_the_prefix_that_may_go(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([{"role": "user", "content": str(n)} for n in range(6)])
    snapshot = await session._get_compaction_snapshot(2, prune_prefix=lambda item: cast("Any", item)["content"] in "01")
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY])
    texts: list[Any] = [item.get("content") for item in await session.get_items()]
    assert texts == ["2", "3", SUMMARY["content"]]


async def test_a_snapshot_of_corrupt_elements_is_refused(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([{"role": "user", "content": "one"}])
    key = session._operations.spec.keys.items
    servers.client(servers.primary(key)).rpush(key, b"broken")
    assert await session._get_compaction_snapshot(10) is None


async def test_the_runner_takes_back_a_turn_that_failed(servers: lab.Lab, session_id: str) -> None:
    class Failing(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            raise RuntimeError("the model is down")

    session = ha_session(servers.config(), session_id, ttl=600)
    reference_session = SQLiteSession("reference")
    for each in (session, reference_session):
        with pytest.raises(RuntimeError, match="the model is down"):
            await Runner.run(Agent(name="a", model=Failing()), "hello", session=each, run_config=QUIET)
    assert await session.get_items() == await reference_session.get_items()
    reference_session.close()


async def test_turns_of_one_conversation_on_several_workers_see_each_other(servers: lab.Lab, session_id: str) -> None:
    config = servers.config()
    for n in range(4):
        model = ScriptedModel([says(f"answer-{n}")])
        await Runner.run(
            Agent(name="a", model=model), f"question-{n}", session=ha_session(config, session_id), run_config=QUIET
        )
        assert len(model.inputs[0]) == 2 * n + 1
    await asyncio.sleep(0)
    assert len(await ha_session(config, session_id).get_items()) == 8


@pytest.mark.filterwarnings("error")
def test_run_sync_again_and_again_keeps_its_connections(proxied: lab.Lab, session_id: str) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    session = ha_session(proxied.config(), session_id)
    proxies = [node.proxy for node in proxied.nodes if node.proxy]
    before = sum(proxy.connections_total for proxy in proxies)
    made = []
    for number in range(5):
        agent = Agent(name="a", model=ScriptedModel([says(f"answer {number}")]))
        Runner.run_sync(agent, f"question {number}", session=session, run_config=QUIET)
        made.append(sum(proxy.connections_total for proxy in proxies) - before)
    # The first call may be the last of its loop, and closes what it used; the others go on with what the second made.
    assert made[0] < made[1] == made[4]
    assert len(loop.run_until_complete(session.get_items())) == 10
    loop.run_until_complete(close_shared_connections())
    loop.close()
    asyncio.set_event_loop(None)
