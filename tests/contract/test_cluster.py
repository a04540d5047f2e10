"""What is particular to a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agents_redis_ha import HAConfig, RetryConfig, SessionStore, ha_session, lab, session_keys

ITEM: Any = {"role": "user", "content": "hello"}


async def test_the_only_seed_may_be_the_node_that_dies(new_id: Callable[[], str]) -> None:
    with lab.start("cluster") as servers:
        session_id = next(i for i in iter(new_id, None) if owner(servers, i) is servers.nodes[0])
        seed = servers.nodes[0]
        config = HAConfig(topology="cluster", nodes=[seed.address], retry=RetryConfig(deadline_seconds=30))
        session = ha_session(config, session_id)
        await session.add_items([ITEM])
        await asyncio.to_thread(servers.kill, seed)
        await session.add_items([ITEM])
        assert await session.get_items() == [ITEM, ITEM]


def owner(servers: lab.Lab, session_id: str) -> lab.Node:
    return servers.primary(session_keys("agents:ha", session_id).items)


async def test_sessions_of_all_slots_are_found_from_one_seed(labs: Any, new_id: Callable[[], str]) -> None:
    servers = labs.get("cluster")
    config = HAConfig(topology="cluster", nodes=[servers.nodes[-1].address])
    ids = [new_id() for _ in range(60)]
    await asyncio.gather(*(ha_session(config, i).add_items([ITEM]) for i in ids))
    assert {owner(servers, i) for i in ids} == set(servers.primaries())
    for i in ids:
        assert await ha_session(config, i).get_items() == [ITEM]


async def test_a_cluster_that_is_far_away_is_reached(labs: Any, session_id: str) -> None:
    servers = labs.get("cluster", proxies=True)
    proxies = [node.proxy for node in servers.nodes]
    try:
        for proxy in proxies:
            proxy.delay(0.3)  # each reply: a connection takes more than the half second that a near cluster is given
        async with SessionStore(servers.config(retry=RetryConfig(deadline_seconds=60))) as store:
            session = store.session(session_id)
            await session.add_items([{"role": "user", "content": "one"}])
            assert len(await session.get_items()) == 1
    finally:
        for proxy in proxies:
            proxy.heal()
