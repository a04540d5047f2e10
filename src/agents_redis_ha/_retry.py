"""The one retry loop: tenacity, jittered exponential backoff, one deadline for the whole operation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import tenacity

from . import _ambient as ambient
from ._asyncio import Alarms, Until
from ._commands import NO_POSITION, ChangeCommand, Command, EarlierAttempts, Positioned, Reply
from ._config import ClientOptions, HAConfig, Topology
from ._connections import AttemptError, Locator, Request, ShortfallError, chained, classify
from ._telemetry import FailedAttempt, OperationSpan, PoolUse, note_failovers, watch_pools
from .errors import ConnectionsClosedError, OperationError, Outcome

__all__ = ["Executor", "Operation"]

_SHORTEST_ATTEMPT_SECONDS = 0.01


class Executor:
    """Executes commands: sends each to the node that a locator names, until it succeeds, cannot, or time is over.

    Attributes:
        locator: Knows the node to ask.
        closed: Whether the connections were closed.
        alarms: The deadlines of its operations.
    """

    def __init__(self, config: HAConfig, locator: Locator) -> None:
        self.locator = locator
        self.closed = False
        self.alarms = Alarms()
        self._options = config.client_options()
        self._failovers = 0
        watch_pools(self)

    async def aclose(self) -> None:
        """Close the connections; operations under way end with an error instead of waiting for their deadline."""
        self.closed = True
        await self.locator.aclose()

    def pools(self) -> Mapping[Topology, Iterable[PoolUse]]:
        """Return the use of the connections to each node; any thread may ask."""
        nodes = [] if self.closed else self.locator.nodes()
        return {self.locator.topology: [node.use for node in nodes]}

    def begin(self, span: OperationSpan, *, changes: bool, options: ClientOptions | None = None) -> Operation:
        """Begin an operation: its deadline runs from now on.

        Args:
            span: Is told about every retry.
            changes: Whether it changes the session; a failed read has no outcome to worry about.
            options: The client's own; None means those of the configuration that the executor was made with.
        """
        return Operation(self, span, options or self._options, changes=changes)

    def loop(self, operation: Operation) -> tenacity.AsyncRetrying:
        """Return a loop that starts with the failure that the operation has met already."""
        retry = operation.options.retry
        longest = tenacity.wait_exponential(multiplier=retry.initial_backoff_seconds, max=retry.max_backoff_seconds)
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(AttemptError),
            # Half of what is left at most, so that an attempt can still follow the wait.
            wait=lambda state: min(
                ambient.uniform(0, longest(state)), max(operation.left() - operation.needs_seconds, 0) / 2
            ),
            stop=lambda _: self.closed or operation.left() < operation.needs_seconds,
            before_sleep=operation.before_sleep,
            sleep=lambda seconds: self.locator.monitor.wait_for_topology_change(seconds, operation.topology_epoch),
            retry_error_callback=operation.give_up,
        )

    def note_failovers(self) -> None:
        """Count the failovers since the last time."""
        happened = self.locator.failovers
        if len(happened) != self._failovers:
            note_failovers(self.locator.topology, happened[self._failovers :])
            self._failovers = len(happened)


class _CutOffError(asyncio.TimeoutError):
    """The deadline came while an attempt was under way."""


class Operation:
    """One operation: the commands that it takes, each sent until it succeeds, and what is known of them together.

    Attributes:
        deadline: The event loop's time at which it must be over.
        span: Is told about every retry.
        options: The client's own.
        topology_epoch: The failover monitor's when the last attempt began.
        needs_seconds: With less than this left, another attempt would be cut off before it could say anything new.
        applied: What the last attempt replied to a change that is there, and that failed all the same; else None.
    """

    def __init__(self, executor: Executor, span: OperationSpan, options: ClientOptions, *, changes: bool) -> None:
        self.span = span
        self.options = options
        self.deadline = asyncio.get_running_loop().time() + options.retry.deadline_seconds
        self.needs_seconds = _SHORTEST_ATTEMPT_SECONDS
        self.topology_epoch = 0
        self.applied: Reply | None = None
        self._executor = executor
        self._changes = changes
        self._may_have_applied = False
        self._earlier: dict[bytes, EarlierAttempts] = {}  # by the change's id
        self._request: Request
        self._first: AttemptError | None = None
        self._telling: AttemptError | None = None
        self._latest: AttemptError  # as it was, even if what came before tells more

    async def run(self, command: Command[Any], known: Positioned) -> Reply:
        """Return the reply to a command, which is sent again under the same id when it has to be.

        Args:
            command: What to send.
            known: Where the log position is read that goes along, anew for each attempt.

        Raises:
            OperationError: It failed for good; `outcome` says whether the change may be there.
        """
        self._request = Request(command, known, self.span.request_sent, self._attempts_before(command))
        self._first = self._telling = None
        try:
            try:
                return await self._attempt()
            except AttemptError as error:
                self._first = error
            # Only now: tenacity's loop costs 15 to 20 µs, a fifth of an append, which no undisturbed operation pays.
            reply: Reply = await self._executor.loop(self)(self._again)
            return reply
        finally:
            self._executor.note_failovers()

    def doubt(self) -> None:
        """Take the last reply for that of a server that was replaced: its change may be gone, and may be there."""
        self._request.earlier.may_be_applied = True
        self._may_have_applied |= self._changes

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()

    def _attempts_before(self, command: Command[Any]) -> EarlierAttempts:
        if not isinstance(command, ChangeCommand):
            return EarlierAttempts()
        earlier = self._earlier.get(command.id)
        if earlier is None or not earlier.may_be_applied:  # the last attempt was refused, and those before it
            earlier = EarlierAttempts(NO_POSITION, True) if command.repeats else EarlierAttempts()
            self._earlier[command.id] = earlier
        return earlier

    async def _attempt(self) -> Reply:
        """Try once, cut off at the deadline whatever the attempt's own timeouts are.

        Raises:
            AttemptError: It failed and another attempt may help.
            OperationError: It failed and none can help.
        """
        request, locator = self._request, self._executor.locator
        self.topology_epoch = locator.monitor.topology_epoch
        self.span.attempt_began()
        request.sent = False
        try:
            with Until(self.deadline, self._executor.alarms):
                reply = await locator.attempt(request)
        except AttemptError as error:
            failed = error
        except asyncio.TimeoutError:
            failed = AttemptError(_CutOffError("cut off by the deadline"), node=None, sent=request.sent)
        else:
            self.span.answered(reply.history.node)
            self.applied = None  # the reply tells of the change, not what came before it
            return reply
        raise self._failure_that_counts(failed)

    async def _again(self) -> Reply:
        """Try once, or at the first call report the failure that came before the loop."""
        if self._first is not None:
            error, self._first = self._first, None
            raise error
        return await self._attempt()

    def _failure_that_counts(self, error: AttemptError) -> AttemptError:
        """Note a failed attempt; return the failure that counts.

        Raises:
            OperationError: Another attempt cannot help.
        """
        self._latest = error
        if isinstance(error.cause, _CutOffError) and self._telling is not None:
            # What came before tells more, if this one had only waited: for a node, or again for replicas.
            error = error if error.sent and not isinstance(self._telling.cause, ShortfallError) else self._telling
        self._telling = error
        failure = classify(error.cause, sent=error.sent)
        self.applied = error.reply
        shortfall = error.cause if isinstance(error.cause, ShortfallError) else None
        self.needs_seconds = _SHORTEST_ATTEMPT_SECONDS + (shortfall.wait_seconds if shortfall else 0)
        may_have_applied = failure.may_have_applied or error.reply is not None
        self._request.earlier.may_be_applied |= may_have_applied
        self._may_have_applied |= may_have_applied and self._changes
        if error.node is not None:
            self.span.node = error.node
        permanent = error.permanent or (None if failure.retry else failure.error)
        if permanent is not None:
            self._show_failed()
            raise self.error(permanent, _reason(error)) from chained(error.cause)
        if failure.refresh_topology:
            self._executor.locator.suspect(error)
        return error

    def before_sleep(self, state: tenacity.RetryCallState) -> None:
        """Tell the span about the attempt that failed and the wait that follows."""
        wait_seconds = state.next_action.sleep if state.next_action else 0.0
        self._show_failed(wait_seconds)

    def give_up(self, state: tenacity.RetryCallState) -> Any:
        """Raise the error for a deadline that is over, or for connections that were closed meanwhile.

        Returns:
            The reply to a change that is not on enough replicas, if that is good enough.
        """
        error = _failure(state)
        self._show_failed()
        if isinstance(error.cause, ShortfallError):
            self.span.unconfirmed(str(error.cause), degraded=self.options.degrade)
            if self.options.degrade:
                return error.reply
        kind = classify(error.cause, sent=error.sent).error
        if self._executor.closed:
            kind = ConnectionsClosedError
        raise self.error(kind, _reason(error)) from chained(error.cause)

    def _show_failed(self, wait_seconds: float | None = None) -> None:
        error = self._latest
        reason = classify(error.cause, sent=error.sent).reason
        failed = FailedAttempt(type(error.cause).__name__, _reason(error), reason, error.node, wait_seconds)
        self.span.failed(failed)

    def error(
        self, kind: type[OperationError], reason: str, *, outcome: Outcome | None = None, **details: Any
    ) -> OperationError:
        """Return the error of this operation, with what is known of its change by now.

        Args:
            kind: The class of the error.
            reason: What went wrong.
            outcome: What became of the change; None means as the attempts have told.
            **details: What the class takes besides.
        """
        if outcome is None:
            outcome = Outcome.UNKNOWN if self._may_have_applied else Outcome.NOT_APPLIED
            outcome = Outcome.APPLIED if self.applied else outcome
        return kind(
            reason,
            operation=self.span.operation,
            topology=self.span.topology,
            outcome=outcome,
            node=self.span.node,
            attempts=self.span.attempts,
            **details,
        )


def _failure(state: tenacity.RetryCallState) -> AttemptError:
    """Return the failure of the last attempt: the loop sees no other kind."""
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, AttemptError):
        raise TypeError(f"the retry loop met a {type(error).__name__}")
    return error


def _reason(error: AttemptError) -> str:
    """Return the last failure in words."""
    if isinstance(error.cause, (ShortfallError, _CutOffError)):
        return str(error)
    return f"{type(error.cause).__name__}: {error}".rstrip(".")
