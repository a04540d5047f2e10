"""How much longer than the servers themselves a worker goes without success: ``python -m tests.failover.gaps --help``.

A run starts a topology, has four tasks append to sessions of one primary and a probe write straight to the servers that
may hold these sessions, and hits that primary. What counts is the difference within a run: how long the servers take to
notice and to elect is theirs, and varies.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from agents_redis_ha import ha_session, lab, session_keys
from tests.failover.probe import Probe

TOPOLOGIES, FAULTS = ("sentinel", "cluster"), ("kill", "stall")
TARGET_SECONDS = 0.2
_TASKS = 4
_WARM_UP_SECONDS = 1.0
_GIVE_UP_SECONDS = 20.0
_AFTERWARDS_SECONDS = 1.5
_PREFIX = "agents:ha"


@dataclass(frozen=True)
class Run:
    """One fault.

    Attributes:
        topology: Where.
        fault: Which.
        servers_seconds: Longest time in which no node accepted a write of the probe.
        worker_seconds: Longest time between two successful calls of any one task.
        failed: Number of calls that raised an error.
    """

    topology: str
    fault: str
    servers_seconds: float
    worker_seconds: float
    failed: int

    @property
    def excess_seconds(self) -> float:
        """What the client adds."""
        return self.worker_seconds - self.servers_seconds


def main() -> int:
    """Measure; return 1 if a median exceeds the target and that was asked for."""
    options = _options()
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    runs = []
    for topology, fault, _ in itertools.product(options.topology, options.fault, range(options.runs)):
        runs.append(asyncio.run(measure(topology, fault)))
        print(_line(runs[-1]), file=sys.stderr, flush=True)
    groups = list(_groups(runs))
    print(json.dumps([asdict(run) for run in runs], indent=2) if options.json else _table(groups))
    missed = any(median(run.excess_seconds for run in group) > TARGET_SECONDS for group in groups)
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.failover.gaps", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each topology and fault")
    parser.add_argument("--topology", nargs="+", choices=TOPOLOGIES, default=TOPOLOGIES)
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 if a median exceeds {TARGET_SECONDS} s")
    return parser.parse_args()


async def measure(topology: Any, fault: str) -> Run:
    """Return what one fault on a fresh topology did to the servers and to a worker."""
    with await asyncio.to_thread(lab.start, topology) as servers:
        victim = servers.primary()
        ids = list(itertools.islice(_ids_of(servers, victim), _TASKS))
        candidates = [victim, *servers.replicas_of(victim)]
        tag = session_keys(_PREFIX, ids[0]).items.decode().partition("{")[2].partition("}")[0]
        probe = Probe([node.port for node in candidates], f"probe:{{{tag}}}")
        try:
            worker = _Worker(servers, ids)
            await asyncio.sleep(_WARM_UP_SECONDS)
            began = time.monotonic()
            hit = servers.kill if fault == "kill" else servers.stall
            await asyncio.to_thread(hit, victim)
            await worker.recovered(began)
            await asyncio.sleep(_AFTERWARDS_SECONDS)
            await worker.stop()
            accepted = await asyncio.to_thread(probe.accepted)
        finally:
            probe.close()
        return Run(topology, fault, _longest(accepted, began), worker.longest(began), worker.failed)


def _ids_of(servers: lab.Lab, owner: lab.Node) -> Iterator[str]:
    """Yield session ids whose keys this node holds."""
    for number in itertools.count():
        session_id = f"gap-{number}"
        if servers.topology != "cluster" or servers.primary(session_keys(_PREFIX, session_id).items) is owner:
            yield session_id


class _Worker:
    """Tasks that append, each to a session of its own, and note when a call succeeded."""

    def __init__(self, servers: lab.Lab, ids: Sequence[str]) -> None:
        self.failed = 0
        self._done: list[list[float]] = [[] for _ in ids]
        self._ends = False
        sessions = [ha_session(servers.config(), session_id, key_prefix=_PREFIX) for session_id in ids]
        self._tasks = [asyncio.ensure_future(self._append(*pair)) for pair in zip(sessions, self._done, strict=True)]

    async def _append(self, session: Any, done: list[float]) -> None:
        while not self._ends:
            try:
                await session.add_items([{"role": "user", "content": "hello"}])
                done.append(time.monotonic())
            except Exception as error:  # noqa: BLE001 (counted; the gap goes on)
                self.failed += 1
                print(error, file=sys.stderr)
            await asyncio.sleep(0.002)

    async def recovered(self, began: float) -> None:
        """Wait until each task has succeeded after the longest silence that a fault can cause."""
        while time.monotonic() - began < _GIVE_UP_SECONDS:
            await asyncio.sleep(0.1)
            # The last replies of before may arrive after the fault: a second without any is an outage.
            if all(done and done[-1] > began and _longest(done, began) > 0.5 for done in self._done):
                return

    async def stop(self) -> None:
        """End the tasks."""
        self._ends = True
        await asyncio.wait(self._tasks)

    def longest(self, began: float) -> float:
        """Return the longest silence of any one task, in seconds."""
        return max(_longest(done, began) for done in self._done)


def _longest(times: Sequence[float], began: float) -> float:
    """Return the longest time between two successes of which the latter is after the fault began."""
    return max((after - before for before, after in pairwise(times) if after > began), default=float("inf"))


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    for _, group in itertools.groupby(runs, key=lambda run: (run.topology, run.fault)):
        yield list(group)


def _line(run: Run) -> str:
    figures = f"servers {run.servers_seconds:.3f} s, worker {run.worker_seconds:.3f} s"
    return f"{run.topology} {run.fault}: {figures}, excess {run.excess_seconds:.3f} s, failed calls {run.failed}"


def _table(groups: Sequence[Sequence[Run]]) -> str:
    lines = [
        "| Topology | Fault | Runs | Servers | Worker | Excess | Least to most |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for group in groups:
        excess = sorted(run.excess_seconds for run in group)
        figures = [median(run.servers_seconds for run in group), median(run.worker_seconds for run in group)]
        cells = [f"{seconds:.2f} s" for seconds in (*figures, median(excess))]
        span = f"{excess[0]:.2f} to {excess[-1]:.2f} s"
        lines.append(f"| {' | '.join([group[0].topology, group[0].fault, str(len(group)), *cells, span])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
