"""Deadlines and background tasks: what asyncio leaves to its users."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout_at
else:
    from async_timeout import timeout_at  # redis-py brings it

__all__ = [
    "Alarms",
    "BackgroundTasks",
    "Interruption",
    "UnlessSilent",
    "Until",
    "retrieve_exception",
    "run_shielded",
    "timeout_at",
]

_Result = TypeVar("_Result")

_SHORTLY_SECONDS = 0.001


class Alarms:
    """The ends of all waits of one event loop at a time, on one timer.

    A timer for each would be set and cancelled with each request: two of them cost 6 µs, a twentieth of an append.
    """

    __slots__ = ("_ends", "_loop", "_next", "_timer")

    def __init__(self) -> None:
        self._ends: dict[_Wait, float] = {}
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, wait: _Wait, ends_at: float, loop: asyncio.AbstractEventLoop) -> None:
        """Ring a wait at this time of the loop, if it is not over before."""
        if loop is not self._loop:  # the one before has ended, and its timer never rings
            self._ends, self._loop, self._next = {}, loop, math.inf
        self._ends[wait] = ends_at
        if ends_at < self._next:
            self._arm(ends_at, loop)

    def unset(self, wait: _Wait) -> None:
        """Leave a wait alone: it is over. The timer is left to the next one."""
        self._ends.pop(wait, None)

    def _arm(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next, self._timer = at, loop.call_at(at, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next, self._timer = math.inf, None
        now = loop.time()
        for wait, ends_at in self._ends.items():
            if ends_at <= now:
                self._ends[wait] = wait.ring(now)
        first = min(self._ends.values(), default=math.inf)
        if first < math.inf:
            self._arm(first, loop)


class _Wait(Protocol):
    """What an alarm is set for."""

    def ring(self, now: float) -> float:
        """End it, if its time is up; return when to ring again, by the loop's time."""


