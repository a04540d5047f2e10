"""The one retry loop: tenacity, jittered exponential backoff, one deadline for the whole operation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import tenacity

from .config import HAConfig, Topology
from .connections.locator import Locator, Sendable
from .connections.node import PoolUse
from .errors import ConnectionsClosedError, OperationError, Outcome
from .telemetry import FailedAttempt, Observation, note_failovers, watch_pools
from .timing import timeout_at
from .verdicts import AttemptError, ShortfallError, classify

__all__ = ["Executor", "Operation"]

_SHORTEST_ATTEMPT_SECONDS = 0.01


class Executor:
    """Sends requests to wherever a locator says, until one succeeds, none can, or the deadline is over.

    Attributes:
        locator: Knows the node to ask.
        closed: Whether the connections were closed.
    """

    def __init__(self, config: HAConfig, locator: Locator) -> None:
        self.locator = locator
        self._retry = config.retry
        self._failovers = 0
        self.closed = False
        watch_pools(self)

    async def aclose(self) -> None:
        """Close the connections; operations under way end with an error instead of waiting for their deadline."""
        self.closed = True
        await self.locator.aclose()

    def pools(self) -> Mapping[Topology, Iterable[PoolUse]]:
        """Return the use of the connections to each node; any thread may ask."""
        nodes = [] if self.closed else self.locator.nodes()
        return {self.locator.topology: [node.use for node in nodes]}

    def begin(self, observation: Observation, *, changes: bool, degrade: bool = False) -> Operation:
        """Begin an operation: its deadline runs from now on.

        Args:
            observation: Is told about every retry.
            changes: Whether it changes the session; a failed read has no outcome to worry about.
            degrade: Whether a change that is not on enough replicas by the deadline counts as done.
        """
        return Operation(self, observation, changes, degrade)

    def loop(self, attempt: Operation) -> tenacity.AsyncRetrying:
        """Return a loop that starts with the failure that the attempt has seen already."""
        wait = tenacity.wait_random_exponential(
            multiplier=self._retry.initial_backoff_seconds, max=self._retry.max_backoff_seconds
        )
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(AttemptError),
            # Half of what is left at most, so that an attempt can still follow the wait.
            wait=lambda state: min(wait(state), max(attempt.left() - attempt.needs_seconds, 0) / 2),
            stop=lambda _: self.closed or attempt.left() < attempt.needs_seconds,
            before_sleep=attempt.before_sleep,
            sleep=lambda seconds: self.locator.watch.wait_for_change(seconds, attempt.changes_seen),
            retry_error_callback=attempt.give_up,
        )

    async def within(self, deadline: float, request: Sendable) -> tuple[Any, str]:
        """Attempt once, cut off at the deadline whatever the attempt's own timeouts are."""
        request.sent = False
        try:
            async with timeout_at(deadline):
                return await self.locator.attempt(request)
        except asyncio.TimeoutError as error:
            cause = _CutOffError("cut off by the deadline")
            raise AttemptError(cause, node=None, sent=request.sent) from error

    def deadline(self) -> float:
        """Return the event loop's time at which an operation that starts now must be over."""
        return asyncio.get_running_loop().time() + self._retry.deadline_seconds

    def note_failovers(self) -> None:
        """Count the failovers since the last time."""
        happened = self.locator.failovers
        if len(happened) != self._failovers:
            note_failovers(self.locator.topology, happened[self._failovers :])
            self._failovers = len(happened)


class _CutOffError(asyncio.TimeoutError):
    """The deadline came while an attempt was under way."""


