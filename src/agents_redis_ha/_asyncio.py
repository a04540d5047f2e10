"""Deadlines and background tasks: what asyncio leaves to its users."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

if sys.version_info >= (3, 11):
    from asyncio import timeout_at
else:
    from async_timeout import timeout_at  # redis-py brings it

__all__ = ["BackgroundTasks", "Interruption", "UnlessSilent", "retrieve_exception", "run_shielded", "timeout_at"]

_Result = TypeVar("_Result")


class UnlessSilent(Generic[_Result]):
    """Awaits an operation for as long as what it waits for keeps coming.

    While a reply is read, that is each time that bytes have arrived, whatever parser reads them. It takes one timer
    however often that is; asyncio's timeout would have to be postponed each time.
    """

    __slots__ = (
        "_at_least",
        "_awaited",
        "_interruption",
        "_loop",
        "_operation",
        "_seconds",
        "_since",
        "_timer",
        "_what",
    )

    def __init__(
        self, operation: Coroutine[Any, Any, _Result], seconds: float, what: str, *, at_least: float = 0.0
    ) -> None:
        """Begin nothing yet.

        Args:
            operation: What to await.
            seconds: The longest time in which nothing comes; then it is cancelled, and TimeoutError raised.
            what: What went wrong then, in words, before the time that it lasted.
            at_least: So many seconds it has in any case.
        """
        self._operation = operation
        self._seconds, self._at_least = seconds, at_least
        self._what = what
        self._awaited: Any = None

    def __await__(self) -> Generator[Any, None, _Result]:
        """Return the operation's result.

        Raises:
            asyncio.TimeoutError: Nothing came for too long.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._interruption = Interruption(asyncio.current_task(loop))
        self._since = loop.time()
        self._at_least += self._since
        self._timer = loop.call_later(self._seconds, self._check)
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
            self._timer.cancel()

    def _check(self) -> None:
        ends_at, now = max(self._at_least, self._since + self._seconds), self._loop.time()
        if ends_at <= now:
            self._interruption.cancel(self._awaited)
            ends_at = now + self._seconds  # if something has just come instead
        self._timer = self._loop.call_at(ends_at, self._check)


class Interruption:
    """Cancels what a task waits for, told apart from its owner's cancellation, which may come in the same moment."""

    __slots__ = ("_before", "_happened", "_task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel nothing yet.

        Args:
            task: The one that waits; never None within a coroutine.
        """
        self._task: Any = task  # Python 3.10 tells what is needed by private parts alone
        self._before: int = getattr(task, "cancelling", int)()
        self._happened = False

    def cancel(self, awaited: asyncio.Future[Any] | None) -> None:
        """Cancel what the task waits for, unless it has just come or its owner has just cancelled it."""
        if awaited is not None and awaited.cancel():
            self._happened = True
            if sys.version_info < (3, 11):
                self._task._cancel_message = self  # noqa: SLF001 (the owner's takes its place)

    def cancel_wait(self) -> None:
        """The same on Python 3.10, where the task alone knows what it waits for."""
        self.cancel(self._task._fut_waiter)  # noqa: SLF001

    def is_all(self) -> bool:
        """Whether the task's CancelledError is from here alone."""
        if sys.version_info >= (3, 11):
            return self._happened and bool(self._task.cancelling() <= self._before)
        return self._happened and self._task._cancel_message is self  # noqa: SLF001


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
