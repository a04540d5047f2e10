"""What the loop does where a change is on the primary, and on too few others. No servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import RetryConfig
from agents_redis_ha._commands import NO_POSITION, Reply
from agents_redis_ha._connections import AttemptError, Request, ShortfallError
from agents_redis_ha._telemetry import counters
from agents_redis_ha.errors import (
    ConnectionsClosedError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    ServerRefusedError,
    UnconfirmedError,
)
from tests.support.fakes import FakeLocator, failed, reply
from tests.support.operations import (
    BUSY,
    COMMAND,
    LOST,
    NO_PERMISSION,
    PATIENT,
    QUICK,
    begin,
    executor,
    failure,
    hang,
    operation_span,
    run,
)
from tests.support.virtual_time import in_virtual_time

SHORTFALL = "within 50 ms the change was in memory on 0 of 1 replicas"


def short(value: Any = "reply", wait_seconds: float = 0.05) -> AttemptError:
    """Return the failure of a change that is on the primary alone."""
    return failed(ShortfallError(SHORTFALL, wait_seconds), sent=True, reply=reply(value))


async def waits_in_vain(request: Request) -> Any:
    """Take as long as a server does that waits for its replicas."""
    request.sent = True
    await asyncio.sleep(0.05)
    return short()


async def test_too_few_replicas_are_waited_for_anew_until_there_are_enough() -> None:
    locator, span = FakeLocator(short(), short(), "reply"), operation_span()
    before = counters()["unconfirmed"]
    assert await run(locator, span=span) == "reply"
    assert (locator.attempts, span.attempts, counters()["unconfirmed"]) == (3, 3, before)
    assert [error.cause.args for error in locator.suspected] == [(SHORTFALL,)] * 2  # another may be the primary by now


@in_virtual_time
async def test_too_few_replicas_until_the_deadline_are_an_error_that_says_what_is_there() -> None:
    locator = FakeLocator(waits_in_vain)
    before = counters()["unconfirmed"]
    error = await failure(locator, RetryConfig(deadline_seconds=0.3, max_backoff_seconds=0.02))
    assert type(error) is UnconfirmedError
    assert error.outcome is Outcome.APPLIED
    assert error.attempts == locator.attempts > 1
    assert f": {SHORTFALL}; its change is stored on the primary: do not send it again." in str(error)
    assert counters()["unconfirmed"] == before + 1


@in_virtual_time
async def test_a_wait_for_replicas_is_not_begun_where_the_deadline_would_cut_it_off() -> None:
    loop, ends = asyncio.get_running_loop(), []

    async def attempt(request: Any) -> Any:
        try:
            return await waits_in_vain(request)
        finally:
            ends.append(loop.time())

    retry = RetryConfig(deadline_seconds=0.2, initial_backoff_seconds=0.005, max_backoff_seconds=0.005)
    since = loop.time()
    error = await failure(FakeLocator(attempt), retry)
    assert type(error) is UnconfirmedError  # and no timeout, which would have known less
    assert error.outcome is Outcome.APPLIED
    assert ends[-1] - since < retry.deadline_seconds


@in_virtual_time
async def test_a_shortfall_may_have_to_do_at_the_deadline() -> None:
    locator, span = FakeLocator(short("first"), short("second"), waits_in_vain), operation_span()
    before = counters()["unconfirmed"]
    retry = RetryConfig(deadline_seconds=0.2, initial_backoff_seconds=0.001, max_backoff_seconds=0.02)
    found = await begin(locator, retry, span=span, degrade=True).run(COMMAND, NO_POSITION)
    assert isinstance(found, Reply)
    assert (found.value, found.history.node) == ("reply", "h:1")  # what the last attempt was answered
    assert counters()["unconfirmed"] == before + 1


@in_virtual_time
async def test_only_a_shortfall_may_have_to_do() -> None:
    for last in (failed(LOST, sent=True), failed(NO_PERMISSION, sent=True)):
        operation = begin(FakeLocator(short(), last), QUICK, degrade=True)
        with pytest.raises(OperationError) as caught:
            await operation.run(COMMAND, NO_POSITION)
        assert caught.value.outcome is Outcome.UNKNOWN  # it was there: another may be the primary by now


@in_virtual_time
async def test_what_cannot_be_confirmed_is_there_all_the_same() -> None:
    cause = redis_errors.ResponseError("unknown command 'WAITAOF'")
    error = await failure(FakeLocator(failed(BUSY), failed(cause, sent=True, reply=reply("there"))), PATIENT)
    assert (type(error), error.outcome, error.attempts) == (ServerRefusedError, Outcome.APPLIED, 2)


async def test_an_attempt_that_the_deadline_cuts_off_after_a_shortfall_does_not_hide_it() -> None:
    error = await failure(FakeLocator(short(wait_seconds=0.001), hang))
    assert (type(error), error.outcome) == (UnconfirmedError, Outcome.APPLIED)
    assert SHORTFALL in str(error)


async def test_closing_meanwhile_is_said_of_a_change_that_is_there() -> None:
    running = executor(FakeLocator(short()))
    running.closed = True
    with pytest.raises(ConnectionsClosedError) as caught:
        await running.begin(operation_span(), changes=True).run(COMMAND, NO_POSITION)
    assert caught.value.outcome is Outcome.APPLIED


async def test_after_a_shortfall_and_a_reply_a_change_is_no_longer_said_to_be_there() -> None:
    operation = begin(FakeLocator(short(), "reply", failed(NO_PERMISSION)))
    assert (await operation.run(COMMAND, NO_POSITION)).value == "reply"
    # Such as from another primary, which knows nothing of the change: the coordinator says so then.
    assert operation.error(OperationError, "lost").outcome is Outcome.UNKNOWN
    with pytest.raises(PermissionDeniedError) as caught:
        await operation.run(COMMAND, NO_POSITION)
    assert caught.value.outcome is Outcome.UNKNOWN
