"""What the Sentinels announce: the steps of a failover, the moment that they are taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from .._asyncio import timeout_at
from .._config import SentinelConfig

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
# NATs and load balancers forget a flow that is idle for half a minute or more.
_LONGEST_SILENCE_SECONDS = 10.0


async def follow(
    sentinel: Redis,
    service: str,
    on_step: Callable[[], Awaitable[None]],
    on_subscribed: Callable[[], Awaitable[None]],
    settings: SentinelConfig,
) -> None:
    """Listen to one Sentinel for good; a lost connection is made anew.

    Args:
        sentinel: A client of it, for this alone.
        service: Whose failovers count.
        on_step: Called at each announcement of a step.
        on_subscribed: Called when the listening begins, and begins again: something may have been announced before.
        settings: The pause after a failure (it is down, or its user may not subscribe) is that between two polls. After
            so long a silence it is probed.
    """
    kwargs = sentinel.connection_pool.connection_kwargs
    bounds = (kwargs.get(name) or settings.timeout_seconds for name in ("socket_connect_timeout", "socket_timeout"))
    connect_seconds = sum(bounds)
    # A user's client may have been told to decode, or to probe in a way that notices nothing. The bounds are kept here:
    # with a socket_timeout redis-py sends by asyncio.wait_for, which before Python 3.12 can swallow a cancellation.
    kwargs.update(socket_timeout=None, socket_keepalive=True, decode_responses=False, health_check_interval=0)
    try:
        while True:
            try:
                async with sentinel.pubsub() as subscription:
                    heard = _messages(subscription, connect_seconds, settings)
                    async with contextlib.aclosing(heard):
                        async for message in heard:
                            if message is None:
                                await on_subscribed()
                            elif service.encode() in message.split():
                                await on_step()
            except Exception:  # noqa: BLE001 (whatever it is: a Sentinel that is not heard any more is worse)
                await asyncio.sleep(settings.poll_interval_seconds)
    finally:
        await sentinel.aclose()


async def _messages(
    subscription: PubSub, connect_seconds: float, settings: SentinelConfig
) -> AsyncGenerator[bytes | None, None]:
    """Yield what is announced, and None at each subscription, until the connection is lost or silent.

    A NAT forgets an idle flow and tells neither end: so it is probed. redis-py may connect and subscribe again by
    itself: only the Sentinel's confirmations tell.

    Args:
        subscription: A new one.
        connect_seconds: How long a connection may take to be made.
        settings: After which silence to probe, and how long to wait for the answer.
    """
    now = asyncio.get_running_loop().time
    probe_seconds = min(settings.poll_interval_seconds, _LONGEST_SILENCE_SECONDS)
    async with timeout_at(now() + connect_seconds):
        await subscription.subscribe(*STEPS)
    subscribed, asked = False, True
    while True:
        silence = settings.timeout_seconds if asked else probe_seconds
        try:
            async with timeout_at(now() + silence + connect_seconds):
                message = await subscription.get_message(timeout=silence)
                if message is None and not asked:
                    await subscription.ping()
        except redis_errors.ResponseError:
            if not subscribed:
                raise
            asked = False  # its user may not PING: that is an answer, too
            continue
        if message is None and asked:
            raise asyncio.TimeoutError("the Sentinel does not answer any more")
        asked = message is None
        if message is not None and message["type"] == "subscribe" and message["data"] == len(STEPS):
            subscribed = True
            yield None
        elif message is not None and message["type"] == "message":
            yield bytes(message["data"])
