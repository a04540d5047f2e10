"""A process that measures on demand, and the handle by which the benchmark drives it.

redis-py's parser and OpenTelemetry's providers are chosen once a process. So each such setup has a process of its own,
all of them up at the same time, and the benchmark asks them in turn for one sample each: what slows the machine down
for a while slows all of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


def keep_apart() -> int | None:
    """Leave this process, and the servers it starts, one processor, and return another for the workers.

    Else it depends on where the system puts them whether a worker does anything while it waits for a reply: what is
    done meanwhile then costs nothing in one process and all in another.

    Returns:
        None where there is only one processor, or no such choice.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) == 1:
        return None
    os.sched_setaffinity(0, processors[:1])
    return processors[1]


class Worker:
    """A child process with one setup.

    Args:
        setup: ``url``, ``floor_address``, ``floor_tag``, ``conversations``, ``python_parser``, ``telemetry``,
            ``unobserved``, ``processor``.
        checkout: Root of another working tree whose code is measured; None means this code.
    """

    def __init__(self, setup: Mapping[str, Any], checkout: Path | None = None) -> None:
        command = [sys.executable, "-m", __name__, json.dumps(setup)]
        path = {} if checkout is None else {"PYTHONPATH": str(checkout / "src")}
        self._process = subprocess.Popen(
            command, cwd=checkout, env={**os.environ, **path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def sample(self, load: str, contender: str) -> float:
        """Return the seconds that one operation of a load took a contender.

        Raises:
            RuntimeError: The process failed; its traceback is on stderr.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._process.stdin.write(f"{load} {contender}\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the worker ended while it measured {load} of {contender}")
        return float(reply)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def _record_in_memory() -> None:
    """Set OpenTelemetry up as an application does, with exporters that keep what they are given in memory."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


class _Nothing:
    """What observes an operation, with nothing in it."""

    attempts, node = 1, None

    def __init__(self, operation: str, topology: str, *_: Any) -> None:
        self.operation, self.topology = operation, topology

    def note(self, *_: Any) -> None:
        """Note nothing."""

    request_sent = attempt_began = failed = answered = repeated = unconfirmed = restored = lost = finish = note


def _observe_nothing() -> None:
    """Cut the code that observes out: what is left is the least that an operation can take."""
    from agents_redis_ha._recovery import coordinator
    from agents_redis_ha._sessions import session

    modules: tuple[Any, ...] = (session, coordinator)
    for module in modules:
        module.OperationSpan = _Nothing


async def _serve(setup: Mapping[str, Any]) -> None:
    from tests.benchmarks import turns
    from tests.benchmarks.contenders import contenders
    from tests.benchmarks.loads import LOADS, Load, real_items

    found = contenders(setup["url"], setup["floor_address"], setup["floor_tag"])
    load, queue = Load(real_items(setup["conversations"])), turns.Queue()
    loads = {**LOADS, **turns.LOADS, "wait": queue.form, "hand_over": queue.hand_over}
    try:
        # In a thread, so that connections and Sentinels are attended to between two samples.
        while line := await asyncio.to_thread(sys.stdin.readline):
            task, name = line.split()
            print(await loads[task](name, found[name], load), flush=True)
    finally:
        for contender in found.values():
            await contender.close()


def main() -> None:
    """Serve one setup until stdin ends."""
    setup = json.loads(sys.argv[1])
    if setup["processor"] is not None:
        os.sched_setaffinity(0, {setup["processor"]})
    if setup["python_parser"]:
        sys.modules["hiredis"] = None  # type: ignore[assignment]  # redis-py then uses its own parser, as without [speed]
    if setup["telemetry"]:
        _record_in_memory()
    if setup["unobserved"]:
        _observe_nothing()
    asyncio.run(_serve(setup))


if __name__ == "__main__":
    main()
