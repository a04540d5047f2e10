"""What is measured on which servers: a stage starts servers and workers and takes samples of all of them in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from agents_redis_ha import lab

from .loads import READ_ITEMS, SESSIONS, WRITERS, real_items
from .memory import ITEMS, idle_memory
from .results import Ratio, Row, Unit
from .worker import Worker

Target = tuple[Literal["<=", ">="], float]
_ALL = ("ours", "floor", "sdk", "other")
_FLOOR_TAG = "floor"
_SPEED, _NO_SPEED = "standalone", "standalone, without hiredis"
_RECORDED, _UNOBSERVED = "standalone, OpenTelemetry recording", "standalone, observation cut out"
_CONFIRMED = ", `replicas=1`"


@dataclass(frozen=True)
class Measurement:
    """One load and how its figures are shown.

    Attributes:
        title: What it is called in the results.
        load: Its name in `loads.LOADS`.
        unit: Of the figures.
        rounds: How often each contender is measured; every round measures all of them.
        targets: What the ratio to a contender is to be.
    """

    title: str
    load: str
    unit: Unit
    rounds: int
    targets: Mapping[str, Target]


_APPEND = Measurement("append 2 items with a TTL", "append", "µs", 80, {"floor": ("<=", 1.4), "sdk": ("<=", 0.25)})
MEASUREMENTS = (
    _APPEND,
    Measurement(f"appends, {SESSIONS} sessions at once", "many_sessions", "/s", 12, {"sdk": (">=", 10)}),
    Measurement(f"appends, {WRITERS} writers on one session", "one_session", "/s", 12, {}),
    Measurement(f"read {READ_ITEMS:,} items", "read", "ms", 40, {"sdk": ("<=", 0.5)}),
)


@dataclass(frozen=True)
class Lane:
    """One of the things that take turns: a contender within a setup."""

    setup: str
    contender: str


def standalone(conversations: str | None, *, quick: bool) -> list[Row]:
    """Measure every load of every contender, with redis-py's parsers both, and what telemetry and memory cost."""
    setups = (_SPEED,) if quick else (_SPEED, _NO_SPEED)
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = stack.enter_context(lab.start("standalone"))
        started = (*setups, _RECORDED, _UNOBSERVED)
        workers = {setup: stack.enter_context(_worker(servers, setup, conversations)) for setup in started}
        for measurement in MEASUREMENTS:
            lanes = [Lane(setup, name) for setup in setups for name in _ALL]
            if measurement is _APPEND:
                lanes += [Lane(_RECORDED, "ours"), Lane(_UNOBSERVED, "ours")]
            samples = _interleaved(workers, lanes, measurement, quick=quick)
            rows += [_row(measurement, setup, samples, measured=setup == _SPEED) for setup in setups]
            if measurement is _APPEND:
                rows += _telemetry_rows(samples)
        rows += _memory_rows(servers.url, real_items(conversations))
    return rows


def elsewhere(conversations: str | None) -> list[Row]:
    """Measure the append on Sentinel, a cluster, TLS and confirmed by a replica, beside the bare commands there."""
    rows = []
    for setup in ("sentinel", f"sentinel{_CONFIRMED}", "cluster", f"cluster{_CONFIRMED}", "standalone, TLS"):
        topology: Any = setup.partition(",")[0]
        with (
            lab.start(topology, tls=setup.endswith("TLS")) as servers,
            _worker(servers, setup, conversations) as worker,
        ):
            samples = _interleaved({setup: worker}, [Lane(setup, "ours"), Lane(setup, "floor")], _APPEND, quick=False)
            rows.append(_row(_APPEND, setup, samples, measured=False))
    return rows


