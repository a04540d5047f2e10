"""Every span, attribute, event and metric name; the only importer of OpenTelemetry.

Names follow the semantic conventions for database clients
(https://opentelemetry.io/docs/specs/semconv/database/database-spans/) and, for the conversation's id, for generative
AI.
With the API alone, or with no SDK set up, an operation pays for one span that records nothing and one call per metric.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextvars import Token
from typing import Final, Literal

from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from .config import Topology
from .errors import OperationError

__all__ = ["Observation", "counters", "note_corrupt", "note_failovers"]

SCOPE: Final = "agents_redis_ha"

DB_SYSTEM_NAME: Final = "db.system.name"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_OPERATION_BATCH_SIZE: Final = "db.operation.batch.size"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
TOPOLOGY: Final = "agents_redis_ha.topology"
ATTEMPTS: Final = "agents_redis_ha.attempts"
OUTCOME: Final = "agents_redis_ha.outcome"
REPEATED: Final = "agents_redis_ha.repeat_suppressed"

RETRY_EVENT: Final = "agents_redis_ha.retry"
RETRY_REASON: Final = "agents_redis_ha.retry.reason"
RETRY_WAIT: Final = "agents_redis_ha.retry.wait"
RETRY_NODE: Final = "agents_redis_ha.retry.node"

UNCONFIRMED_EVENT: Final = "agents_redis_ha.unconfirmed"
SHORTFALL: Final = "agents_redis_ha.shortfall"
RESTORED_EVENT: Final = "agents_redis_ha.history_restored"
LOST_EVENT: Final = "agents_redis_ha.history_lost"
VERSIONS: Final = "agents_redis_ha.versions"

DURATION: Final = "db.client.operation.duration"
RETRIES: Final = "agents_redis_ha.retries"
REPEATS: Final = "agents_redis_ha.repeats_suppressed"
FAILOVERS: Final = "agents_redis_ha.failovers"
UNCONFIRMED: Final = "agents_redis_ha.unconfirmed"
RESTORED: Final = "agents_redis_ha.changes_restored"
LOST: Final = "agents_redis_ha.changes_lost"
CORRUPT: Final = "agents_redis_ha.corrupt_items"

_tracer = trace.get_tracer(SCOPE)
_meter = metrics.get_meter(SCOPE)
_duration = _meter.create_histogram(
    DURATION,
    unit="s",
    description="Duration of a session operation, all attempts and waits together",
    explicit_bucket_boundaries_advisory=[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
)
_retries = _meter.create_counter(RETRIES, unit="{retry}", description="Attempts after the first")
_repeats = _meter.create_counter(
    REPEATS, unit="{operation}", description="Changes that an earlier attempt had already applied"
)
_failovers = _meter.create_counter(FAILOVERS, unit="{failover}", description="Times that another node took over")
_corrupt = _meter.create_counter(CORRUPT, unit="{item}", description="Stored elements skipped as not being items")

_unconfirmed = _meter.create_counter(
    UNCONFIRMED, unit="{operation}", description="Changes that too few replicas or disks had by the deadline"
)
_restored = _meter.create_counter(
    RESTORED, unit="{change}", description="Changes that the servers had lost and that were put back"
)
_lost = _meter.create_counter(
    LOST, unit="{change}", description="Changes that the servers had lost and that could not be put back"
)

_totals = {
    "retries": 0,
    "repeats_suppressed": 0,
    "failovers": 0,
    "corrupt_items": 0,
    "unconfirmed": 0,
    "changes_restored": 0,
    "changes_lost": 0,
}
_log = logging.getLogger(SCOPE)


def counters() -> dict[str, int]:
    """Return this process's totals since it started, whether or not OpenTelemetry is set up.

    Returns:
        ``retries``, ``repeats_suppressed``, ``failovers``, ``corrupt_items``, ``unconfirmed``, ``changes_restored`` and
        ``changes_lost``.
    """
    return dict(_totals)


def note_failovers(topology: Topology, count: int) -> None:
    """Count that another node took over ``count`` times."""
    if count:
        _totals["failovers"] += count
        _failovers.add(count, {TOPOLOGY: topology})


def note_corrupt(topology: Topology, count: int) -> None:
    """Count stored elements that were skipped because they are no items."""
    if count:
        _totals["corrupt_items"] += count
        _corrupt.add(count, {TOPOLOGY: topology})


class Observation:
    """One operation as its span and its metrics see it: made at its start, finished once.

    Attributes:
        operation: The operation's name, such as ``append``.
        topology: The topology's name.
        attempts: Attempts so far, counted from 1.
        node: ``host:port`` of the node that was asked last.
    """

    __slots__ = ("_session_id", "_show_id", "_since", "_span", "_token", "attempts", "node", "operation", "topology")

    def __init__(
        self,
        operation: str,
        topology: Topology,
        session_id: str,
        show_id: Literal["hashed", "plain", "off"],
        batch_size: int | None = None,
    ) -> None:
        self._session_id, self._show_id = session_id, show_id
        self.operation = operation
        self.topology: Topology = topology
        self.attempts = 1
        self.node: str | None = None
        self._since = time.perf_counter()
        self._span = _tracer.start_span(operation, kind=SpanKind.CLIENT)
        self._token: Token[context.Context] | None = None
        if self._span.is_recording():
            self._token = context.attach(trace.set_span_in_context(self._span))
            self._span.set_attributes({DB_SYSTEM_NAME: "redis", DB_OPERATION_NAME: operation, TOPOLOGY: topology})
            if show_id != "off":
                self._span.set_attribute(CONVERSATION_ID, self._session)
            if batch_size is not None:
                self._span.set_attribute(DB_OPERATION_BATCH_SIZE, batch_size)

    @property
    def _session(self) -> str:
        """The session's id as far as it may be shown."""
        if self._show_id == "off":
            return "not shown"
        return self._session_id if self._show_id == "plain" else hashed(self._session_id)

    def retry(self, reason: str, wait_seconds: float, node: str | None) -> None:
        """Note that an attempt failed and the next one follows after a wait."""
        self.attempts += 1
        _totals["retries"] += 1
        _retries.add(1, {DB_OPERATION_NAME: self.operation, TOPOLOGY: self.topology, RETRY_REASON: reason})
        if self._span.is_recording():
            details: dict[str, str | float] = {RETRY_REASON: reason, RETRY_WAIT: wait_seconds}
            if node is not None:
                details[RETRY_NODE] = node
            self._span.add_event(RETRY_EVENT, details)

    def repeated(self) -> None:
        """Note that the change had been applied by an earlier attempt."""
        _totals["repeats_suppressed"] += 1
        _repeats.add(1, {DB_OPERATION_NAME: self.operation, TOPOLOGY: self.topology})
        self._span.set_attribute(REPEATED, True)

    def unconfirmed(self, shortfall: str, *, degraded: bool) -> None:
        """Note that too few replicas or disks had the change by the deadline; a warning if it counts all the same."""
        _totals["unconfirmed"] += 1
        _unconfirmed.add(1, {DB_OPERATION_NAME: self.operation, TOPOLOGY: self.topology})
        self._span.add_event(UNCONFIRMED_EVENT, {SHORTFALL: shortfall})
        if degraded:
            _log.warning("%s on %s goes on unconfirmed: %s", self.operation, self.node, shortfall)

    def restored(self, count: int) -> None:
        """Note that so many changes that the servers had lost were put back."""
        _totals["changes_restored"] += count
        _restored.add(count, {TOPOLOGY: self.topology})
        self._span.add_event(RESTORED_EVENT, {VERSIONS: count})
        _log.warning("put %d changes back that %s had lost (session %s)", count, self.node, self._session)

    def lost(self, versions: tuple[int, ...]) -> None:
        """Note that these versions of the session are gone for good."""
        _totals["changes_lost"] += len(versions)
        _lost.add(len(versions), {TOPOLOGY: self.topology})
        self._span.add_event(LOST_EVENT, {VERSIONS: len(versions)})
        _log.error("%s lost %d changes that cannot be put back (session %s)", self.node, len(versions), self._session)

    def finish(self, error: BaseException | None = None) -> None:
        """End the span and record the duration."""
        attributes: dict[str, str | int] = {
            DB_SYSTEM_NAME: "redis",
            DB_OPERATION_NAME: self.operation,
            TOPOLOGY: self.topology,
        }
        if error is not None:
            attributes[ERROR_TYPE] = type(error).__name__
        _duration.record(time.perf_counter() - self._since, attributes)
        if self._token is not None:
            context.detach(self._token)
            self._describe(error)
        self._span.end()

    def _describe(self, error: BaseException | None) -> None:
        self._span.set_attribute(ATTEMPTS, self.attempts)
        if self.node is not None:
            host, _, port = self.node.rpartition(":")
            is_address = port.isdigit() and "/" not in host  # a Unix socket's path may hold a colon too
            self._span.set_attribute(SERVER_ADDRESS, host.strip("[]") if is_address else self.node)
            if is_address:
                self._span.set_attribute(SERVER_PORT, int(port))
        if error is not None:
            self._span.set_attribute(ERROR_TYPE, type(error).__name__)
            # Only our own errors are known to hold no item and no password.
            text = str(error) if isinstance(error, OperationError) else type(error).__name__
            self._span.set_status(Status(StatusCode.ERROR, text))
            if isinstance(error, OperationError):
                self._span.set_attribute(OUTCOME, error.outcome.value)


def hashed(session_id: str) -> str:
    """Return the first 16 hexadecimal digits of the id's SHA-256: the same in every process, not reversible by eye."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
