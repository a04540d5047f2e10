"""Type-checked, never run: what a user's type checker sees of the public API."""

from __future__ import annotations

from typing import Any, Literal

from agents import Agent, Runner
from agents.memory import Session

from agents_redis_ha import (
    HAConfig,
    Health,
    RedisHASession,
    SessionInfo,
    SessionStore,
    TLSConfig,
    create_client,
    ha_session,
    ha_turn,
    run_turn,
)


def the_session_is_one_of_the_sdk(session: RedisHASession) -> Session:
    return session


async def a_worker(agent: Agent[None]) -> None:
    async with ha_session("redis+sentinel://s1,s2,s3/mymaster", "user-123", ttl=3600) as session:
        await Runner.run(agent, "Hello", session=session)
        info: SessionInfo = await session.info()
        print(info.item_count)


async def an_owner() -> None:
    config = HAConfig(topology="cluster", nodes=["a:7000", ("b", 7000)], tls=TLSConfig(ca_file="ca.pem"))
    async with SessionStore(config) as store:
        health: Health = await store.health()
        deleted: bool = await store.delete("user-123")
        print(health.ok, deleted)
    client = create_client(config)
    await client.aclose()


async def a_turn(session: RedisHASession, agent: Agent[None], request_id: str) -> object:
    async with ha_turn(session, request_id, "Where is my order?") as turn:
        if not turn.is_answered:
            result = await Runner.run(agent, turn.input, session=turn.session)
            turn.answer(result.final_output)
    return turn.result


async def a_turn_in_one_call(session: RedisHASession, agent: Agent[None]) -> Any:
    done = await run_turn(agent, "Where is my order?", session=session, turn_id="job-17")
    status: Literal["computed", "repeated", "suspended"] = done.status
    return done.output if status != "suspended" else None
