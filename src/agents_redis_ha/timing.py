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

__all__ = ["see_through", "take_notice", "timeout_at"]


def take_notice(task: asyncio.Future[Any]) -> None:
    """Fetch the error of a task that nobody waits for, so that asyncio does not complain about it."""
    if not task.cancelled():
        task.exception()


async def see_through(operation: Coroutine[Any, Any, object]) -> None:
    """Wait for an operation's end, however often the waiter is cancelled; its outcome is nobody's to handle."""
    task = asyncio.ensure_future(operation)
    task.add_done_callback(take_notice)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
