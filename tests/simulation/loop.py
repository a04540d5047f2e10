"""An event loop with virtual time, on which several processes live: no sockets, no threads, no waiting.

Time moves when nothing is ready; until then a turn takes a microsecond. What is ready runs first in, first out, as in
asyncio's own loop: other orders would be histories that cannot be. Timers run by their time, and in the order in which
they were set where the time is the same.

What a process starts belongs to it, by inheritance: a handle has the owner of the handle in which it was made. So a
process can be stopped (what is ready for it waits) and killed (it is dropped, and no ``finally`` runs).
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any

# What a turn of the loop takes: a task that tries again and again comes to its deadline.
_TURN_SECONDS = 1e-6
# A coroutine that is closed may await so often on its way out.
_MOST_AWAITS = 100


class RunawayError(Exception):
    """The run took more steps or more virtual time than it may: something waits, or tries again, for ever."""


class Handle:
    """A callback that is to run; asyncio asks it for no more than this."""

    __slots__ = ("_args", "_callback", "_context", "_when", "arrived", "owner")

    def __init__(
        self, callback: Callable[..., object], args: Any, context: Context | None, owner: Process | None
    ) -> None:
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._context = context
        self._when = 0.0
        self.owner = owner
        self.arrived = False

    def cancel(self) -> None:
        self._callback = self._args = None

    def cancelled(self) -> bool:
        return self._callback is None

    def when(self) -> float:
        return self._when


class _Dropped(deque[Handle]):
    """Where the handles of a process go that was killed."""

    def append(self, handle: Handle) -> None:
        handle.cancel()


class Process:
    """What belongs together, is stopped together and dies together.

    Attributes:
        name: Its name.
        held: What is ready and has to wait; None while the process runs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: deque[Handle] | None = None

    @property
    def is_dead(self) -> bool:
        return isinstance(self.held, _Dropped)

    def stop(self) -> None:
        """Stand still, as after SIGSTOP."""
        if self.held is None:
            self.held = deque()


class Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    number = 0
    owner: Process | None = None

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in virtual time.

    Attributes:
        owner: The process whose callback runs now; None for the world itself.
        steps: Callbacks whose turn has come.
        problems: What reached the loop's exception handler.
    """

    def __init__(self, *, most_seconds: float = 3600.0, most_steps: int = 5_000_000) -> None:
        """Make a loop at time 1000.

        Args:
            most_seconds: Of virtual time, for the whole run.
            most_steps: Callbacks, for the whole run.
        """
        self._now = 1000.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._sequence = 0
        self._tasks = 0
        self._end = self._now + most_seconds
        self._most_steps = most_steps
        self._running = self._closed = False
        self.owner: Process | None = None
        self.steps = 0
        self.problems: list[dict[str, Any]] = []
        self._buried: list[Any] = []
        self.connect: Callable[..., Coroutine[Any, Any, Any]] | None = None

    def time(self) -> float:
        return self._now

    # -- callbacks

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = Handle(callback, args, copy_context() if context is None else context, self.owner)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = Handle(callback, args, copy_context() if context is None else context, self.owner)
        handle._when = when
        self._sequence += 1
        heappush(self._timers, (when, self._sequence, handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def deliver_at(self, when: float, owner: Process | None, callback: Any, *args: Any) -> Handle:
        """Call something then for a process, for which it counts as having arrived from outside."""
        handle = Handle(callback, args, None, owner)
        handle.arrived = True
        self._sequence += 1
        heappush(self._timers, (when, self._sequence, handle))
        return handle

    def resume(self, process: Process) -> None:
        """Let a stopped process go on: what arrived meanwhile first, then the timers that are due."""
        held = process.held
        if held is not None and not process.is_dead:
            process.held = None
            self._ready.extend(sorted(held, key=lambda handle: not handle.arrived))

    def kill(self, process: Process) -> None:
        """End a process at once, as by SIGKILL: none of its tasks goes on, not even to its ``finally``."""
        self._buried.extend(task for task in self._left() if task.owner is process)
        held, process.held = process.held, _Dropped()
        for handle in held or ():
            handle.cancel()

    def _left(self) -> list[Any]:
        return sorted((task for task in asyncio.all_tasks(self) if isinstance(task, Task)), key=hash)

    # -- running

    def run_until_complete(self, future: Any) -> Any:
        task = future if isinstance(future, asyncio.Future) else self.create_task(future)
        events._set_running_loop(self)
        self._running = True
        try:
            while not task.done():
                self._turn()
        finally:
            self._running = False
            events._set_running_loop(None)
        return task.result()

    def _turn(self) -> None:
        ready = self._ready
        self._now += _TURN_SECONDS
        if not ready:
            self._move_time()
        elif self._timers and self._timers[0][0] <= self._now:
            self._take_due()
        count = len(ready)
        self.steps += count
        for _ in range(count):
            handle = ready.popleft()
            callback = handle._callback
            if callback is None:
                continue
            owner = handle.owner
            if owner is not None and owner.held is not None:
                owner.held.append(handle)
                continue
            self.owner = owner
            context = handle._context
            try:
                if context is None:
                    callback(*handle._args)
                else:
                    context.run(callback, *handle._args)
            except (SystemExit, KeyboardInterrupt, RunawayError):
                raise
            except BaseException as error:  # noqa: BLE001 (as asyncio's loop does)
                self.call_exception_handler({"message": f"in {callback!r}", "exception": error})
        self.owner = None
        if self.steps > self._most_steps:
            raise RunawayError(f"{self.steps} steps until {self._now:.3f}")

    def _move_time(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._callback is None:
            heappop(timers)
        if not timers:
            raise RunawayError("every task waits, and nothing is left that could wake one")
        self._now = max(self._now, timers[0][0])
        if self._now > self._end:
            raise RunawayError(f"still waiting at {self._now:.3f}")
        self._take_due()

    def _take_due(self) -> None:
        timers, ready, now = self._timers, self._ready, self._now
        while timers and timers[0][0] <= now:
            ready.append(heappop(timers)[2])

    def close(self) -> None:
        """End what is left, without a word: tasks of killed processes, and what waits for ever.

        Left to a collection of garbage, their ``finally`` would run without a loop, and asyncio would make a real one.
        """
        self._closed = True
        events._set_running_loop(self)
        try:
            ended: set[Any] = set()
            while left := [task for task in (*self._buried, *self._left()) if task not in ended]:
                for task in left:
                    _unwind(task)
                ended.update(left)
        finally:
            events._set_running_loop(None)
        self._ready.clear()
        self._timers.clear()
        self._buried.clear()

    # -- what asyncio and its users ask for

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **kwargs: Any) -> Any:
        self._tasks += 1
        kwargs["name"] = f"Task-{self._tasks}"
        Task.number = self._tasks  # until it has one of its own: a task is put into a set while it is made
        task = Task(coro, loop=self, **kwargs)
        task.number = self._tasks
        task.owner = self.owner
        return task

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **kwargs: Any) -> Any:
        assert self.connect is not None
        return await self.connect(self.owner, protocol_factory, host, port, tls=bool(kwargs.get("ssl")))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Nothing is counted: a handle that was cancelled is passed over when its time comes."""

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed


def _unwind(task: Any) -> None:
    """Close a task's coroutine; one that awaits in its ``finally`` is closed again there."""
    task._log_destroy_pending = False
    for _ in range(_MOST_AWAITS):
        try:
            task.get_coro().close()
        except RuntimeError:  # it went on to another await
            continue
        except Exception:  # noqa: BLE001 (nobody is left to hear of it)
            pass
        return


@contextmanager
def quiet_end() -> Iterator[None]:
    """Collect no garbage until the end, and then without a word of coroutines that were never to go on.

    What is found by a collection, and when, depends on addresses.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect(0)  # what the run made, collection being off meanwhile: all of it would take 0.2 s
    finally:
        if was_enabled:
            gc.enable()
        sys.unraisablehook = hook