class Until:
    """Ends a block at a time of the loop, as `timeout_at` does, at a third of the price."""

    __slots__ = ("_alarms", "_deadline", "_interruption")

    def __init__(self, deadline: float, alarms: Alarms) -> None:
        """Begin nothing yet.

        Args:
            deadline: When the block is cancelled, and leaves with a TimeoutError.
            alarms: Of this event loop.
        """
        self._deadline, self._alarms = deadline, alarms

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._interruption = Interruption(asyncio.current_task(loop))
        self._alarms.set(self, self._deadline, loop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        self._alarms.unset(self)
        if self._interruption.take_back() and kind is asyncio.CancelledError:
            raise asyncio.TimeoutError from error

    def ring(self, now: float) -> float:
        """Cancel the task; return when to ring again."""
        self._interruption.cancel_task()
        return math.inf if self._interruption.happened else now + _SHORTLY_SECONDS


class UnlessSilent(Generic[_Result]):
    """Awaits an operation for as long as what it waits for keeps coming.

    While a reply is read, that is each time that bytes have arrived, whatever parser reads them. asyncio's timeout
    would have to be postponed each time.
    """

    __slots__ = ("_alarms", "_at_least", "_awaited", "_interruption", "_operation", "_seconds", "_since", "_what")

    def __init__(
        self,
        operation: Coroutine[Any, Any, _Result],
        seconds: float,
        what: str,
        alarms: Alarms,
        *,
        at_least: float = 0.0,
    ) -> None:
        """Begin nothing yet.

        Args:
            operation: What to await.
            seconds: The longest time in which nothing comes; then it is cancelled, and TimeoutError raised.
            what: What went wrong then, in words, before the time that it lasted.
            alarms: Of this event loop.
            at_least: So many seconds it has in any case.
        """
        self._operation, self._alarms = operation, alarms
        self._seconds, self._at_least = seconds, at_least
        self._what = what
        self._awaited: Any = None

    def __await__(self) -> Generator[Any, None, _Result]:
        """Return the operation's result.

        Raises:
            asyncio.TimeoutError: Nothing came for too long.
        """
        loop = asyncio.get_running_loop()
        self._interruption = Interruption(asyncio.current_task(loop))
        self._since = loop.time()
        self._at_least += self._since
        self._alarms.set(self, max(self._at_least, self._since + self._seconds), loop)
        operation, thrown = self._operation, None
        try:
            while True:
                self._awaited = operation.send(None) if thrown is None else operation.throw(thrown)
                thrown = None
                try:
                    yield self._awaited
                except BaseException as error:  # noqa: BLE001 (it is the operation's to handle)
                    thrown = error
                else:
                    self._since = loop.time()
        except StopIteration as end:
            result: _Result = end.value
            return result
        except asyncio.CancelledError:
            if self._interruption.is_all():
                raise asyncio.TimeoutError(f"{self._what} for {loop.time() - self._since:.3g} s") from None
            raise
        finally:
            self._alarms.unset(self)

    def ring(self, now: float) -> float:
        """Cancel what is awaited, unless something has come meanwhile; return when to ring again."""
        ends_at = max(self._at_least, self._since + self._seconds)
        if ends_at > now:
            return ends_at
        self._interruption.cancel(self._awaited)
        return math.inf if self._interruption.happened else now + _SHORTLY_SECONDS  # something has come just now


class Interruption:
    """Cancels what a task waits for, told apart from its owner's cancellation, which may come in the same moment.

    Attributes:
        happened: Whether it cancelled anything.
    """

    __slots__ = ("_before", "_task", "happened")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel nothing yet.

        Args:
            task: The one that waits; never None within a coroutine.
        """
        self._task: Any = task  # Python 3.10 tells what is needed by private parts alone
        self._before: int = getattr(task, "cancelling", int)()
        self.happened = False

    def cancel(self, awaited: asyncio.Future[Any] | None) -> None:
        """Cancel what the task waits for, unless it has just come or its owner has just cancelled it."""
        if awaited is not None and awaited.cancel():
            self._note()

    def cancel_task(self) -> None:
        """Cancel the task wherever it is, unless its owner has just cancelled it where that cannot be told apart."""
        if sys.version_info < (3, 11):
            awaited = self._task._fut_waiter  # noqa: SLF001 (nothing else tells)
            if self._task._must_cancel or (awaited is not None and awaited.cancelled()):  # noqa: SLF001 (the same)
                return
        self._task.cancel()
        self._note()

    def _note(self) -> None:
        self.happened = True
        if sys.version_info < (3, 11):
            self._task._cancel_message = self  # noqa: SLF001 (the owner's takes its place)

    def take_back(self) -> bool:
        """Take `cancel_task` back, if it happened; return whether the task's CancelledError is from there alone."""
        if sys.version_info >= (3, 11):
            return self.happened and bool(self._task.uncancel() <= self._before)
        return self.is_all()

    def is_all(self) -> bool:
        """Whether the task's CancelledError is from here alone, where what it waited for was cancelled."""
        if sys.version_info >= (3, 11):
            return self.happened and bool(self._task.cancelling() <= self._before)
        return self.happened and self._task._cancel_message is self  # noqa: SLF001


def retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Fetch the error of a background task, so that asyncio does not log it as never retrieved."""
    if not task.cancelled():
        task.exception()


async def run_shielded(operation: Coroutine[Any, Any, object]) -> None:
    """Wait for an operation's end, however often the waiter is cancelled; its result and its error are dropped."""
    task = asyncio.ensure_future(operation)
    task.add_done_callback(retrieve_exception)
    with _anyio_shield():
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))


def _anyio_shield() -> contextlib.AbstractContextManager[object]:
    """Keep the cancellation of anyio's scopes away for a while (Starlette, MCP, FastAPI).

    They cancel a task that goes on anew in each turn of the event loop: 4.3 s of processor time in an outage of 5.3 s.
    Where anyio was never imported, there is no scope.
    """
    anyio = sys.modules.get("anyio")
    return anyio.CancelScope(shield=True) if anyio else contextlib.nullcontext()


class BackgroundTasks:
    """Tasks that run on until they end by themselves; their results and their errors are dropped."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in a task of its own."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(retrieve_exception)

    async def wait(self) -> None:
        """Wait for the end of all that were started."""
        if self._tasks:
            await asyncio.wait(self._tasks)
