"""What the Sentinels announce: the steps of a failover, the moment that they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

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
    # A user's client may have been told to decode, to probe in a way that notices nothing, or to wait for ever.
    kwargs.update(socket_keepalive=True, decode_responses=False, health_check_interval=0)
    kwargs["socket_connect_timeout"] = kwargs.get("socket_connect_timeout") or settings.timeout_seconds
    # With one, redis-py sends by asyncio.wait_for, which before Python 3.12 may lose the cancellation that ends this.
    kwargs["socket_timeout"] = None
    try:
        while True:
            try:
                async with sentinel.pubsub() as subscription:
                    await _listen(subscription, service.encode(), on_step, on_subscribed, settings)
            except Exception:  # noqa: BLE001 (whatever it is: a Sentinel that is not heard any more is worse)
                await asyncio.sleep(settings.poll_interval_seconds)
    finally:
        await sentinel.aclose()


async def _listen(
    subscription: PubSub,
    service: bytes,
    on_step: Callable[[], Awaitable[None]],
    on_subscribed: Callable[[], Awaitable[None]],
    settings: SentinelConfig,
) -> None:
    """Listen until the connection is lost, or silent: a NAT forgets an idle flow and tells neither end."""
    probe_seconds = min(settings.poll_interval_seconds, _LONGEST_SILENCE_SECONDS)
    subscribed, asked = False, True
    async with timeout_at(asyncio.get_running_loop().time() + 3 * settings.timeout_seconds):  # with the handshake
        await subscription.subscribe(*STEPS)
    while True:
        try:
            message = await subscription.get_message(timeout=settings.timeout_seconds if asked else probe_seconds)
        except redis_errors.ResponseError:
            if not subscribed:
                raise
            asked = False  # its user may not PING: that is an answer, too
            continue
        if message is None:
            if asked:
                raise asyncio.TimeoutError("the Sentinel does not answer any more")
            await subscription.ping()
        asked = message is None
        # redis-py may connect and subscribe again by itself: only the Sentinel's confirmations tell.
        if message is not None and message["type"] == "subscribe" and message["data"] == len(STEPS):
            subscribed = True
            await on_subscribed()
        elif message is not None and message["type"] == "message" and service in _words(message["data"]):
            await on_step()


def _words(data: bytes | str) -> list[bytes]:
    return (data if isinstance(data, bytes) else data.encode()).split()
