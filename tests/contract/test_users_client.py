"""A client that the user made, whose one address leads to another server after a failover."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from agents_redis_ha import RetryConfig, SessionStore, lab

ITEM: Any = {"role": "user", "content": "hello"}


async def test_a_users_client_leaves_a_demoted_primary_behind_a_stable_name(session_id: str) -> None:
    with lab.start("standalone") as first, lab.start("standalone") as second:
        (old,), (new,) = first.nodes, second.nodes
        with lab.Proxy(old.host, old.port) as name:
            client = Redis(host=name.host, port=name.port)
            async with SessionStore(client=client, retry=RetryConfig(deadline_seconds=10)) as store:
                session = store.session(session_id)
                await asyncio.gather(*(session.add_items([ITEM]) for _ in range(10)))  # on some connections
                new.ask("REPLICAOF", old.host, old.port)
                await asyncio.to_thread(lab.wait_until, lambda: new.ask("ROLE")[3] == "connected", "a copy", 20)
                await asyncio.to_thread(lab.wait_until, lambda: new.ask("ROLE")[4] == old.ask("ROLE")[1], "all", 20)
                new.ask("REPLICAOF", "NO", "ONE")
                old.ask("REPLICAOF", new.host, new.port)  # it is up, and keeps its connections
                name.forward_to(new.host, new.port)
                await asyncio.gather(*(session.add_items([ITEM]) for _ in range(10)))
                assert await session.get_items() == [ITEM] * 20
                assert await client.ping()  # it is the user's, and stays open
            await client.aclose()
