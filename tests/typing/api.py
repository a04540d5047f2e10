"""Type-checked, never run: what a user's type checker sees of the public API."""

from __future__ import annotations

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
