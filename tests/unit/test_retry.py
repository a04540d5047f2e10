"""The one loop: how often it tries, when it stops, and what it then claims about the data. No servers."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import PoolConfig, RetryConfig
from agents_redis_ha._commands import NO_POSITION, LogPosition, append
from agents_redis_ha._connections import Request
from agents_redis_ha._retry import Executor
from agents_redis_ha._telemetry import counters
from agents_redis_ha.errors import (
    AuthenticationFailedError,
    ConnectionsClosedError,
    DeadlineExceededError,
    NotPrimaryError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    ServerRefusedError,
    WrongTopologyError,
)
from tests.support.fakes import SPEC, FakeLocator, FakeMonitor, failed
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

REFUSED = redis_errors.BusyLoadingError("loading")


async def test_a_first_success_is_one_attempt_without_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "loop", None)
    locator, span = FakeLocator("reply"), operation_span()
    assert await run(locator, span=span) == "reply"
    assert (locator.attempts, span.attempts, span.node) == (1, 1, "h:1")


async def test_failures_that_pass_are_repeated_until_the_reply() -> None:
    locator, span = FakeLocator(failed(REFUSED), failed(LOST, sent=True), failed(BUSY), "reply"), operation_span()
    before = counters()["retries"]
    assert await run(locator, span=span) == "reply"
    assert (locator.attempts, span.attempts) == (4, 4)
    assert counters()["retries"] == before + 3


async def test_the_same_command_is_sent_each_time() -> None:
    locator = FakeLocator(failed(LOST, sent=True), failed(LOST, sent=True), "reply")
    await run(locator)
    assert [request.command is COMMAND for request in locator.requests] == [True] * 3


async def test_the_log_position_is_read_anew_at_each_attempt() -> None:
    class Log:
        position = LogPosition(1, b"a")

    async def moves_on(request: Request) -> Any:
        Log.position = LogPosition(2, b"b")
        return failed(LOST, sent=True)

    locator = FakeLocator(moves_on, "reply")
    found = await begin(locator).run(COMMAND, Log())
    assert locator.positions == [(1, b"a"), (2, b"b")]
    assert found.position == (2, b"b")


async def test_one_operation_runs_several_commands_each_with_its_own_position() -> None:
    locator = FakeLocator("first", "second")
    operation = begin(locator)
    other = append(SPEC, [b"{}"])
    await operation.run(COMMAND, LogPosition(1, b"a"))
    await operation.run(other, LogPosition(2, b"b"))
    assert [request.command for request in locator.requests] == [COMMAND, other]
    assert locator.positions == [(1, b"a"), (2, b"b")]


async def test_each_attempt_starts_with_a_request_that_was_not_sent() -> None:
    found = []

    async def attempt(request: Any) -> Any:
        found.append(request.sent)
        request.sent = True
        return failed(BUSY) if len(found) < 3 else "reply"

    await run(FakeLocator(attempt))
    assert found == [False, False, False]


@in_virtual_time
async def test_the_deadline_ends_it_with_the_last_reason_and_the_number_of_attempts() -> None:
    locator = FakeLocator(failed(REFUSED, node="h:7"))
    error = await failure(locator)
    assert type(error) is DeadlineExceededError
    assert error.attempts == locator.attempts > 1
    assert (error.operation, error.topology, error.node) == ("append", "sentinel", "h:7")
    assert "BusyLoadingError: loading" in str(error)
    assert error.__cause__ is REFUSED


class RecordingMonitor(FakeMonitor):
    """Notes how long each wait was to be."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def wait_for_topology_change(self, seconds: float, since_epoch: int) -> None:
        self.waits.append(seconds)
        await super().wait_for_topology_change(seconds, since_epoch)


