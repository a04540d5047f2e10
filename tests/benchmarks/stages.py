"""What is measured on which servers: a stage starts servers and workers and takes samples of all of them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents_redis_ha import lab
from tests.benchmarks.loads import READ_ITEMS, SESSIONS, WRITERS, real_items
from tests.benchmarks.memory import ITEMS, idle_memory
from tests.benchmarks.results import Ratio, Row, Unit
from tests.benchmarks.turns import RUNS, TOOL_ROUNDS, WAITING
from tests.benchmarks.worker import Worker

Target = tuple[Literal["<=", ">="], float]
_ALL = ("ours", "floor", "sdk", "other")
_FLOOR_TAG = "floor"
# Beside another checkout, a row that is slower by more is a finding.
_MOST_SLOWER = 1.05
_SPEED, _NO_SPEED = "standalone", "standalone, without hiredis"
_UNOBSERVED = "standalone, observation cut out"
_CONFIRMED, _TLS, _AWAY, _RECORDING = ", `replicas=1`", ", TLS", ", behind a proxy", ", OpenTelemetry recording"
_ELSEWHERE = (
    "sentinel",
    f"sentinel{_CONFIRMED}",
    "cluster",
    f"cluster{_CONFIRMED}",
    f"standalone{_TLS}",
    f"standalone{_AWAY}",
)


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


_TURNS = ("end", "steps")
_RUN_LANES = (*_TURNS, "ours", "sdk")
_RUNS = {
    "a run of one model call": ("", 0),
    f"a run with {TOOL_ROUNDS} rounds of tools": ("_with_tools", TOOL_ROUNDS),
}
# Until all that wait have a place in the queue, and ask as rarely as it says.
_FORMING_SECONDS = 1.5


@dataclass(frozen=True)
class Lane:
    """One of the things that take turns: a contender within a setup."""

    setup: str
    contender: str


def standalone(common: Mapping[str, Any], *, quick: bool) -> list[Row]:
    """Measure every load of every contender, with redis-py's parsers both, and what telemetry and memory cost.

    Args:
        common: ``conversations`` and ``processor`` of every worker's setup.
        quick: Whether few rounds will do.
    """
    setups = (_SPEED,) if quick else (_SPEED, _NO_SPEED)
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = stack.enter_context(lab.start("standalone"))
        started = (*setups, _SPEED + _RECORDING, _UNOBSERVED)
        workers = {setup: stack.enter_context(_worker(servers, setup, common)) for setup in started}
        for measurement in MEASUREMENTS:
            lanes = [Lane(setup, name) for setup in setups for name in _ALL]
            if measurement is _APPEND:
                lanes += [Lane(_SPEED + _RECORDING, "ours"), Lane(_UNOBSERVED, "ours")]
            samples = _interleaved(workers, lanes, measurement, quick=quick)
            rows += [_row(measurement, setup, samples, measured=setup == _SPEED) for setup in setups]
            if measurement is _APPEND:
                rows += [_recording_row(_SPEED, samples, ("<=", 1.1)), _off_row(samples)]
        rows += _memory_rows(servers.url, real_items(common["conversations"]))
    return rows


def elsewhere(common: Mapping[str, Any]) -> list[Row]:
    """Measure the append on other servers, confirmed by a replica and further away, beside the bare commands there."""
    rows = []
    for setup in _ELSEWHERE:
        with ExitStack() as stack:
            servers = stack.enter_context(_servers(setup))
            workers = {
                name: stack.enter_context(_worker(servers, name, common)) for name in (setup, setup + _RECORDING)
            }
            lanes = [Lane(setup, "ours"), Lane(setup, "floor"), Lane(setup + _RECORDING, "ours")]
            samples = _interleaved(workers, lanes, _APPEND, quick=False)
            rows += [_row(_APPEND, setup, samples, measured=False), _recording_row(setup, samples)]
    return rows


def turns(common: Mapping[str, Any], *, quick: bool) -> list[Row]:
    """Measure runs in turns beside the same runs without one, and a queue of turns that wait.

    Args:
        common: ``conversations`` and ``processor`` of every worker's setup.
        quick: Whether few rounds will do.
    """
    setups = (_SPEED, _SPEED + _AWAY)
    with ExitStack() as stack:
        servers = {setup: stack.enter_context(_servers(setup)) for setup in setups}
        workers = {setup: stack.enter_context(_worker(servers[setup], setup, common)) for setup in setups}
        rows = _round_trip_rows(servers[_SPEED + _AWAY], workers[_SPEED + _AWAY])
        for title, (suffix, _) in _RUNS.items():
            for setup in setups[:1] if quick else setups:
                lanes = [Lane(setup, name) for name in _RUN_LANES]
                measurement = Measurement(title, f"calls{suffix}", "µs", 40, {})
                samples = _interleaved(workers, lanes, measurement, quick=quick)
                times = {lane.contender: found for lane, found in samples.items()}
                rows += [_turn_row(title, f'{setup}, `save="{save}"`', "µs", save, times) for save in _TURNS]
        return rows + _waiting_rows(servers[_SPEED], workers[_SPEED], quick=quick)


def _round_trip_rows(servers: lab.Lab, worker: Worker) -> list[Row]:
    """Count what passes the proxy while the SDK's Runner runs. A first sample connects and sends the scripts."""
    (proxy,) = [node.proxy for node in servers.nodes if node.proxy]
    rows = []
    for title, (suffix, tool_rounds) in _RUNS.items():
        counted = {}
        for name in _RUN_LANES:
            worker.sample(f"run{suffix}", name)
            proxy.reset_counters()
            worker.sample(f"run{suffix}", name)
            counted[name] = [proxy.round_trips / RUNS]
        for save, most in (("end", 2), ("steps", 2 + tool_rounds)):
            rows.append(_turn_row(title, f'standalone, `save="{save}"`', "round trips", save, counted, most))
    return rows


