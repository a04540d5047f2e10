"""Sessions over scripted replies, for what spans and metrics say of them."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from agents_redis_ha import DurabilityConfig, HAConfig, RetryConfig
from agents_redis_ha._connections import ShortfallError
from agents_redis_ha._recovery import RecoveryCoordinator
from agents_redis_ha._retry import Executor
from agents_redis_ha._sessions.session import RedisHASession
from agents_redis_ha._telemetry import OperationSpan
from tests.support.fakes import FakeLocator, FakeServer, described, failed, reply

ID = "s3cr3t-session-id"
HASHED = hashlib.sha256(ID.encode()).hexdigest()[:16]
SERVER = {"server.address": "h", "server.port": 1}
"""The attributes of the node that answers."""

APPLIED, REPEAT = [1, 5, b""], [0, 5, b""]
SHORTFALL = "within 500 ms the change was in memory on 0 of 1 replicas"
RETRY = RetryConfig(deadline_seconds=5, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)


def session(*replies: Any, locator: FakeLocator | None = None, **fields: Any) -> RedisHASession:
    """Return a session whose attempts get the next of these replies, or those of a locator."""
    config = HAConfig(**{"nodes": ["h"], "retry": RETRY, **fields})
    coordinator = RecoveryCoordinator(config, Executor(config, locator or FakeLocator(*replies)))
    return RedisHASession(config, ID, lambda: coordinator)


def operation(name: str, *, topology: Any = "sentinel", show: Any = "hashed", **more: Any) -> OperationSpan:
    """Return the span of an operation that no session makes."""
    return OperationSpan(name, topology, ID, show, **more)


async def unconfirmed() -> None:
    """Make a change that no replica confirms and that counts all the same."""
    retry = RetryConfig(deadline_seconds=0.6, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)
    durability = DurabilityConfig(replicas=1, timeout_seconds=0.5, on_shortfall="degrade")

    async def attempt(request: Any) -> Any:
        await asyncio.sleep(0.1)
        return failed(ShortfallError(SHORTFALL, 0.5), sent=True, reply=reply(APPLIED))

    await session(attempt, retry=retry, durability=durability).add_items([{"a": 1}])


def granted(attempt: int = 1, *pieces: bytes, taken_from: bytes = b"") -> list[Any]:
    """Return the reply to a turn that gets the session; see turn_begin.lua."""
    return [1, attempt, 0, list(pieces), b"", taken_from, described(), 0, []]


async def published(request: Any) -> list[Any]:
    """Return the reply to a turn that is published; see turn_finish.lua."""
    return [1, 1, b"0" * 12, request.command.published.token]


def taking_turns(*, trace_session_id: str = "hashed", **replies: Any) -> RedisHASession:
    """Return a session on a server that grants and publishes turns, where its scripts have no other replies."""
    done = [1, 0, b""]
    scripts = {"turn_begin": [granted()], "turn_finish": [published], "turn_save": [done], "turn_end": [done]}
    return session(locator=FakeServer(**{**scripts, **replies}), trace_session_id=trace_session_id)