@in_virtual_time
async def test_no_wait_is_longer_than_what_is_left() -> None:
    loop = asyncio.get_running_loop()
    locator, since = FakeLocator(failed(BUSY)), loop.time()
    locator.monitor = monitor = RecordingMonitor()
    await failure(locator, RetryConfig(deadline_seconds=5, initial_backoff_seconds=0.5, max_backoff_seconds=2))
    assert all(0 <= wait <= 2 for wait in monitor.waits)
    assert 4.9 < sum(monitor.waits) <= 5.0
    assert 4.9 < loop.time() - since < 5.001


@in_virtual_time
async def test_waits_are_drawn_at_random_below_a_bound_that_doubles() -> None:
    waits: list[list[float]] = []
    retry = RetryConfig(deadline_seconds=50, initial_backoff_seconds=0.1, max_backoff_seconds=0.4)
    for _ in range(60):
        locator = FakeLocator(*[failed(BUSY)] * 4, "reply")
        locator.monitor = monitor = RecordingMonitor()
        await run(locator, retry)
        waits.append(monitor.waits)
    for index, bound in enumerate([0.1, 0.2, 0.4, 0.4]):
        column = [drawn[index] for drawn in waits]
        assert max(column) <= bound
        assert max(column) > bound / 2
        assert len(set(column)) > 30


async def test_a_wait_ends_early_where_the_topology_changes_after_the_attempt_began() -> None:
    asked: list[int] = []

    class Moves(FakeMonitor):
        async def wait_for_topology_change(self, seconds: float, since_epoch: int) -> None:
            asked.append(since_epoch)
            self.topology_epoch += 5

    locator = FakeLocator(failed(BUSY), failed(BUSY), "reply")
    locator.monitor = Moves()
    await run(locator)
    assert asked == [0, 5]  # as it was when each attempt began


async def never_send(request: Request) -> Any:
    await asyncio.sleep(600)


@in_virtual_time
async def test_an_attempt_that_hangs_is_cut_off_at_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    since = loop.time()
    error = await failure(FakeLocator(hang))
    assert type(error) is DeadlineExceededError
    assert error.outcome is Outcome.UNKNOWN
    assert "cut off by the deadline" in str(error)
    assert loop.time() - since == pytest.approx(QUICK.deadline_seconds, abs=0.001)


@in_virtual_time
async def test_an_attempt_that_hangs_before_it_is_sent_is_not_applied() -> None:
    assert (await failure(FakeLocator(never_send))).outcome is Outcome.NOT_APPLIED


@in_virtual_time
async def test_the_deadline_holds_whatever_an_attempts_own_timeouts_are() -> None:
    pool = PoolConfig(wait_timeout_seconds=0.01, connect_timeout_seconds=0.01, response_timeout_seconds=0.01)
    running, since = executor(FakeLocator(never_send), QUICK, pool=pool), asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceededError):
        await running.begin(operation_span(), changes=True).run(COMMAND, NO_POSITION)
    assert asyncio.get_running_loop().time() - since == pytest.approx(QUICK.deadline_seconds, abs=0.001)


@in_virtual_time
async def test_nothing_is_sent_after_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    sent: list[float] = []

    async def refuse(request: Request) -> Any:
        sent.append(loop.time())
        await asyncio.sleep(0.001)
        return failed(BUSY)

    for _ in range(20):
        since = loop.time()
        await failure(FakeLocator(refuse))
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
@in_virtual_time
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
@in_virtual_time
async def test_what_waiting_cannot_help_is_raised_at_once(cause: Exception, kind: type[OperationError]) -> None:
    locator = FakeLocator(failed(cause, sent=True))
    error = await failure(locator, PATIENT)
    assert type(error) is kind
    assert (locator.attempts, error.attempts, locator.suspected) == (1, 1, [])
    assert error.__cause__ is cause


async def test_a_permanent_error_after_others_counts_them_all() -> None:
    locator = FakeLocator(failed(BUSY), failed(LOST), failed(NO_PERMISSION))
    error = await failure(locator, PATIENT)
    assert (type(error), error.attempts, locator.attempts) == (PermissionDeniedError, 3, 3)