def _turn_row(
    title: str,
    setup: str,
    unit: Unit,
    save: str,
    samples: Mapping[str, Sequence[float]],
    most: float | None = None,
) -> Row:
    """Return what a turn costs beside the same run without one."""
    lanes = {"turn": save, "session": "ours", "sdk": "sdk"}
    figures = {name: _in_unit(unit, statistics.median(samples[lane])) for name, lane in lanes.items()}
    ratios = [Ratio(name, _ratio(unit, samples[save], samples[lanes[name]])) for name in ("session", "sdk")]
    return Row(title, setup, unit, figures, ratios, most=most)


def _waiting_rows(servers: lab.Lab, worker: Worker, *, quick: bool) -> list[Row]:
    """Measure what a queue costs the server and those that wait, and how soon the next one's turn begins."""
    (server,) = servers.nodes
    shares: dict[str, list[float]] = {"server": [], "clients": []}
    took = []
    for _ in range(1 if quick else 3):
        worker.sample("wait", "steps")
        time.sleep(_FORMING_SECONDS)
        began, used = time.monotonic(), (_used_seconds(server), worker.sample("processor_seconds", "steps"))
        time.sleep(1.0 if quick else 5.0)
        using = (_used_seconds(server), worker.sample("processor_seconds", "steps"))
        for name, before, after in zip(shares, used, using, strict=True):
            shares[name].append((after - before) / (time.monotonic() - began))
        took.append(worker.sample("hand_over", "steps"))
    title = f"{WAITING} turns that wait"
    return [
        _waiting_row(title, "standalone, the server's processor time", "% of a core", shares["server"], 5),
        _waiting_row(title, "standalone, the processor time of all that wait", "% of a core", shares["clients"]),
        _waiting_row(title, "standalone, from the end of a turn to the next one's begin", "ms", took, 100),
    ]


def _waiting_row(title: str, setup: str, unit: Unit, samples: Sequence[float], most: float | None = None) -> Row:
    return Row(title, setup, unit, {"turn": _in_unit(unit, statistics.median(samples))}, most=most)