class Operation:
    """One operation: the requests that it takes, each sent until it succeeds, and what is known of them together.

    Attributes:
        deadline: The event loop's time at which it must be over.
        observation: Is told about every retry.
        changes_seen: The locator's changes when the last attempt began.
        needs_seconds: With less than this left, another attempt would be cut off before it could say anything new.
    """

    def __init__(self, executor: Executor, observation: Observation, changes: bool, degrade: bool) -> None:
        self.observation = observation
        self.deadline = executor.deadline()
        self._executor = executor
        self._changes = changes
        self._degrade = degrade
        self.needs_seconds = _SHORTEST_ATTEMPT_SECONDS
        self.changes_seen = 0
        self._maybe_applied = self._applied = False
        self._request: Sendable
        self._failed: AttemptError | None = None
        self._last: AttemptError | None = None
        self._seen: AttemptError  # as it was, even if what came before tells more

    async def run(self, request: Sendable) -> Any:
        """Return the reply to a request; sent again under the same operation id when it has to be.

        Raises:
            OperationError: It failed for good; `outcome` says whether the change may be there.
        """
        self._request, self._failed, self._last = request, None, None
        request.on_sent = self.observation.request_left
        try:
            try:
                return await self._once()
            except AttemptError as error:
                self._failed = error
            # Only now: tenacity's loop costs 15 to 20 µs, a fifth of an append, which no undisturbed operation pays.
            return await self._executor.loop(self)(self._again)
        finally:
            self._executor.note_failovers()

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()

    async def _once(self) -> Any:
        """Try once.

        Raises:
            AttemptError: It failed and another attempt may help.
            OperationError: It failed and none can help.
        """
        self.changes_seen = self._executor.locator.watch.changes
        self.observation.attempt()
        try:
            reply, node = await self._executor.within(self.deadline, self._request)
        except AttemptError as error:
            self._seen = error
            if isinstance(error.cause, _CutOffError) and self._last is not None:
                # What came before tells more, if this one had only waited: for a node, or again for replicas.
                error = error if error.sent and not isinstance(self._last.cause, ShortfallError) else self._last
            self._last = error
            self._judge(error)
            raise error
        self.observation.answered(node)
        self._applied = False  # the reply tells of the change, not what came before it
        return reply

    async def _again(self) -> Any:
        """Try once, or at the first call report the failure that came before the loop."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error
        return await self._once()

    def _judge(self, error: AttemptError) -> None:
        verdict = classify(error.cause, sent=error.sent)
        self._applied = error.applied
        shortfall = error.cause if isinstance(error.cause, ShortfallError) else None
        self.needs_seconds = _SHORTEST_ATTEMPT_SECONDS + (shortfall.wait_seconds if shortfall else 0)
        self._maybe_applied |= (verdict.applied or error.applied) and self._changes
        if error.node is not None:
            self.observation.node = error.node
        lasting = error.lasting or (None if verdict.retry else verdict.error)
        if lasting is not None:
            self._show_failed()
            raise self.error(lasting, _reason(error)) from _chained(error)
        if verdict.refresh:
            self._executor.locator.suspect(error)

    def before_sleep(self, state: tenacity.RetryCallState) -> None:
        """Tell the observation about the attempt that failed and the wait that follows."""
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
            self.observation.unconfirmed(str(error.cause), degraded=self._degrade)
            if self._degrade:
                return error.cause.reply
        kind = classify(error.cause, sent=error.sent).error
        if self._executor.closed:
            kind = ConnectionsClosedError
        raise self.error(kind, _reason(error)) from _chained(error)

    def _show_failed(self, wait_seconds: float | None = None) -> None:
        error = self._seen
        reason = classify(error.cause, sent=error.sent).reason
        failed = FailedAttempt(type(error.cause).__name__, _reason(error), reason, error.node, wait_seconds)
        self.observation.failed(failed)

    def error(self, kind: type[OperationError], reason: str, **details: Any) -> OperationError:
        """Return the error of this operation, with what is known of its change by now."""
        outcome = Outcome.UNKNOWN if self._maybe_applied else Outcome.NOT_APPLIED
        return kind(
            reason,
            operation=self.observation.operation,
            topology=self.observation.topology,
            outcome=Outcome.APPLIED if self._applied else outcome,
            node=self.observation.node,
            attempts=self.observation.attempts,
            **details,
        )


def _failure(state: tenacity.RetryCallState) -> AttemptError:
    """Return the failure of the last attempt: the loop sees no other kind."""
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, AttemptError):
        raise TypeError(f"the retry loop met a {type(error).__name__}")
    return error


# From here on the server repeats what it was sent, keys and items included ("unknown command 'X', with args …").
_ECHO = ", with args beginning with"


def _reason(error: AttemptError) -> str:
    """Return the last failure in words: the server's or the system's, without what they repeat of the request."""
    text = str(error.cause).partition("\n")[0].partition(_ECHO)[0].strip() or type(error.cause).__name__
    if isinstance(error.cause, (ShortfallError, _CutOffError)):
        return text
    return f"{type(error.cause).__name__}: {text[:500]}".rstrip(".")


def _chained(error: AttemptError) -> BaseException | None:
    """Return the cause to show below ours in a traceback, unless it repeats the request."""
    return None if _ECHO in str(error.cause) else error.cause
