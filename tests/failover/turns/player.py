"""The parent's side of a worker process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from agents.memory import SQLiteSession

from agents_redis_ha import HAConfig
from agents_redis_ha.lab.workers import WorkerProcesses
from tests.failover.turns.worker import PRELOAD, Delivery, Done, Go, Halted, Setup, agent_of, run, serve

__all__ = ["PATIENCE_SECONDS", "Player", "undisturbed"]

PATIENCE_SECONDS = 120.0
"""For all that has to come about, however busy the machine is."""

_NAME = "worker"


class Player:
    """A worker process, which can be killed and started again; as a context manager it leaves none behind."""

    def __init__(self, config: HAConfig, log: Path) -> None:
        self._setup = Setup(config=config, log=log)
        self._process: WorkerProcesses[Setup] | None = None

    def __enter__(self) -> Player:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _start(self) -> None:
        self._process = WorkerProcesses(serve, {_NAME: self._setup}, preload=PRELOAD)
        self._process.__enter__()
        self._process.wait_until_ready(PATIENCE_SECONDS)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self._process is not None:
            self._process.__exit__(None, None, None)
            self._process = None

    def restart(self) -> None:
        """Kill the process, and start another one."""
        self.kill()
        self._start()

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        os.kill(self._running.pid(_NAME), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self._running.pid(_NAME), signal.SIGCONT)

    @property
    def _running(self) -> WorkerProcesses[Setup]:
        assert self._process is not None
        return self._process

    def send(self, message: Any) -> None:
        """Send what the worker understands."""
        self._running.send(_NAME, message)

    def receive(self) -> Any:
        """Return the next thing that the worker says.

        Raises:
            TimeoutError: It says nothing.
        """
        said = self._running.receive(PATIENCE_SECONDS)
        if said is None:
            raise TimeoutError("the worker says nothing")
        return said

    def heard(self, seconds: float) -> list[Any]:
        """Return what the worker has said, or says within a time."""
        said = self._running.receive(seconds)
        return [] if said is None else [said, *self.heard(0)]

    def halt_at(self, delivery: Delivery, point: str) -> None:
        """Deliver a turn, and return when it has come to a point."""
        self.send(delivery)
        said = self.receive()
        assert said == Halted(delivery.turn_id, point), said

    def go(self, delivery: Delivery, point: str) -> None:
        """Let it go on from there."""
        self.send(Go(delivery.turn_id, point))

    def answer(self, delivery: Delivery) -> tuple[Done, list[Done]]:
        """Deliver a turn until it is answered; return its end, and the errors before that."""
        errors: list[Done] = []
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            self.send(delivery)
            done = self.receive()
            if done.is_answered:
                return done, errors
            errors.append(done)
        raise TimeoutError(f"{delivery.turn_id} is not answered: {errors[-3:]}")


def undisturbed(*deliveries: Delivery) -> tuple[list[Any], list[Any]]:
    """Return the history and the results of the same runs one after another, on the SDK's own session."""

    async def play() -> tuple[list[Any], list[Any]]:
        session = SQLiteSession("undisturbed")
        results = [await run(each, session, agent_of(each), _message(each)) for each in deliveries]
        items: list[Any] = await session.get_items()
        session.close()
        return items, [result.final_output for result in results]

    return asyncio.run(play())


def _message(delivery: Delivery) -> list[Any]:
    return [delivery.conversation.turns[delivery.number].user_message]
