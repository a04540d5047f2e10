"""Operations turn to the new primary when there is one, not when a timeout ends: here all timeouts are very long."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from agents_redis_ha import HAConfig, PoolConfig, RetryConfig, SentinelConfig, ha_session, lab, session_keys

ITEM: Any = {"role": "user", "content": "hello"}
# A failover of the lab takes about two seconds. What waits for one of these takes unmistakably longer.
LONG = 30.0
SOON = 12.0
POOL = PoolConfig(response_timeout_seconds=LONG, connect_timeout_seconds=LONG, wait_timeout_seconds=LONG)
RETRY = RetryConfig(deadline_seconds=60, initial_backoff_seconds=LONG, max_backoff_seconds=LONG)


def config_of(servers: lab.Lab) -> HAConfig:
    """Return a configuration in which neither a timeout nor a backoff nor polling ends soon."""
    more = {"sentinel": SentinelConfig(poll_interval_seconds=LONG)} if servers.topology == "sentinel" else {}
    return servers.config(pool=POOL, retry=RETRY, **more)


def session_id_at(servers: lab.Lab, owner: lab.Node) -> str:
    """Return the id of a session that this node holds."""
    ids = (f"session-{number}" for number in itertools.count())
    return next(i for i in ids if servers.primary(session_keys("agents:ha", i).items) is owner)


@pytest.mark.parametrize("fault", ["kill", "stall"])
@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
async def test_operations_under_way_and_new_ones_end_soon_after_the_failover(topology: Any, fault: str) -> None:
    with await asyncio.to_thread(lab.start, topology) as servers:
        victim = servers.primary()
        session_id = session_id_at(servers, victim)
        session = ha_session(config_of(servers), session_id)
        await session.add_items([ITEM])
        await asyncio.to_thread(servers.kill if fault == "kill" else servers.stall, victim)
        # More than there are connections: some wait for a reply, some for a connection, some for a turn.
        appends = [asyncio.ensure_future(session.add_items([ITEM])) for _ in range(60)]
        done, late = await asyncio.wait(appends, timeout=SOON)
        for task in late:
            task.cancel()
        assert (len(done), len(late)) == (60, 0)
        assert [task.exception() for task in done] == [None] * 60
        assert len(await session.get_items()) == 61


async def test_a_server_that_comes_back_is_asked_at_once() -> None:
    with await asyncio.to_thread(lab.start, "standalone") as servers:
        session = ha_session(config_of(servers), "session")
        await session.add_items([ITEM])
        await asyncio.to_thread(servers.kill, servers.nodes[0])
        appends = [asyncio.ensure_future(session.add_items([ITEM])) for _ in range(60)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(servers.restart, servers.nodes[0])
        done, late = await asyncio.wait(appends, timeout=SOON)
        assert (len(done), len(late)) == (60, 0)
        assert len(await session.get_items()) == 61