def _worker(servers: lab.Lab, setup: str, conversations: str | None) -> Worker:
    return Worker(
        {
            "url": f"{servers.url}{'?replicas=1' if setup.endswith(_CONFIRMED) else ''}",
            "floor_address": servers.primary(f"{{{_FLOOR_TAG}}}").address,
            "floor_tag": _FLOOR_TAG,
            "conversations": conversations,
            "python_parser": setup == _NO_SPEED,
            "telemetry": setup == _RECORDED,
            "unobserved": setup == _UNOBSERVED,
        }
    )


def _interleaved(
    workers: Mapping[str, Worker], lanes: Sequence[Lane], measurement: Measurement, *, quick: bool
) -> dict[Lane, list[float]]:
    """Return the samples of each lane in the order of the rounds; each round begins with another lane."""
    samples: dict[Lane, list[float]] = {lane: [] for lane in lanes}
    for lane in lanes:  # connect, load the script, fill the history to read
        workers[lane.setup].sample(measurement.load, lane.contender)
    for turn in range(max(3, measurement.rounds // 12) if quick else measurement.rounds):
        first = turn % len(lanes)
        for lane in (*lanes[first:], *lanes[:first]):
            samples[lane].append(workers[lane.setup].sample(measurement.load, lane.contender))
    return samples


def _row(measurement: Measurement, setup: str, samples: Mapping[Lane, Sequence[float]], *, measured: bool) -> Row:
    """Return a setup's row; ``measured`` against the targets or only reported."""
    found = {lane.contender: times for lane, times in samples.items() if lane.setup == setup}
    targets = measurement.targets if measured else {}
    ratios = [
        Ratio(name, _ratio(measurement.unit, found["ours"], times), targets.get(name))
        for name, times in found.items()
        if name != "ours"
    ]
    figures = {name: _in_unit(measurement.unit, statistics.median(times)) for name, times in found.items()}
    return Row(measurement.title, setup, measurement.unit, figures, ratios)


def _telemetry_rows(samples: Mapping[Lane, Sequence[float]]) -> list[Row]:
    """Return what recording costs beside an application without OpenTelemetry, and what is left of it there."""
    recorded, off, unobserved = (samples[Lane(setup, "ours")] for setup in (_RECORDED, _SPEED, _UNOBSERVED))
    floor = samples[Lane(_SPEED, "floor")]
    rows = []
    for setup, ours, against, others in (
        (_RECORDED, recorded, "plain", off),
        ("standalone, OpenTelemetry off", off, "unobserved", unobserved),
    ):
        figures = {"ours": ours, against: others, "floor": floor}
        ratios = [
            Ratio(against, _ratio(_APPEND.unit, ours, others), ("<=", 1.1)),
            Ratio("floor", _ratio(_APPEND.unit, ours, floor)),
        ]
        medians = {name: _in_unit(_APPEND.unit, statistics.median(times)) for name, times in figures.items()}
        rows.append(Row(_APPEND.title, setup, _APPEND.unit, medians, ratios))
    return rows


def _memory_rows(url: str, items: list[Any]) -> list[Row]:
    usage = idle_memory(url, items)
    rows = []
    for title, ours, target in (("idle", "ours", ("<=", 1.1)), ("within `op_retention_seconds`", "ours_busy", None)):
        figures = {"ours": usage[ours], "floor": usage["floor"], "sdk": usage["sdk"]}
        ratios = [
            Ratio("floor", usage[ours] / usage["floor"], target),  # type: ignore[arg-type]
            Ratio("sdk", usage[ours] / usage["sdk"]),
        ]
        rows.append(Row(f"memory of {ITEMS} items, {title}", _SPEED, "bytes", figures, ratios))
    return rows


def _ratio(unit: Unit, ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios within each round, so that the machine's drift cancels out."""
    by_round: Callable[[float, float], float] = (lambda a, b: b / a) if unit == "/s" else (lambda a, b: a / b)
    return statistics.median(map(by_round, ours, others))


def _in_unit(unit: Unit, seconds: float) -> float:
    return {"µs": seconds * 1e6, "ms": seconds * 1e3, "/s": 1 / seconds, "bytes": seconds}[unit]
