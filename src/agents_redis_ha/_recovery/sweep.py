"""The sweep: after a failover or a restart the known sessions are looked at, since some are not used again for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from .._asyncio import retrieve_exception
from .._commands import ReplicationHistory
from .._telemetry import OperationSpan
from .journal import Journal
from .session_log import SessionLog

__all__ = ["Sweep"]

# So many sessions are looked at at the same time: one may have to wait for what other processes know.
_SWEEPERS = 4
# A look costs what an append costs. After each, its task rests for so many times as long as it took: together they take
# a third of the processor, however slow that is, and 10,000 sessions 30 s. The bound is for a look that waited.
_RESTS, _LONGEST_REST_SECONDS = 12, 0.1
# Passing over a log takes 3 µs: after so many, the event loop has its turn.
_PASSED_AT_ONCE = 500
# What could not be looked at within the deadline, as on a full server, waits so long for the next try.
_PAUSE_SECONDS = 0.25


class Sweep:
    """Looks at the sessions of a journal in the background, with a few tasks however many they are."""

    def __init__(self, journal: Journal, look: Callable[[SessionLog, OperationSpan], Awaitable[bool]]) -> None:
        """Make a sweep that begins when it is told of a server's data that was not known.

        Args:
            journal: The sessions.
            look: Compares one with what its server has, and returns whether there is no need to try again; the span is
                that of the operation that led to it.
        """
        self._journal = journal
        self._look = look
        self._failovers = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether sessions are being looked at."""
        return bool(self._tasks)

    def note(self, history: ReplicationHistory, failovers: int, cause: OperationSpan) -> None:
        """Note with each reply whose data it is from; begin if another server answers than the ones that are known.

        Args:
            history: Whose data it is.
            failovers: How many failovers there were: where no replication id is told, only these tell.
            cause: The operation's span.
        """
        journal = self._journal
        is_known = failovers == self._failovers and history in journal.live
        if is_known and not journal.waits:
            return
        if not is_known:
            self._not_before = 0.0
        journal.meet(history, anew=failovers != self._failovers)
        self._failovers = failovers
        if asyncio.get_running_loop().time() >= self._not_before:
            self._begin(cause)

    def _begin(self, cause: OperationSpan) -> None:
        """Look at the logs that wait. Those that begin to wait while this is under way are taken by its tasks, too."""
        while self._journal.waits and len(self._tasks) < _SWEEPERS and not self._closed:
            task = asyncio.ensure_future(self._work(cause))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(retrieve_exception)

    async def _work(self, cause: OperationSpan) -> None:
        await self._look_at_all(cause)
        # Now, and not only with the callback: what begins to wait from here on has to find a free place.
        self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _look_at_all(self, cause: OperationSpan) -> None:
        loop, passed, unfinished = asyncio.get_running_loop(), 0, list[SessionLog]()
        try:
            while not self._closed and (log := self._journal.next_waiting()) is not None:
                if self._journal.is_settled(log):
                    passed += 1
                    if passed % _PASSED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                else:
                    began = loop.time()
                    unfinished.append(log)
                    if await self._look(log, cause):
                        unfinished.pop()
                    await asyncio.sleep(min(_RESTS * (loop.time() - began), _LONGEST_REST_SECONDS))
        finally:
            self._let_wait(unfinished, loop.time() + _PAUSE_SECONDS)

    def _let_wait(self, unfinished: list[SessionLog], not_before: float) -> None:
        """Have the next operation after the pause begin with these, whichever session it is on."""
        if unfinished:
            self._not_before = not_before
        for log in unfinished:
            self._journal.let_wait(log)

    async def aclose(self) -> None:
        """End it; the logs that are left wait for the next one."""
        self._closed = True  # a cancellation that meets a timeout may be taken for that
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
