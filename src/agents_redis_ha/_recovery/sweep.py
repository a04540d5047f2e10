"""The sweep: after a failover or a restart the known sessions are looked at, since some are not used again for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .._asyncio import retrieve_exception
from .._commands import ReplicationHistory
from .._telemetry import OperationSpan
from .journal import Journal, SessionLog

__all__ = ["Sweep"]

# So many sessions are looked at at the same time: one may have to wait for what other processes know.
_SWEEPERS = 4
# A look costs what an append costs. After each, its task rests for so many times as long as it took: together they take
# a third of the processor, however slow that is, and 10,000 sessions 30 s. The bound is for a look that waited.
_RESTS, _LONGEST_REST_SECONDS = 12, 0.1
# Passing over a log takes 3 µs: after so many, the event loop has its turn.
_PASSED_AT_ONCE = 500


class Sweep:
    """Looks at the sessions of a journal in the background, with a few tasks however many they are."""

    def __init__(self, journal: Journal, look: Callable[[SessionLog, OperationSpan], Awaitable[None]]) -> None:
        """Make a sweep that begins when it is told of a server's data that was not known.

        Args:
            journal: The sessions.
            look: Compares one with what its server has; the span is that of the operation that led to it.
        """
        self._journal = journal
        self._look = look
        self._failovers = 0
        self._closed = False
        self._task: asyncio.Future[Any] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether sessions are being looked at."""
        return self._task is not None and not self._task.done()

    def note(self, history: ReplicationHistory, failovers: int, cause: OperationSpan) -> None:
        """Note with each reply whose data it is from; begin if another server answers than the ones that are known.

        Args:
            history: Whose data it is.
            failovers: How many failovers there were: where no replication id is told, only these tell.
            cause: The operation's span.
        """
        journal = self._journal
        if failovers == self._failovers and not journal.waiting and history in journal.live:
            return
        journal.meet(history, anew=failovers != self._failovers)
        self._failovers = failovers
        self._begin(cause)

    def _begin(self, cause: OperationSpan) -> None:
        """Look at the logs that wait. Those that begin to wait while this is under way are taken by its tasks, too."""
        if self._journal.waiting and not self.is_under_way and not self._closed:
            self._task = asyncio.gather(*(self._work(cause) for _ in range(_SWEEPERS)))
            self._task.add_done_callback(lambda task: self._ended(task, cause))

    def _ended(self, task: asyncio.Future[Any], cause: OperationSpan) -> None:
        retrieve_exception(task)
        if not task.cancelled():
            self._begin(cause)  # logs that began to wait when the last task had just ended

    async def _work(self, cause: OperationSpan) -> None:
        loop, passed = asyncio.get_running_loop(), 0
        while not self._closed and (log := self._journal.next_waiting()) is not None:
            if self._journal.is_settled(log):
                passed += 1
                if passed % _PASSED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            else:
                began = loop.time()
                try:
                    await self._look(log, cause)
                except asyncio.CancelledError:
                    self._journal.let_wait(log)
                    raise
                await asyncio.sleep(min(_RESTS * (loop.time() - began), _LONGEST_REST_SECONDS))

    async def aclose(self) -> None:
        """End it; the logs that are left wait for the next one."""
        self._closed = True  # a cancellation that meets a timeout may be taken for that
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
