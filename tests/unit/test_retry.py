"""The one loop: how often it tries, when it stops, and what it then claims about the data. No servers."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import HAConfig, PoolConfig, RetryConfig
from agents_redis_ha._connections.failures import AttemptError, ShortfallError
from agents_redis_ha._retry import Executor
from agents_redis_ha._telemetry import Observation, counters
from agents_redis_ha.errors import (
    AuthenticationFailedError,
    ConnectionsClosedError,
    DeadlineExceededError,
    NotPrimaryError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    ServerRefusedError,
    UnconfirmedError,
    WrongTopologyError,
)
from tests.support.fakes import FakeChanges, FakeLocator, FakeRequest, failed

QUICK = RetryConfig(deadline_seconds=0.08, initial_backoff_seconds=0.001, max_backoff_seconds=0.005)
PATIENT = RetryConfig(deadline_seconds=20, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)

REFUSED = redis_errors.BusyLoadingError("loading")
LOST = redis_errors.ConnectionError("reset")
BUSY = redis_errors.ResponseError("BUSY Redis is busy")
NO_PERMISSION = redis_errors.NoPermissionError("no")


def executor(locator: FakeLocator, retry: RetryConfig = PATIENT, **fields: Any) -> Executor:
    return Executor(HAConfig(nodes=["h"], retry=retry, **fields), locator)


def observation() -> Observation:
    return Observation("append", "sentinel", "s3cr3t-id", "hashed")


async def run(locator: FakeLocator, retry: RetryConfig = PATIENT, *, changes: bool = True, seen: Any = None) -> Any:
    return await executor(locator, retry).begin(seen or observation(), changes=changes).run(FakeRequest())


async def failure(locator: FakeLocator, retry: RetryConfig = QUICK, *, changes: bool = True) -> OperationError:
    with pytest.raises(OperationError) as caught:
        await run(locator, retry, changes=changes)
    return caught.value


async def test_a_first_success_is_one_attempt_without_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "loop", None)
    locator, seen = FakeLocator("reply"), observation()
    assert await run(locator, seen=seen) == "reply"
    assert (locator.attempts, seen.attempts, seen.node) == (1, 1, "h:1")


async def test_failures_that_pass_are_repeated_until_the_reply() -> None:
    locator, seen = FakeLocator(failed(REFUSED), failed(LOST, sent=True), failed(BUSY), "reply"), observation()
    before = counters()["retries"]
    assert await run(locator, seen=seen) == "reply"
    assert (locator.attempts, seen.attempts) == (4, 4)
    assert counters()["retries"] == before + 3


async def test_the_same_request_is_sent_each_time() -> None:
    locator = FakeLocator(failed(LOST, sent=True), failed(LOST, sent=True), "reply")
    await run(locator)
    assert len(set(map(id, locator.requests))) == 1


async def test_each_attempt_starts_with_a_request_that_was_not_sent() -> None:
    found = []

    async def attempt(request: Any) -> Any:
        found.append(request.sent)
        request.sent = True
        return failed(BUSY) if len(found) < 3 else "reply"

    await run(FakeLocator(attempt))
    assert found == [False, False, False]


async def test_the_deadline_ends_it_with_the_last_reason_and_the_number_of_attempts() -> None:
    locator = FakeLocator(failed(REFUSED, node="h:7"))
    error = await failure(locator)
    assert type(error) is DeadlineExceededError
    assert error.attempts == locator.attempts > 1
    assert (error.operation, error.topology, error.node) == ("append", "sentinel", "h:7")
    assert "BusyLoadingError: loading" in str(error)
    assert error.__cause__ is REFUSED


async def test_no_wait_is_longer_than_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock is the loop's: moved by hand, so that no real time decides.
    loop = asyncio.get_running_loop()
    now = 1000.0
    waits: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float, *args: Any) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds + 0.001
        await real_sleep(0)

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    retry = RetryConfig(deadline_seconds=5, initial_backoff_seconds=0.5, max_backoff_seconds=2)
    pool = PoolConfig(wait_timeout_seconds=0.0001, connect_timeout_seconds=0.0001, response_timeout_seconds=0.0001)
    locator = FakeLocator(failed(BUSY))
    running = executor(locator, retry, pool=pool)

    # within() puts asyncio's own timer on a last attempt; that one would need the real clock.
    async def attempt(deadline: float, request: Any) -> Any:
        return await locator.attempt(request)

    monkeypatch.setattr(running, "within", attempt)
    with pytest.raises(DeadlineExceededError):
        await running.begin(observation(), changes=True).run(FakeRequest())
    assert all(0 <= wait <= 2 for wait in waits)
    assert 4.9 < sum(waits) <= 5.0
    assert now - 1000 < 5.1


async def test_waits_are_drawn_at_random_below_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[list[float]] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float, *args: Any) -> None:
        waits[-1].append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    retry = RetryConfig(deadline_seconds=50, initial_backoff_seconds=0.1, max_backoff_seconds=0.4)
    for _ in range(60):
        waits.append([])
        await run(FakeLocator(*[failed(BUSY)] * 4, "reply"), retry)
    for index, bound in enumerate([0.1, 0.2, 0.4, 0.4]):
        column = [drawn[index] for drawn in waits]
        assert max(column) <= bound
        assert max(column) > bound / 2
        assert len(set(column)) > 30


async def test_an_attempt_that_hangs_is_cut_off_at_the_deadline() -> None:
    async def hang(request: Any) -> Any:
        request.sent = True
        await asyncio.sleep(60)

    async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else _nothing():
        error = await failure(FakeLocator(hang))
    assert type(error) is DeadlineExceededError
    assert error.outcome is Outcome.UNKNOWN
    assert "cut off by the deadline" in str(error)


class _nothing:  # noqa: N801 (stands in for asyncio.timeout on Python 3.10; pytest-timeout is behind it)
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: Any) -> None: ...


async def test_an_attempt_that_hangs_before_it_is_sent_is_not_applied() -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    assert (await failure(FakeLocator(hang))).outcome is Outcome.NOT_APPLIED


async def test_the_deadline_holds_also_where_an_attempts_own_timeouts_do_not() -> None:
    async def hang(request: Any) -> Any:  # such as a user's client with socket_timeout=None
        await asyncio.sleep(60)

    pool = PoolConfig(wait_timeout_seconds=0.01, connect_timeout_seconds=0.01, response_timeout_seconds=0.01)
    running = executor(FakeLocator(hang), QUICK, pool=pool)
    with pytest.raises(DeadlineExceededError):
        await asyncio.wait_for(running.begin(observation(), changes=True).run(FakeRequest()), 0.5)


async def test_nothing_is_sent_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, now = asyncio.get_running_loop(), 1000.0
    sent: list[float] = []
    monkeypatch.setattr(loop, "time", lambda: now)

    class Waits(FakeChanges):
        async def wait_for_change(self, seconds: float, since: int) -> None:
            nonlocal now
            now += seconds

    async def refuse(request: Any) -> Any:
        nonlocal now
        sent.append(now)
        now += 0.001
        return failed(BUSY)

    for _ in range(20):
        since = now
        locator = FakeLocator(refuse)
        locator.watch = Waits()
        await failure(locator)
        assert len(sent) > 1
        assert max(sent) < since + QUICK.deadline_seconds
        sent.clear()


@pytest.mark.parametrize(
    ("attempts", "outcome"),
    [
        ([failed(LOST, sent=False)], Outcome.NOT_APPLIED),
        ([failed(REFUSED, sent=True)], Outcome.NOT_APPLIED),
        ([failed(BUSY, sent=True)], Outcome.NOT_APPLIED),
        ([failed(LOST, sent=True)], Outcome.UNKNOWN),
        ([failed(redis_errors.TimeoutError("t"), sent=True), failed(BUSY, sent=True)], Outcome.UNKNOWN),
        ([failed(BUSY), failed(LOST, sent=True), failed(REFUSED)], Outcome.UNKNOWN),
        ([failed(LOST, sent=True), failed(NO_PERMISSION, sent=True)], Outcome.UNKNOWN),
        ([failed(BUSY), failed(NO_PERMISSION, sent=True)], Outcome.NOT_APPLIED),
        ([failed(redis_errors.DataError("x"), sent=True)], Outcome.NOT_APPLIED),
        ([failed(RuntimeError("odd"), sent=True)], Outcome.UNKNOWN),
        ([failed(RuntimeError("odd"), sent=False)], Outcome.NOT_APPLIED),
    ],
)
async def test_the_outcome_is_unknown_as_soon_as_one_attempt_may_have_been_applied(
    attempts: list[Any], outcome: Outcome
) -> None:
    assert (await failure(FakeLocator(*attempts))).outcome is outcome
    assert (await failure(FakeLocator(*attempts), changes=False)).outcome is Outcome.NOT_APPLIED  # a read


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (redis_errors.AuthenticationError("invalid username-password pair"), AuthenticationFailedError),
        (NO_PERMISSION, PermissionDeniedError),
        (redis_errors.ResponseError("unknown command"), ServerRefusedError),
        (redis_errors.DataError("bad"), ServerRefusedError),
        (ValueError("a bug"), ServerRefusedError),
    ],
)
async def test_what_waiting_cannot_help_is_raised_at_once(cause: Exception, kind: type[OperationError]) -> None:
    locator = FakeLocator(failed(cause, sent=True))
    error = await failure(locator, PATIENT)
    assert type(error) is kind
    assert (locator.attempts, error.attempts, locator.suspected) == (1, 1, [])
    assert error.__cause__ is cause


async def test_a_lasting_error_after_others_counts_them_all() -> None:
    locator = FakeLocator(failed(BUSY), failed(LOST), failed(NO_PERMISSION))
    error = await failure(locator, PATIENT)
    assert (type(error), error.attempts, locator.attempts) == (PermissionDeniedError, 3, 3)


@pytest.mark.parametrize("kind", [NotPrimaryError, WrongTopologyError])
async def test_what_the_topology_knows_to_last_is_raised_at_once(kind: type[OperationError]) -> None:
    locator = FakeLocator(failed(redis_errors.ReadOnlyError("no"), sent=True, lasting=kind))
    error = await failure(locator, PATIENT)
    assert type(error) is kind
    assert (locator.attempts, locator.suspected) == (1, [])


async def test_the_node_is_suspected_exactly_where_the_table_says_refresh() -> None:
    suspicious = [failed(LOST), failed(REFUSED), failed(redis_errors.ReadOnlyError("x"))]
    others = [failed(BUSY), failed(redis_errors.OutOfMemoryError("x")), failed(redis_errors.TryAgainError("x"))]
    locator = FakeLocator(suspicious[0], others[0], suspicious[1], others[1], suspicious[2], others[2], "reply")
    await run(locator)
    assert locator.suspected == suspicious


async def test_what_is_no_failed_attempt_is_not_repeated() -> None:
    for error in (KeyError("a bug"), asyncio.CancelledError()):
        locator = FakeLocator(error)
        with pytest.raises(type(error)):
            await run(locator)
        assert locator.attempts == 1
        locator = FakeLocator(failed(BUSY), error)
        with pytest.raises(type(error)):
            await run(locator)
        assert locator.attempts == 2


async def test_failovers_are_counted_once_by_whichever_operation_comes_first() -> None:
    locator = FakeLocator("reply")
    running = executor(locator)
    before = counters()["failovers"]
    await running.begin(observation(), changes=True).run(FakeRequest())
    assert counters()["failovers"] == before
    locator.failovers = ["h:1", None]
    locator.replies = [failed(NO_PERMISSION)]
    with pytest.raises(PermissionDeniedError):
        await running.begin(observation(), changes=True).run(FakeRequest())
    locator.replies = ["reply"]
    await asyncio.gather(*(running.begin(observation(), changes=False).run(FakeRequest()) for _ in range(5)))
    assert counters()["failovers"] == before + 2


async def test_the_node_is_the_one_asked_last() -> None:
    error = await failure(FakeLocator(failed(BUSY, node="old:1"), failed(NO_PERMISSION, node="new:2")), PATIENT)
    assert error.node == "new:2"
    error = await failure(FakeLocator(failed(BUSY, node="old:1"), failed(NO_PERMISSION, node=None)), PATIENT)
    assert error.node == "old:1"


ECHO = "unknown command 'EVALSHA', with args beginning with: 'sha' '3' 'agents:ha:{s3cr3t-id}:items' 's3cr3t-item'"


@pytest.mark.parametrize("retry", [True, False])
async def test_what_a_server_repeats_of_the_request_reaches_neither_message_nor_traceback(retry: bool) -> None:
    cause = redis_errors.ResponseError(f"BUSY {ECHO}" if retry else ECHO)
    error = await failure(FakeLocator(failed(cause, sent=True)))
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "unknown command 'EVALSHA'" in str(error)
    assert "s3cr3t" not in f"{error} {error!r} {error.__dict__} {shown}".replace('s3cr3t-id", "hashed', "")


async def test_a_long_or_empty_reason_stays_readable() -> None:
    long = await failure(FakeLocator(failed(redis_errors.NoPermissionError("x" * 5000 + "\nsecond line"))))
    assert len(str(long)) < 1000
    assert "second line" not in str(long)
    empty = await failure(FakeLocator(failed(redis_errors.TimeoutError(""))))
    assert "TimeoutError" in str(empty)


async def test_operations_at_once_keep_their_own_attempts_and_outcomes() -> None:
    lost, refused = FakeLocator(failed(LOST, sent=True)), FakeLocator(failed(BUSY))
    errors = await asyncio.gather(failure(lost), failure(refused), failure(lost, changes=False))
    assert [error.outcome for error in errors] == [Outcome.UNKNOWN, Outcome.NOT_APPLIED, Outcome.NOT_APPLIED]


SHORTFALL = "within 50 ms the change was in memory on 0 of 1 replicas"


def short(reply: Any = "reply", wait_seconds: float = 0.05) -> AttemptError:
    """Return the failure of a change that is on the primary alone."""
    return failed(ShortfallError(SHORTFALL, reply, wait_seconds), sent=True, applied=True)


async def waits_in_vain(request: Any) -> Any:
    """Take as long as a server does that waits for its replicas."""
    request.sent = True
    await asyncio.sleep(0.05)
    return short()


async def test_too_few_replicas_are_waited_for_anew_until_there_are_enough() -> None:
    locator, seen = FakeLocator(short(), short(), "reply"), observation()
    before = counters()["unconfirmed"]
    assert await run(locator, seen=seen) == "reply"
    assert (locator.attempts, seen.attempts, counters()["unconfirmed"]) == (3, 3, before)
    assert [error.cause.args for error in locator.suspected] == [(SHORTFALL,)] * 2  # another may be the primary by now


async def test_too_few_replicas_until_the_deadline_are_an_error_that_says_what_is_there() -> None:
    locator = FakeLocator(waits_in_vain)
    before = counters()["unconfirmed"]
    error = await failure(locator, RetryConfig(deadline_seconds=0.3, max_backoff_seconds=0.02))
    assert type(error) is UnconfirmedError
    assert error.outcome is Outcome.APPLIED
    assert error.attempts == locator.attempts > 1
    assert f": {SHORTFALL}; its change is stored on the primary: do not send it again." in str(error)
    assert counters()["unconfirmed"] == before + 1


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


async def test_a_shortfall_may_have_to_do_at_the_deadline() -> None:
    locator, seen = FakeLocator(short("first"), short("second"), waits_in_vain), observation()
    before = counters()["unconfirmed"]
    retry = RetryConfig(deadline_seconds=0.2, initial_backoff_seconds=0.001, max_backoff_seconds=0.02)
    operation = executor(locator, retry).begin(seen, changes=True, degrade=True)
    assert await operation.run(FakeRequest()) == "reply"  # of the last attempt
    assert counters()["unconfirmed"] == before + 1


async def test_only_a_shortfall_may_have_to_do() -> None:
    for last in (failed(LOST, sent=True), failed(NO_PERMISSION, sent=True)):
        operation = executor(FakeLocator(short(), last), QUICK).begin(observation(), changes=True, degrade=True)
        with pytest.raises(OperationError) as caught:
            await operation.run(FakeRequest())
        assert caught.value.outcome is Outcome.UNKNOWN  # it was there: another may be the primary by now


async def test_what_cannot_be_confirmed_is_there_all_the_same() -> None:
    cause = redis_errors.ResponseError("unknown command 'WAITAOF'")
    error = await failure(FakeLocator(failed(BUSY), failed(cause, sent=True, applied=True)), PATIENT)
    assert (type(error), error.outcome, error.attempts) == (ServerRefusedError, Outcome.APPLIED, 2)


async def test_an_attempt_that_the_deadline_cuts_off_after_a_shortfall_does_not_hide_it() -> None:
    async def hang(request: Any) -> Any:
        request.sent = True
        await asyncio.sleep(60)

    error = await failure(FakeLocator(short(wait_seconds=0.001), hang))
    assert (type(error), error.outcome) == (UnconfirmedError, Outcome.APPLIED)
    assert SHORTFALL in str(error)


async def test_closing_meanwhile_is_said_of_a_change_that_is_there() -> None:
    running = executor(FakeLocator(short()))
    running.closed = True
    with pytest.raises(ConnectionsClosedError) as caught:
        await running.begin(observation(), changes=True).run(FakeRequest())
    assert caught.value.outcome is Outcome.APPLIED


async def test_after_a_shortfall_and_a_reply_a_change_is_no_longer_said_to_be_there() -> None:
    operation = executor(FakeLocator(short(), "reply", failed(NO_PERMISSION))).begin(observation(), changes=True)
    assert await operation.run(FakeRequest()) == "reply"
    # Such as from another primary, which knows nothing of the change: the keeper says so then.
    assert operation.error(OperationError, "lost").outcome is Outcome.UNKNOWN
    with pytest.raises(PermissionDeniedError) as caught:
        await operation.run(FakeRequest())
    assert caught.value.outcome is Outcome.UNKNOWN


async def test_an_operation_of_several_requests_has_one_deadline() -> None:
    loop = asyncio.get_running_loop()

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.05)
        return "reply"

    operation = executor(FakeLocator(slow), RetryConfig(deadline_seconds=0.12)).begin(observation(), changes=True)
    since = loop.time()
    assert [await operation.run(FakeRequest()) for _ in range(2)] == ["reply"] * 2
    with pytest.raises(DeadlineExceededError):
        await operation.run(FakeRequest())
    assert 0.1 < loop.time() - since < 0.3
