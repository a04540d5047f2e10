"""The span of one operation, and the metrics that it counts in."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from .. import _ambient as ambient
from .._config import Topology
from ..errors import OperationError
from . import names
from .instruments import INSTRUMENTS, count, note_duration

__all__ = ["FailedAttempt", "OperationSpan", "describe", "hash_session_id", "show"]

_tracer = trace.get_tracer(names.SCOPE)
_log = logging.getLogger(names.SCOPE)


@dataclass(frozen=True)
class FailedAttempt:
    """Why an attempt failed.

    Attributes:
        error_type: The class of its error.
        text: The error in words, without anything of the request.
        reason: A short word for it (low cardinality).
        node: ``host:port`` of the node that was asked; None if none was found.
        wait_seconds: Seconds until the next attempt; None if none follows.
    """

    error_type: str
    text: str
    reason: str
    node: str | None
    wait_seconds: float | None = None


class OperationSpan:
    """The span of one operation, with its metrics: made at its start, finished once.

    OpenTelemetry's span is started when the first request has left. That delays nothing: the reply is still under way.

    Attributes:
        operation: The operation's name, such as ``append``.
        topology: The topology's name.
        attempts: Attempts so far, counted from 1.
        node: ``host:port`` of the node that was asked last.
    """

    __slots__ = (
        "_attempt_began",
        "_batch_size",
        "_began",
        "_cause",
        "_named",
        "_session_id",
        "_show_id",
        "_since",
        "_span",
        "_trying_again",
        "attempts",
        "node",
        "operation",
        "topology",
    )

    def __init__(
        self,
        operation: str,
        topology: Topology,
        session_id: str,
        show_id: Literal["hashed", "plain", "off"],
        batch_size: int | None = None,
        *,
        cause: OperationSpan | None = None,
    ) -> None:
        """Note when the operation begins; OpenTelemetry's span is started later.

        Args:
            operation: Its name.
            topology: The topology's name.
            session_id: The session's id.
            show_id: How much of the id may be shown.
            batch_size: Number of items, where there are some.
            cause: The operation that led to this one, if no caller asked for it. Then this one has a trace of its own,
                with a link to the cause.
        """
        self._cause = cause
        self._session_id, self._show_id, self._batch_size = session_id, show_id, batch_size
        self.operation = operation
        self.topology: Topology = topology
        self.attempts = 1
        self.node: str | None = None
        self._since = ambient.perf_counter()
        self._began = self._attempt_began = ambient.time_ns()
        self._trying_again = False
        self._named: str | None = None
        self._span: trace.Span | None = None

    @property
    def span_context(self) -> trace.SpanContext:
        """The context by which other spans link to this one."""
        return self._recorded.get_span_context()

    def request_sent(self, node: str) -> None:
        """Note that a request has left for a node, whose reply is awaited."""
        self.node = node
        if self._span is None:
            self._start()

    def attempt_began(self) -> None:
        """Note that an attempt begins."""
        self._attempt_began = ambient.time_ns()

    def failed(self, attempt: FailedAttempt) -> None:
        """Note that an attempt failed and, if there is a wait, that another one follows it."""
        attributes: dict[str, str | int | float] = {
            names.ERROR_TYPE: attempt.error_type,
            names.RETRY_REASON: attempt.reason,
        }
        if attempt.wait_seconds is not None:
            attributes[names.RETRY_WAIT] = attempt.wait_seconds
        self._show_attempt(attempt.node, attributes, Status(StatusCode.ERROR, attempt.text))
        self._trying_again = attempt.wait_seconds is not None
        if self._trying_again:
            self.attempts += 1
            count("retries")
            where = {**self._what, names.RETRY_REASON: attempt.reason, **names.server(attempt.node)}
            INSTRUMENTS.retries.add(1, where)

    def answered(self, node: str) -> None:
        """Note that an attempt succeeded."""
        self.node = node
        if self._trying_again:
            self._trying_again = False
            self._show_attempt(node, {}, None)

    def repeated(self) -> None:
        """Note that the change had been applied by an earlier attempt."""
        count("repeats_suppressed")
        INSTRUMENTS.repeats.add(1, {**self._what, **names.server(self.node)})
        self._recorded.set_attribute(names.REPEATED, True)

    def unconfirmed(self, shortfall: str, *, degraded: bool) -> None:
        """Note that too few replicas or disks had the change by the deadline; if ``degraded`` the call succeeds."""
        count("unconfirmed")
        INSTRUMENTS.unconfirmed.add(1, {**self._what, **names.server(self.node)})
        self._recorded.add_event(names.UNCONFIRMED_EVENT, {names.SHORTFALL: shortfall})
        if degraded:
            self._say(logging.WARNING, "%s on %s goes on unconfirmed: %s", self.operation, self.node, shortfall)

    def restored(self, number: int) -> None:
        """Note how many changes were put back that the servers had lost."""
        count("changes_restored", number)
        INSTRUMENTS.restored.add(number, {names.TOPOLOGY: self.topology, **names.server(self.node)})
        self._recorded.add_event(names.RESTORED_EVENT, {names.VERSIONS: number})
        self._say(
            logging.WARNING, "put %d changes back that %s had lost (session %s)", number, self.node, self._session
        )

    def lost(self, versions: tuple[int, ...]) -> None:
        """Note which versions of the session are lost for good."""
        count("changes_lost", len(versions))
        INSTRUMENTS.lost.add(len(versions), {names.TOPOLOGY: self.topology, **names.server(self.node)})
        self._recorded.add_event(names.LOST_EVENT, {names.VERSIONS: len(versions)})
        self._say(
            logging.ERROR,
            "%s lost %d changes that cannot be put back (session %s)",
            self.node,
            len(versions),
            self._session,
        )

    def finish(self, error: BaseException | None = None) -> None:
        """End the span and record the duration."""
        span = self._recorded
        attributes = self._where
        if error is not None:
            attributes = {**attributes, names.ERROR_TYPE: type(error).__name__}
        note_duration(ambient.perf_counter() - self._since, attributes, span)
        if self.attempts > 1 or self.node != self._named:
            span.set_attributes({names.ATTEMPTS: self.attempts, **names.server(self.node)})
        if error is not None and span.is_recording():
            describe(span, error)
        span.end()

    def _say(self, level: int, text: str, *what: object) -> None:
        """Write a line that belongs to the operation's span."""
        with trace.use_span(self._recorded):
            _log.log(level, text, *what, stacklevel=2)

    @property
    def _where(self) -> dict[str, str | int]:
        return names.operation_on(self.node, self.operation, self.topology)

    @property
    def _what(self) -> dict[str, str | int]:
        return {names.DB_OPERATION_NAME: self.operation, names.TOPOLOGY: self.topology}

    @property
    def _session(self) -> str:
        """The session's id in the form in which it may be shown."""
        return "not shown" if self._show_id == "off" else show(self._session_id, self._show_id)

    @property
    def _recorded(self) -> trace.Span:
        """The operation's span, started if it has not been."""
        return self._span or self._start()

    def _start(self) -> trace.Span:
        attributes = {**self._where, names.ATTEMPTS: 1}
        if self._batch_size is not None:
            attributes[names.DB_OPERATION_BATCH_SIZE] = self._batch_size
        if self._show_id != "off":
            attributes[names.CONVERSATION_ID] = self._session
        parent, links = None, None
        if self._cause is not None:
            parent, links = context.Context(), [trace.Link(self._cause.span_context)]
        self._span = span = _tracer.start_span(
            self.operation,
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=links,
            start_time=self._began,
        )
        self._named = self.node
        return span

    def _show_attempt(self, node: str | None, attributes: dict[str, str | int | float], status: Status | None) -> None:
        """Record a span of an attempt that is over. Only one that failed, or that followed a failed one, has a span."""
        if not self._recorded.is_recording():
            return
        span = _tracer.start_span(
            names.ATTEMPT_SPAN,
            context=trace.set_span_in_context(self._recorded),
            kind=SpanKind.CLIENT,
            attributes={
                names.DB_SYSTEM_NAME: "redis",
                names.ATTEMPT: self.attempts,
                **names.server(node),
                **attributes,
            },
            start_time=self._attempt_began,
        )
        if status is not None:
            span.set_status(status)
        span.end()


@lru_cache(maxsize=1024)
def hash_session_id(session_id: str) -> str:
    """Return the first 16 hexadecimal digits of the id's SHA-256, the same in every process.

    The id cannot be read from it, but an id that is easy to guess can be tried.
    """
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def show(id_: str, how: Literal["hashed", "plain"]) -> str:
    """Return the id of a session or a turn in the form in which it may be shown."""
    return id_ if how == "plain" else hash_session_id(id_)


def describe(span: trace.Span, error: BaseException) -> None:
    """Say in the span what it failed with."""
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    # Only the package's own errors are known to hold no item and no password.
    text = str(error) if isinstance(error, OperationError) else type(error).__name__
    span.set_status(Status(StatusCode.ERROR, text))
    if isinstance(error, OperationError):
        span.set_attribute(names.OUTCOME, error.outcome.value)
