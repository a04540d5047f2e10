"""What the Sentinels announce: the steps of a failover, the moment that they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis import exceptions as redis_errors
from redis.asyncio import Redis

__all__ = ["STEPS", "follow"]

# In this order. The first comes one turn of the Sentinel's timer (50 to 100 ms) before the chosen replica is told: a
# primary that is alive loses what it still takes after that.
STEPS = (
    "+failover-state-send-slaveof-noone",
    "+failover-state-wait-promotion",
    "+promoted-slave",
    "+failover-state-reconf-slaves",
    "+switch-master",
)


async def follow(
    sentinel: Redis,
    service: str,
    on_step: Callable[[], Awaitable[None]],
    on_subscribed: Callable[[], Awaitable[None]],
    retry_seconds: float,
) -> None:
    """Listen to one Sentinel for good; a lost connection is made anew.

    Args:
        sentinel: A client of it, for this alone.
        service: Whose failovers count.
        on_step: Called at each announcement of a step.
        on_subscribed: Called when the listening begins, and begins again: something may have been announced before.
        retry_seconds: The pause after a failure: it is down, or its user may not subscribe.
    """
    # A listener waits for hours: its connection has no response timeout. A user's client may have been told to decode.
    sentinel.connection_pool.connection_kwargs.update(
        socket_timeout=None, socket_keepalive=True, decode_responses=False
    )
    try:
        while True:
            try:
                async with sentinel.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(*STEPS)
                    await on_subscribed()
                    async for message in subscription.listen():
                        if service in bytes(message["data"]).decode(errors="replace").split():
                            await on_step()
            except (redis_errors.RedisError, OSError, asyncio.TimeoutError):
                await asyncio.sleep(retry_seconds)
    finally:
        await sentinel.aclose()
