"""Waiting within an event loop, whose time may be virtual; `lab.wait_until` waits in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], what: str, timeout_seconds: float = 20.0) -> None:
    """Return as soon as a condition holds.

    Raises:
        AssertionError: It did not come true in time; the message names it.
    """
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"it did not come true: {what}"
        await asyncio.sleep(0.001)
