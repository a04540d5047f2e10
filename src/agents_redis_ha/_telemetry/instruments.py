"""The metrics' instruments, and the same totals for processes without OpenTelemetry."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.context import Context

from .._config import Topology
from . import names

__all__ = [
    "INSTRUMENTS",
    "Instruments",
    "PoolOwner",
    "PoolUse",
    "count",
    "counters",
    "note_corrupt",
    "note_duration",
    "note_failovers",
    "watch_pools",
]


@dataclass(frozen=True)
class PoolUse:
    """How many connections there are to a node.

    Attributes:
        node: Its name.
        used: Connections with a request under way.
        idle: Connections without one.
        most: Most connections allowed.
        waiting: Requests that wait for a connection to become free.
    """

    node: str
    used: int
    idle: int
    most: int
    waiting: int

    def __add__(self, other: PoolUse) -> PoolUse:
        """Return the use of both pools together."""
        return PoolUse(
            self.node,
            self.used + other.used,
            self.idle + other.idle,
            self.most + other.most,
            self.waiting + other.waiting,
        )


class PoolOwner(Protocol):
    """An object that has connections to nodes."""

    def pools(self) -> Mapping[Topology, Iterable[PoolUse]]:
        """Return the use of the connections to each node, by topology."""


class Instruments:
    """Every instrument of a meter, made once."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.duration = meter.create_histogram(
            names.DURATION,
            unit="s",
            description="Duration of a session operation, all attempts and waits together",
            explicit_bucket_boundaries_advisory=[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
        )
        self.retries = meter.create_counter(names.RETRIES, "{retry}", "Attempts after the first")
        self.repeats = meter.create_counter(
            names.REPEATS, "{operation}", "Changes that an earlier attempt had already applied"
        )
        self.failovers = meter.create_counter(names.FAILOVERS, "{failover}", "Times that another node took over")
        self.corrupt = meter.create_counter(names.CORRUPT, "{item}", "Stored elements skipped as not being items")
        self.unconfirmed = meter.create_counter(
            names.UNCONFIRMED, "{operation}", "Changes that too few replicas or disks had by the deadline"
        )
        self.restored = meter.create_counter(
            names.RESTORED, "{change}", "Changes that the servers had lost and that were put back"
        )
        self.lost = meter.create_counter(
            names.LOST, "{change}", "Changes that the servers had lost and that could not be put back"
        )
        self._count_turns(meter)
        self._watch_connections(meter)

    def _count_turns(self, meter: metrics.Meter) -> None:
        self.turns = meter.create_counter(names.TURNS, "{turn}", "Attempts of turns that ended, by what became of them")
        self.turn_count = meter.create_up_down_counter(
            names.TURN_COUNT, "{turn}", "Turns that wait for their session, or run"
        )
        self.turn_duration = meter.create_histogram(
            names.TURN_DURATION,
            unit="s",
            description="Duration of an attempt of a turn, the wait for its session included",
            explicit_bucket_boundaries_advisory=[0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
        )
        self.turn_wait = meter.create_histogram(
            names.TURN_WAIT_TIME,
            unit="s",
            description="Time until a turn had its session",
            explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120],
        )

    def _watch_connections(self, meter: metrics.Meter) -> None:
        self.connections = meter.create_observable_up_down_counter(
            names.CONNECTIONS,
            # A collection calls these before it takes what was recorded: so it has every duration.
            [_record_durations, _observe_connections],
            "{connection}",
            "Connections to a node, used or idle",
        )
        self.most_connections = meter.create_observable_up_down_counter(
            names.MOST_CONNECTIONS, [_observe(lambda use: use.most)], "{connection}", "Most connections to a node"
        )
        self.pending_requests = meter.create_observable_up_down_counter(
            names.PENDING_REQUESTS,
            [_observe(lambda use: use.waiting)],
            "{request}",
            "Requests that wait for a free connection to a node",
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
# Durations are recorded so many at a time: the first costs three times as much as each that follows it directly.
_DURATIONS = 8
_durations: deque[tuple[float, Mapping[str, str | int], trace.Span]] = deque()
_owners: WeakSet[PoolOwner] = WeakSet()
_owners_lock = threading.Lock()  # metrics are collected by a thread of their own


def counters() -> dict[str, int]:
    """Return this process's totals since it started, whether or not OpenTelemetry is set up.

    Returns:
        ``retries``, ``repeats_suppressed``, ``failovers``, ``corrupt_items``, ``unconfirmed``, ``changes_restored`` and
        ``changes_lost``.
    """
    return dict(_totals)


def count(total: str, number: int = 1) -> None:
    """Add to one of this process's totals."""
    _totals[total] += number


def note_failovers(topology: Topology, nodes: Iterable[str | None]) -> None:
    """Count that these nodes took over from others."""
    for node in nodes:
        count("failovers")
        INSTRUMENTS.failovers.add(1, {names.TOPOLOGY: topology, **names.server(node)})


def note_corrupt(topology: Topology, number: int) -> None:
    """Count stored elements that were skipped because they are no items."""
    if number:
        count("corrupt_items", number)
        INSTRUMENTS.corrupt.add(number, {names.TOPOLOGY: topology})


def note_duration(seconds: float, attributes: Mapping[str, str | int], span: trace.Span) -> None:
    """Note how long an operation took. It is recorded together with others, at the latest when metrics are collected.

    Args:
        seconds: The duration.
        attributes: The operation's attributes; they are not to be changed later.
        span: The operation's span, to which an exemplar leads.
    """
    _durations.append((seconds, attributes, span))
    if len(_durations) >= _DURATIONS:
        _record_durations()


def watch_pools(owner: PoolOwner) -> None:
    """Show an owner's connections in the metrics, for as long as the owner exists."""
    with _owners_lock:
        _owners.add(owner)


def _record_durations(_: metrics.CallbackOptions | None = None) -> Iterable[metrics.Observation]:
    """Record the durations that were noted; as an instrument's callback, observe nothing."""
    while _durations:
        try:
            seconds, attributes, span = _durations.popleft()
        except IndexError:  # another thread took the last one
            break
        INSTRUMENTS.duration.record(seconds, attributes, trace.set_span_in_context(span, Context()))
    return ()


def _pools() -> dict[tuple[Topology, str], PoolUse]:
    """Return the use of the connections to each node, over all event loops of this process."""
    with _owners_lock:
        owners = list(_owners)
    found: dict[tuple[Topology, str], PoolUse] = {}
    for owner in owners:
        for topology, uses in owner.pools().items():
            for use in uses:
                before = found.get((topology, use.node))
                found[topology, use.node] = before + use if before else use
    return found


def _place(topology: Topology, node: str) -> dict[str, str | int]:
    return {names.TOPOLOGY: topology, names.POOL_NAME: node, **names.server(node)}


def _observe(figure: Callable[[PoolUse], int]) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
    def observe(_: metrics.CallbackOptions) -> list[metrics.Observation]:
        return [metrics.Observation(figure(use), _place(*key)) for key, use in _pools().items()]

    return observe


def _observe_connections(_: metrics.CallbackOptions) -> list[metrics.Observation]:
    return [
        metrics.Observation(number, {**_place(*key), names.CONNECTION_STATE: state})
        for key, use in _pools().items()
        for state, number in (("used", use.used), ("idle", use.idle))
    ]


INSTRUMENTS = Instruments(metrics.get_meter(names.SCOPE))
