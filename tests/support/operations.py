"""Operations on a scripted locator: begun, run to their reply, or to their failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import HAConfig, RepairConfig, RetryConfig
from agents_redis_ha._commands import NO_POSITION, append
from agents_redis_ha._config import ClientOptions
from agents_redis_ha._connections import Request
from agents_redis_ha._retry import Executor, Operation
from agents_redis_ha._telemetry import OperationSpan
from agents_redis_ha.errors import OperationError
from tests.support.fakes import SPEC, FakeLocator

QUICK = RetryConfig(deadline_seconds=0.08, initial_backoff_seconds=0.001, max_backoff_seconds=0.005)
PATIENT = RetryConfig(deadline_seconds=20, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)

# What an attempt may fail with: lost on its way, refused for now, refused for good.
LOST = redis_errors.ConnectionError("reset")
BUSY = redis_errors.ResponseError("BUSY Redis is busy")
NO_PERMISSION = redis_errors.NoPermissionError("no")

COMMAND = append(SPEC, [b"{}"])


def executor(locator: FakeLocator, retry: RetryConfig = PATIENT, **fields: Any) -> Executor:
    return Executor(HAConfig(nodes=["h"], retry=retry, **fields), locator)


def operation_span() -> OperationSpan:
    return OperationSpan("append", "sentinel", "s3cr3t-id", "hashed")


def begin(
    locator: FakeLocator, retry: RetryConfig = PATIENT, *, changes: bool = True, span: Any = None, degrade: bool = False
) -> Operation:
    options = ClientOptions(retry, RepairConfig(), degrade)
    return executor(locator, retry).begin(span or operation_span(), changes=changes, options=options)


async def run(locator: FakeLocator, retry: RetryConfig = PATIENT, *, changes: bool = True, span: Any = None) -> Any:
    return (await begin(locator, retry, changes=changes, span=span).run(COMMAND, NO_POSITION)).value


async def failure(locator: FakeLocator, retry: RetryConfig = QUICK, *, changes: bool = True) -> OperationError:
    with pytest.raises(OperationError) as caught:
        await run(locator, retry, changes=changes)
    return caught.value


async def hang(request: Request) -> Any:
    """Take a request and never reply, such as over a user's client with socket_timeout=None."""
    request.sent = True
    await asyncio.sleep(600)
