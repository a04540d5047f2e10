"""The worker processes, as the parent sees them."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any

from .messages import (
    TurnResult,
    TurnTask,
    WorkerReady,
    WorkerSetup,
)
from .worker import worker_main

STOP_SECONDS = 5.0


class FleetError(RuntimeError):
    """A worker process did not start, or ended by itself."""


class Fleet:
    """A number of fresh Python processes, each with an event loop and connections of its own.

    Args:
        setups: One for each process.
    """

    def __init__(self, setups: Sequence[WorkerSetup]) -> None:
        context = get_context("spawn")  # a fork would share sockets and the state of libraries
        self._outbox: Queue[TurnResult | WorkerReady] = context.Queue()
        self._inboxes: list[Queue[TurnTask | None]] = [context.Queue() for _ in setups]
        self._processes: list[SpawnProcess] = [
            context.Process(
                target=worker_main,
                args=(setup, inbox, self._outbox),
                name=f"agents-redis-ha-worker-{setup.number}",
                daemon=True,
            )
            for setup, inbox in zip(setups, self._inboxes, strict=True)
        ]

    def __enter__(self) -> Fleet:
        with ExitStack() as undo:
            undo.callback(self._end)
            for process in self._processes:
                process.start()
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0.0 if error else STOP_SECONDS)

    @property
    def process_ids(self) -> list[int]:
        """The ids of the processes."""
        return [process.pid or 0 for process in self._processes]

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until every worker has started.

        Raises:
            FleetError: One did not, in time or at all.
        """
        deadline = time.monotonic() + timeout_seconds
        missing = set(range(len(self._processes)))
        while missing:
            if time.monotonic() > deadline:
                raise FleetError(f"workers {sorted(missing)} did not start in time")
            message = self.receive(0.2)
            if isinstance(message, WorkerReady):
                missing.discard(message.worker)

    def send(self, worker: int, task: TurnTask) -> None:
        """Have a worker run a turn."""
        self._inboxes[worker].put(task)

    def receive(self, timeout_seconds: float) -> TurnResult | WorkerReady | None:
        """The next message of any worker; ``None`` if there is none in time.

        Raises:
            FleetError: There is none, and a worker has ended.
        """
        try:
            return self._outbox.get(timeout=timeout_seconds)
        except queue.Empty:
            for number, process in enumerate(self._processes):
                if process.exitcode is not None:
                    message = f"worker {number} ended with exit code {process.exitcode}"
                    raise FleetError(message) from None
            return None

    def stop(self, grace_seconds: float) -> None:
        """End the processes: those that do not end by themselves in time are killed."""
        for inbox in self._inboxes:
            inbox.put(None)
        deadline = time.monotonic() + grace_seconds
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join()
        channels: list[Queue[Any]] = [self._outbox, *self._inboxes]
        for channel in channels:
            channel.cancel_join_thread()
            channel.close()
