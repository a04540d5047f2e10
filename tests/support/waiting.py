"""Waiting within an event loop, whose time may be virtual; `lab.wait_until` waits in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def assert_cancellable(begin: Callable[[asyncio.Future[None]], Coroutine[Any, Any, object]]) -> None:
    """Check that a task which was cancelled ends so, in whichever turn of the loop its answer comes.

    Args:
        begin: Returns what waits for a future.
    """
    for turns in range(12):
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(begin(answer))
        for _ in range(12):
            await asyncio.sleep(0)
        answer.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        was_running = task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is was_running


async def eventually(condition: Callable[[], object], what: str, timeout_seconds: float = 20.0) -> None:
    """Return as soon as a condition holds.

    Raises:
        AssertionError: It did not come true in time; the message names it.
    """
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"it did not come true: {what}"
        await asyncio.sleep(0.001)