def _used_seconds(server: lab.Node) -> float:
    told = server.ask("INFO", "cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def beside(common: Mapping[str, Any], checkout: Path) -> list[Row]:
    """Measure every load with this code and another checkout's, in turn: did a change make anything slower?

    Two workers run the other's code. How far apart these are is the noise.

    Args:
        common: ``conversations`` and ``processor`` of every worker's setup.
        checkout: Root of the other working tree; this interpreter runs its source.
    """
    rows = []
    for setup in (_SPEED, _NO_SPEED, _SPEED + _RECORDING, *_ELSEWHERE):
        with ExitStack() as stack:
            servers = stack.enter_context(_servers(setup))
            workers = {
                name: stack.enter_context(_worker(servers, setup, common, other))
                for name, other in (("ours", None), ("before", checkout), ("again", checkout))
            }
            for measurement in MEASUREMENTS if setup in (_SPEED, _NO_SPEED) else (_APPEND,):
                lanes = [Lane(name, "ours") for name in workers]
                samples = _interleaved(workers, lanes, measurement, quick=False)
                rows.append(_beside_row(measurement, setup, {lane.setup: samples[lane] for lane in lanes}))
    return rows


def _beside_row(measurement: Measurement, setup: str, samples: Mapping[str, Sequence[float]]) -> Row:
    unit = measurement.unit
    bound: Target = (">=", 1 / _MOST_SLOWER) if unit == "/s" else ("<=", _MOST_SLOWER)
    ratios = [
        Ratio("before", _ratio(unit, samples["ours"], samples["before"]), bound),
        Ratio("again", _ratio(unit, samples["again"], samples["before"])),
    ]
    figures = {name: _in_unit(unit, statistics.median(times)) for name, times in samples.items()}
    return Row(measurement.title, setup, unit, figures, ratios)


def _servers(setup: str) -> lab.Lab:
    topology: Any = setup.partition(",")[0]
    return lab.start(topology, tls=_TLS in setup, proxies=_AWAY in setup)


def _worker(servers: lab.Lab, setup: str, common: Mapping[str, Any], checkout: Path | None = None) -> Worker:
    return Worker(
        {
            **common,
            "url": f"{servers.url}{'?replicas=1' if _CONFIRMED in setup else ''}",
            "floor_address": servers.primary(f"{{{_FLOOR_TAG}}}").dial_address,
            "floor_tag": _FLOOR_TAG,
            "python_parser": setup == _NO_SPEED,
            "telemetry": setup.endswith(_RECORDING),
            "unobserved": setup == _UNOBSERVED,
        },
        checkout,
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


def _recording_row(setup: str, samples: Mapping[Lane, Sequence[float]], target: Target | None = None) -> Row:
    """Return what recording costs beside an application without OpenTelemetry."""
    recorded, off = samples[Lane(setup + _RECORDING, "ours")], samples[Lane(setup, "ours")]
    return _telemetry_row(setup + _RECORDING, recorded, ("plain", off), samples[Lane(setup, "floor")], target)


def _off_row(samples: Mapping[Lane, Sequence[float]]) -> Row:
    """Return what is left of it there, beside the same code without what observes."""
    off, unobserved, floor = (
        samples[lane] for lane in (Lane(_SPEED, "ours"), Lane(_UNOBSERVED, "ours"), Lane(_SPEED, "floor"))
    )
    return _telemetry_row("standalone, OpenTelemetry off", off, ("unobserved", unobserved), floor, ("<=", 1.1))


def _telemetry_row(
    setup: str,
    ours: Sequence[float],
    against: tuple[str, Sequence[float]],
    floor: Sequence[float],
    target: Target | None,
) -> Row:
    name, others = against
    figures = {"ours": ours, name: others, "floor": floor}
    medians = {who: _in_unit(_APPEND.unit, statistics.median(times)) for who, times in figures.items()}
    ratios = [
        Ratio(name, _ratio(_APPEND.unit, ours, others), target),
        Ratio("floor", _ratio(_APPEND.unit, ours, floor)),
    ]
    return Row(_APPEND.title, setup, _APPEND.unit, medians, ratios)


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
    if unit == "/s":
        return 1 / seconds
    return seconds * {"µs": 1e6, "ms": 1e3, "% of a core": 100}.get(unit, 1)
