"""What Redis keeps for a session that nobody uses, beside a plain list of the same elements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import redis
from agents.extensions.memory import RedisSession
from redis.asyncio import Redis

from agents_redis_ha import HAConfig, RetryConfig, close_shared_connections, ha_session
from agents_redis_ha._storage import encode_items
from tests.benchmarks.contenders import TTL_SECONDS
from tests.benchmarks.loads import APPENDS_PER_SESSION, new_id

ITEMS = 2 * APPENDS_PER_SESSION


def idle_memory(url: str, items: list[Any]) -> dict[str, float]:
    """Return bytes that Redis keeps for 26 items stored two at a time: all keys of the session, by MEMORY USAGE.

    Returns:
        ``ours`` (idle: the remembered operation ids have expired), ``ours_busy`` (before that), ``sdk``, and ``floor``,
        a list of the very elements that our session keeps.
    """
    with redis.Redis.from_url(url) as client:
        return asyncio.run(_measure(url, items[:ITEMS], client))


async def _measure(url: str, items: list[Any], client: redis.Redis) -> dict[str, float]:
    # 1 s is the shortest retention; the default is 120 s.
    config = HAConfig.from_url(url, ttl=TTL_SECONDS, op_retention_seconds=1, retry=RetryConfig(deadline_seconds=0.5))
    ours, sdk, floor = new_id(), new_id(), new_id()
    asynchronous = Redis.from_url(url)
    sdk_session = RedisSession(sdk, redis_client=asynchronous, ttl=TTL_SECONDS)
    for index in range(0, ITEMS, 2):
        await ha_session(config, ours).add_items(items[index : index + 2])
        await sdk_session.add_items(items[index : index + 2])
        client.rpush(f"floor:{floor}", *encode_items(items[index : index + 2]))
    client.expire(f"floor:{floor}", TTL_SECONDS)
    busy = _usage(client, ours)
    await asyncio.to_thread(_wait_until, lambda: not list(client.scan_iter(f"*{ours}*:ops")))
    await close_shared_connections()
    await asynchronous.aclose()
    return {"ours_busy": busy} | {
        name: _usage(client, id_) for name, id_ in (("ours", ours), ("sdk", sdk), ("floor", floor))
    }


def _usage(client: redis.Redis, session_id: str) -> float:
    usages: list[Any] = [client.memory_usage(key, samples=0) for key in client.scan_iter(f"*{session_id}*")]
    return float(sum(usages))


def _wait_until(condition: Callable[[], bool], timeout_seconds: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the remembered operation ids did not expire")
        time.sleep(0.05)
