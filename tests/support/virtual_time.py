"""An event loop whose time moves when nothing else is to do: tests of deadlines take no time, on any machine."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

Given = ParamSpec("Given")

# What a turn of the loop takes: a loop that tries again and again comes to its deadline.
_TURN_SECONDS = 1e-6
# A test whose clock jumps more often waits for something that never happens.
_MOST_JUMPS = 20_000


class _Clock(selectors.DefaultSelector):
    """Moves the time in place of waiting."""

    now = 1000.0
    jumps = 0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is None:
            raise RuntimeError("every task waits, and nothing is left that could wake one")
        self.jumps += bool(not events and timeout)
        if self.jumps > _MOST_JUMPS:
            raise RuntimeError(f"still waiting after {self.now - 1000:.0f} s of virtual time")
        self.now += _TURN_SECONDS + (0 if events else timeout or 0)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs each timer at its time, without waiting for it; real sockets and threads would never be waited for."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def in_virtual_time(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Run a test in a loop of its own, in which a second of waiting takes no time."""

    @functools.wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        loop = VirtualTimeLoop()
        try:
            loop.run_until_complete(test(*args, **kwargs))
        finally:
            loop._clock.jumps = 0  # what is left may take some to end
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.close()

    return run
