"""Deadlines and background tasks: what asyncio leaves to its users."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import timeout_at
else:
    from async_timeout import timeout_at  # redis-py brings it

__all__ = ["BackgroundTasks", "retrieve_exception", "run_shielded", "timeout_at"]


def retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Fetch the error of a background task, so that asyncio does not log it as never retrieved."""
    if not task.cancelled():
        task.exception()


async def run_shielded(operation: Coroutine[Any, Any, object]) -> None:
    """Wait for an operation's end, however often the waiter is cancelled; its result and its error are dropped."""
    task = asyncio.ensure_future(operation)
    task.add_done_callback(retrieve_exception)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))


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
