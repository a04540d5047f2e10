"""The one retry loop: tenacity, jittered exponential backoff, one deadline for the whole operation."""

from __future__ import annotations

import asyncio
from typing import Any

import tenacity

from .config import HAConfig
from .connections.locator import Locator, Sendable
from .errors import ConnectionsClosedError, DeadlineExceededError, OperationError, Outcome
from .telemetry import Observation, note_failovers
from .timing import timeout_at
from .verdicts import AttemptError, classify

__all__ = ["Executor"]

# With less than this left, an attempt would be cut off before it could succeed.
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

    async def aclose(self) -> None:
        """Close the connections; operations under way end with an error instead of waiting for their deadline."""
        self.closed = True
        await self.locator.aclose()

    async def run(self, request: Sendable, observation: Observation, *, changes: bool) -> Any:
        """Return the reply to a request.

        Args:
            request: What to send; sent again under the same operation id when it has to be.
            observation: Is told about every retry.
            changes: Whether it changes the session; a failed read has no outcome to worry about.

        Raises:
            OperationError: It failed for good; `outcome` says whether the change may be there.
        """
        attempt = _Attempt(self, request, observation, changes)
        try:
            try:
                return await attempt.once()
            except AttemptError as error:
                attempt.failed = error
            # Only now: tenacity's loop costs 15 to 20 µs, a fifth of an append, which no undisturbed operation pays.
            return await self._loop(attempt)(attempt.again)
        finally:
            note_failovers(self.locator.topology, self.locator.failovers - self._failovers)
            self._failovers = self.locator.failovers

    def _loop(self, attempt: _Attempt) -> tenacity.AsyncRetrying:
        """Return a loop that starts with the failure that the attempt has seen already."""
        wait = tenacity.wait_random_exponential(
            multiplier=self._retry.initial_backoff_seconds, max=self._retry.max_backoff_seconds
        )
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(AttemptError),
            # Half of what is left at most, so that an attempt can still follow the wait.
            wait=lambda state: min(wait(state), max(attempt.left(), 0) / 2),
            stop=lambda _: self.closed or attempt.left() < _SHORTEST_ATTEMPT_SECONDS,
            before_sleep=attempt.before_sleep,
            retry_error_callback=attempt.give_up,
        )

    async def within(self, deadline: float, request: Sendable) -> tuple[Any, str]:
        """Attempt once, cut off at the deadline whatever the attempt's own timeouts are."""
        request.sent = False
        try:
            async with timeout_at(deadline):
                return await self.locator.attempt(request)
        except asyncio.TimeoutError as error:
            cause = asyncio.TimeoutError("cut off by the deadline")
            raise AttemptError(cause, node=None, sent=request.sent) from error

    def deadline(self) -> float:
        """Return the event loop's time at which an operation that starts now must be over."""
        return asyncio.get_running_loop().time() + self._retry.deadline_seconds


class _Attempt:
    """One operation's attempts and what is known of them."""

    def __init__(self, executor: Executor, request: Sendable, observation: Observation, changes: bool) -> None:
        self._executor = executor
        self._request = request
        self._observation = observation
        self._changes = changes
        self._deadline = executor.deadline()
        self._maybe_applied = False
        self.failed: AttemptError | None = None

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline - asyncio.get_running_loop().time()

    async def once(self) -> Any:
        """Try once.

        Raises:
            AttemptError: It failed and another attempt may help.
            OperationError: It failed and none can help.
        """
        try:
            reply, node = await self._executor.within(self._deadline, self._request)
        except AttemptError as error:
            self._judge(error)
            raise
        self._observation.node = node
        return reply

    async def again(self) -> Any:
        """Try once, or at the first call report the failure that came before the loop."""
        if self.failed is not None:
            error, self.failed = self.failed, None
            raise error
        return await self.once()

    def _judge(self, error: AttemptError) -> None:
        verdict = classify(error.cause, sent=error.sent)
        self._maybe_applied |= verdict.applied and self._changes
        if error.node is not None:
            self._observation.node = error.node
        lasting = error.lasting or (None if verdict.retry else verdict.error)
        if lasting is not None:
            raise self._error(lasting, error) from _chained(error)
        if verdict.refresh:
            self._executor.locator.suspect(error)

    def before_sleep(self, state: tenacity.RetryCallState) -> None:
        """Tell the observation about the attempt that failed and the wait that follows."""
        error = _failure(state)
        wait_seconds = state.next_action.sleep if state.next_action else 0.0
        self._observation.retry(classify(error.cause, sent=error.sent).reason, wait_seconds, error.node)

    def give_up(self, state: tenacity.RetryCallState) -> Any:
        """Raise the error for a deadline that is over, or for connections that were closed meanwhile."""
        error = _failure(state)
        kind = ConnectionsClosedError if self._executor.closed else DeadlineExceededError
        raise self._error(kind, error) from _chained(error)

    def _error(self, kind: type[OperationError], error: AttemptError) -> OperationError:
        return kind(
            _reason(error),
            operation=self._observation.operation,
            topology=self._observation.topology,
            outcome=Outcome.UNKNOWN if self._maybe_applied else Outcome.NOT_APPLIED,
            node=self._observation.node,
            attempts=self._observation.attempts,
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
    return f"{type(error.cause).__name__}: {text[:500]}".rstrip(".")


def _chained(error: AttemptError) -> BaseException | None:
    """Return the cause to show below ours in a traceback, unless it repeats the request."""
    return None if _ECHO in str(error.cause) else error.cause
