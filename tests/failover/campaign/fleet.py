"""The worker processes, as the parent sees them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType

from agents_redis_ha.lab import wait_until
from tests.failover.campaign.history import Call
from tests.failover.campaign.record import load
from tests.failover.campaign.worker import WorkerSetup, worker_main

START_SECONDS = 30.0
_BEGUN_BYTES = 2_000  # a dozen calls


class Fleet:
    """Fresh Python processes that work until they are told to stop.

    Args:
        setups: One for each process.

    Attributes:
        setups: The same.
        killed: Names of the workers that were killed on purpose.
        problems: What went wrong with a worker itself.
    """

    def __init__(self, setups: Sequence[WorkerSetup]) -> None:
        context = get_context("spawn")  # a fork would share sockets and the state of libraries
        self.setups = list(setups)
        self.killed: set[str] = set()
        self.problems: list[str] = []
        self._processes: dict[str, SpawnProcess] = {
            setup.name: context.Process(target=worker_main, args=(setup,), name=setup.name, daemon=True)
            for setup in setups
        }

    def __enter__(self) -> Fleet:
        for process in self._processes.values():
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.is_alive():
                process.kill()
            process.join()

    def wait_until_working(self) -> None:
        """Return when every worker has made its first calls."""
        for setup in self.setups:
            wait_until(partial(_has_begun, setup.record), f"{setup.name} to work", START_SECONDS)

    def kill(self, name: str) -> None:
        """End a worker with SIGKILL."""
        self.killed.add(name)
        self._processes[name].kill()
        self._processes[name].join()

    def stop(self, timeout_seconds: float) -> None:
        """Tell all workers to stop, and wait until they have read their sessions once more and ended."""
        for process in self._processes.values():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        for name, process in self._processes.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                self.problems.append(f"{name} did not stop within {timeout_seconds:g} s")
                self.kill(name)
            elif process.exitcode != 0 and name not in self.killed:
                self.problems.append(f"{name} ended by itself with code {process.exitcode}")

    def put_back(self) -> int:
        """Return how many changes that the servers had lost were put back by those who stopped in order."""
        return sum(int(setup.put_back.read_text()) for setup in self.setups if setup.put_back.exists())

    def calls(self) -> list[Call]:
        """Return what all workers recorded."""
        return [call for setup in self.setups for call in load(setup.record)]


def _has_begun(record: Path) -> bool:
    return record.exists() and record.stat().st_size > _BEGUN_BYTES