@pytest.mark.parametrize("kind", [NotPrimaryError, WrongTopologyError])
@in_virtual_time
async def test_what_the_topology_knows_to_be_permanent_is_raised_at_once(kind: type[OperationError]) -> None:
    locator = FakeLocator(failed(redis_errors.ReadOnlyError("no"), sent=True, permanent=kind))
    error = await failure(locator, PATIENT)
    assert type(error) is kind
    assert (locator.attempts, locator.suspected) == (1, [])


async def test_the_node_is_suspected_exactly_where_the_table_says_refresh_topology() -> None:
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
    await running.begin(operation_span(), changes=True).run(COMMAND, NO_POSITION)
    assert counters()["failovers"] == before
    locator.failovers = ["h:1", None]
    locator.replies = [failed(NO_PERMISSION)]
    with pytest.raises(PermissionDeniedError):
        await running.begin(operation_span(), changes=True).run(COMMAND, NO_POSITION)
    locator.replies = ["reply"]
    await asyncio.gather(*(running.begin(operation_span(), changes=False).run(COMMAND, NO_POSITION) for _ in range(5)))
    assert counters()["failovers"] == before + 2


@in_virtual_time
async def test_the_node_is_the_one_asked_last() -> None:
    error = await failure(FakeLocator(failed(BUSY, node="old:1"), failed(NO_PERMISSION, node="new:2")), PATIENT)
    assert error.node == "new:2"
    error = await failure(FakeLocator(failed(BUSY, node="old:1"), failed(NO_PERMISSION, node=None)), PATIENT)
    assert error.node == "old:1"


ECHO = "unknown command 'EVALSHA', with args beginning with: 'sha' '3' 'agents:ha:{s3cr3t-id}:items' 's3cr3t-item'"


@pytest.mark.parametrize("retry", [True, False])
@in_virtual_time
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


@in_virtual_time
async def test_operations_at_once_keep_their_own_attempts_and_outcomes() -> None:
    lost, refused = FakeLocator(failed(LOST, sent=True)), FakeLocator(failed(BUSY))
    errors = await asyncio.gather(failure(lost), failure(refused), failure(lost, changes=False))
    assert [error.outcome for error in errors] == [Outcome.UNKNOWN, Outcome.NOT_APPLIED, Outcome.NOT_APPLIED]


@in_virtual_time
async def test_an_operation_of_several_commands_has_one_deadline() -> None:
    loop = asyncio.get_running_loop()

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.05)
        return "reply"

    operation = begin(FakeLocator(slow), RetryConfig(deadline_seconds=0.12))
    since = loop.time()
    assert [(await operation.run(COMMAND, NO_POSITION)).value for _ in range(2)] == ["reply"] * 2
    with pytest.raises(DeadlineExceededError):
        await operation.run(COMMAND, NO_POSITION)
    assert loop.time() - since == pytest.approx(0.12, abs=0.001)


async def test_closing_closes_the_locator_and_ends_what_waits() -> None:
    locator = FakeLocator(failed(BUSY))
    running = executor(locator)

    class Closes(FakeMonitor):
        async def wait_for_topology_change(self, seconds: float, since_epoch: int) -> None:
            await running.aclose()

    locator.monitor = Closes()
    with pytest.raises(ConnectionsClosedError) as caught:
        await running.begin(operation_span(), changes=True).run(COMMAND, NO_POSITION)
    assert (caught.value.outcome, locator.attempts, locator.closed) == (Outcome.NOT_APPLIED, 2, 1)


async def test_the_use_of_the_connections_is_told_until_they_are_closed() -> None:
    class Node:
        use = "its use"

    locator = FakeLocator("reply")
    locator.nodes = lambda: [Node(), Node()]  # type: ignore[method-assign]
    running = executor(locator)
    assert running.pools() == {"sentinel": ["its use"] * 2}
    await running.aclose()
    assert running.pools() == {"sentinel": []}
