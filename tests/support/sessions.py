"""A session whose servers are scripted."""

from __future__ import annotations

from typing import Any

from agents_redis_ha import HAConfig, RedisHASession
from agents_redis_ha._recovery import RecoveryCoordinator
from agents_redis_ha._retry import Executor
from tests.support.fakes import FakeLocator
from tests.support.recovery import PATIENT


def config(**fields: Any) -> HAConfig:
    return HAConfig(**{"nodes": ["h"], "key_prefix": "p", "retry": PATIENT, **fields})


def coordinator(locator: FakeLocator, **fields: Any) -> RecoveryCoordinator:
    return RecoveryCoordinator(config(**fields), Executor(config(**fields), locator))


def session(locator: FakeLocator, kind: type[RedisHASession] = RedisHASession, **fields: Any) -> RedisHASession:
    """Return the session ``u`` over connections of its own."""
    own = coordinator(locator, **fields)
    return kind(config(**fields), "u", lambda: own)
