"""Worker processes: fresh Python processes that serve their parent over a pipe each.

A pipe belongs to one worker alone, so a worker that is killed leaves no lock behind that others wait for, and its end
is seen by both sides: the parent learns that a worker has ended, a worker ends when its parent has died.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from .errors import WorkerError

SetupT = TypeVar("SetupT")

_READY = "ready"
_END_SECONDS = 60.0  # from the end of a worker's pipe to that of its process; a fraction of a second on an idle machine


class Parent:
    """A worker's end of its pipe.

    Args:
        pipe: The end.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        """Say that the worker works: ``WorkerProcesses.wait_until_ready`` waits for that."""
        self._pipe.send(_READY)

    def send(self, message: Any) -> None:
        """Send the parent a message; it can be pickled, and is neither ``None`` nor ``"ready"``."""
        self._pipe.send(message)

    async def messages(self) -> AsyncIterator[Any]:
        """What the parent sends, until it tells the worker to stop, or has died."""
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[Any] = asyncio.Queue()

        def read() -> None:
            message: Any = self
            while message is not None:
                try:
                    message = self._pipe.recv()
                except (EOFError, OSError):
                    message = None
                with suppress(RuntimeError):  # the loop was closed: the worker has ended by itself
                    loop.call_soon_threadsafe(received.put_nowait, message)

        # A daemon: it never holds up the end.
        threading.Thread(target=read, name="messages of the parent", daemon=True).start()
        while (message := await received.get()) is not None:
            yield message


class WorkerProcesses(Generic[SetupT]):
    """A number of processes, each with an event loop of its own; as a context manager it leaves none behind.

    Args:
        main: What each runs, found by its name in the new process; Ctrl-C does not reach it.
        setups: What each is told at its start, by the worker's name; it can be pickled.
        preload: Modules that are imported once, by a process from which the workers are forked then: they start in some
            10 ms each. None are: each starts as a Python of its own, and imports for a second or more.

    Attributes:
        names: The workers' names, also of those that were killed.
    """

    def __init__(
        self,
        main: Callable[[SetupT, Parent], Awaitable[None]],
        setups: Mapping[str, SetupT],
        *,
        preload: Sequence[str] = (),
    ) -> None:
        # A fork of this process would share its sockets and the state of its libraries.
        context: ForkServerContext | SpawnContext = get_context("spawn")
        if preload:
            context = get_context("forkserver")
            context.set_forkserver_preload(list(preload))
        self.names = tuple(setups)
        self._pipes: dict[str, Connection] = {}
        self._ends: dict[str, Connection] = {}
        self._processes: dict[str, BaseProcess] = {}
        self._ready: set[str] = set()
        self._received: deque[Any] = deque()
        for name, setup in setups.items():
            self._pipes[name], self._ends[name] = context.Pipe()
            self._processes[name] = context.Process(
                target=_run, args=(main, setup, self._ends[name]), name=f"agents-redis-ha-{name}", daemon=True
            )

    def __enter__(self) -> WorkerProcesses[SetupT]:
        with ExitStack() as undo:
            undo.callback(self._end)
            for name, process in self._processes.items():
                process.start()
                self._ends.pop(name).close()  # the worker's alone now: its end closes with it
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Return when every worker has said that it is ready.

        Raises:
            WorkerError: One has not, in time or at all.
        """
        deadline = time.monotonic() + timeout_seconds
        while missing := [name for name in self.names if name not in self._ready]:
            if time.monotonic() > deadline:
                raise WorkerError(f"{', '.join(missing)} did not start within {timeout_seconds:g} s")
            self._gather(0.2)

    def send(self, name: str, message: Any) -> None:
        """Send a worker a message; one to a worker that has ended is lost."""
        with suppress(OSError):
            self._pipes[name].send(message)

    def receive(self, timeout_seconds: float) -> Any:
        """The next message of any worker; ``None`` if there is none in time.

        Raises:
            WorkerError: A worker has ended by itself.
        """
        if not self._received:
            self._gather(timeout_seconds)
        return self._received.popleft() if self._received else None

    def pid(self, name: str) -> int:
        """The id of a worker's process, to stop it and let it go on.

        Raises:
            WorkerError: It has not been started.
        """
        pid = self._processes[name].pid
        if pid is None:
            raise WorkerError(f"{name} has not been started")
        return pid

    def kill(self, name: str) -> None:
        """End a worker with SIGKILL; what it has sent can still be received."""
        self._processes[name].kill()
        self._processes[name].join()
        with suppress(WorkerError):
            self._take(name)
        self._forget(name)

    def stop(self, grace_seconds: float) -> list[str]:
        """Tell all workers to stop, and kill those that have not ended in time.

        What they send meanwhile can be received afterwards.

        Returns:
            What went wrong, in words: who did not stop in time, or ended by itself before.
        """
        problems: list[str] = []
        for name in self._pipes:
            self.send(name, None)
        deadline = time.monotonic() + grace_seconds
        while self._pipes and time.monotonic() < deadline:
            try:
                self._gather(max(0.0, deadline - time.monotonic()), allowed_exit_code=0)
            except WorkerError as error:
                problems.append(str(error))
        for name in list(self._pipes):
            problems.append(f"{name} did not stop within {grace_seconds:g} s")
            self.kill(name)
        return problems

    def _gather(self, timeout_seconds: float, allowed_exit_code: int | None = None) -> None:
        """Take what comes within a time from whom something comes first.

        Raises:
            WorkerError: A worker has ended, with another exit code than ``allowed_exit_code``.
        """
        names = {id(pipe): name for name, pipe in self._pipes.items()}
        for pipe in connection.wait(list(self._pipes.values()), timeout_seconds):
            self._take(names[id(pipe)], allowed_exit_code)

    def _take(self, name: str, allowed_exit_code: int | None = None) -> None:
        pipe, process = self._pipes[name], self._processes[name]
        try:
            while pipe.poll():
                message = pipe.recv()
                if message == _READY:
                    self._ready.add(name)
                else:
                    self._received.append(message)
        except (EOFError, OSError):
            self._forget(name)
            process.join(_END_SECONDS)
            process.kill()  # one that hangs at its very end
            process.join()
            if process.exitcode != allowed_exit_code:
                raise WorkerError(f"{name} ended by itself with exit code {process.exitcode}") from None

    def _forget(self, name: str) -> None:
        pipe = self._pipes.pop(name, None)
        if pipe is not None:
            pipe.close()

    def _end(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in (*self._pipes.values(), *self._ends.values()):
            pipe.close()
        self._pipes.clear()
        self._ends.clear()


def _run(main: Callable[[SetupT, Parent], Awaitable[None]], setup: SetupT, pipe: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends its workers

    async def serve() -> None:
        await main(setup, Parent(pipe))

    asyncio.run(serve())
