"""The span of one turn, and the metrics that it counts in."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Literal, TypeAlias

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from .. import _ambient as ambient
from .._config import Topology
from . import names
from .instruments import INSTRUMENTS
from .operation_span import describe, show

__all__ = ["TurnEnd", "TurnSpan"]

TurnEnd: TypeAlias = Literal[
    "computed",
    "repeated",
    "suspended",
    "kept",
    "rolled_back",
    "lost",
    "cancelled",
    "refused",
    "withdrawn",
    "failed",
]
"""What became of one attempt of a turn; docs/observability.md says what each means."""

_tracer = trace.get_tracer(names.SCOPE)

_ENTERED: ContextVar[object] = ContextVar("agents_redis_ha_turn_span", default=None)


class TurnSpan:
    """The span of one attempt of a turn, with its metrics: the current span from when it is made until it is finished.

    So the operations of the turn, and what its block does, are below it.
    """

    __slots__ = ("_attached", "_entered", "_granted_at", "_is_lost", "_since", "_span", "_state", "_topology", "_wait")

    def __init__(
        self,
        topology: Topology,
        session_id: str,
        turn_id: str,
        show_id: Literal["hashed", "plain", "off"],
        *,
        claims: bool,
    ) -> None:
        """Start it.

        Args:
            topology: The topology's name.
            session_id: The session's id.
            turn_id: The turn's id.
            show_id: How much of both ids may be shown.
            claims: Whether it is a suspended turn that is claimed.
        """
        self._topology = topology
        self._since = ambient.perf_counter()
        self._wait: float | None = None
        self._granted_at: float | None = None
        self._state: str | None = None
        self._is_lost = False
        attributes: dict[str, str] = {names.TOPOLOGY: topology}
        if show_id != "off":
            attributes[names.CONVERSATION_ID] = show(session_id, show_id)
            attributes[names.TURN_ID] = show(turn_id, show_id)
        self._span = _tracer.start_span(
            names.CLAIM_SPAN if claims else names.TURN_SPAN, kind=SpanKind.INTERNAL, attributes=attributes
        )
        self._attached = context.attach(trace.set_span_in_context(self._span))
        self._entered = _ENTERED.set(self)

    def waits(self, place: int) -> None:
        """Note that the turn waits for the session; only the first time counts.

        Args:
            place: Its place in the queue, counted from 1; 0 for none.
        """
        if self._state is None:
            self._span.add_event(names.WAITING_EVENT, {names.TURN_PLACE: place})
            self._enter("waiting")

    def told(self, attempt: int) -> None:
        """Note that the waiting is over, and which attempt of the turn it is about."""
        self._wait = ambient.perf_counter() - self._since
        self._enter(None)
        if attempt:
            self._span.set_attribute(names.TURN_ATTEMPT, attempt)

    def granted(self, attempt: int, *, resumed: bool, taken_from: str) -> None:
        """Note that the turn has the session.

        Args:
            attempt: Which attempt it is.
            resumed: Whether it goes on from what an attempt before it had saved.
            taken_from: From what it took the session, in a word; empty for nothing.
        """
        self.told(attempt)
        self._granted_at = ambient.perf_counter()
        self._enter("running")
        INSTRUMENTS.turn_wait.record(self._wait or 0.0, {names.TOPOLOGY: self._topology}, self._context)
        self._span.set_attribute(names.TURN_RESUMED, resumed)
        if taken_from:
            self._span.add_event(names.TAKEN_OVER_EVENT, {names.TURN_TAKEN_FROM: taken_from})

    def published(self, number: int) -> None:
        """Note that the turn was published, with so many items."""
        self._span.add_event(names.PUBLISHED_EVENT, {names.DB_OPERATION_BATCH_SIZE: number})

    def lost(self, to: str) -> None:
        """Note to what the turn is lost, in a word; only the first time counts."""
        if not self._is_lost:
            self._is_lost = True
            self._span.add_event(names.TURN_LOST_EVENT, {names.TURN_LOST_TO: to})

    def finish(self, end: TurnEnd, error: BaseException | None = None) -> None:
        """End the span, and let the one before it be the current one again.

        Args:
            end: What became of the turn.
            error: What leaves its block.
        """
        now = ambient.perf_counter()
        self._enter(None)
        what = {names.TOPOLOGY: self._topology, names.TURN_STATUS: end}
        INSTRUMENTS.turns.add(1, what)
        INSTRUMENTS.turn_duration.record(now - self._since, what, self._context)
        with contextlib.suppress(ValueError):  # left in another context, in which it is not the current span
            _ENTERED.reset(self._entered)
            context.detach(self._attached)
        span = self._span
        if span.is_recording():
            span.set_attributes(
                {names.TURN_STATUS: end, names.TURN_WAIT: now - self._since if self._wait is None else self._wait}
            )
            if self._granted_at is not None:
                span.set_attribute(names.TURN_HOLD, now - self._granted_at)
            if error is not None:
                describe(span, error)
        span.end()

    @property
    def _context(self) -> Context | None:
        """What leads from an exemplar to this span; None if it is not recorded, since that takes 2 µs."""
        return trace.set_span_in_context(self._span, Context()) if self._span.is_recording() else None

    def _enter(self, state: str | None) -> None:
        """Count in a state, and no more in the one before."""
        for each, number in ((self._state, -1), (state, 1)):
            if each is not None:
                INSTRUMENTS.turn_count.add(number, {names.TOPOLOGY: self._topology, names.TURN_STATE: each})
        self._state = state
