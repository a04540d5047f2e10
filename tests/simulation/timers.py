"""Virtual time for one server alone, without a world."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timers"]


class _Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call it any more."""
        self.callback = None


class Timers:
    """A clock that goes on when it is told to.

    Attributes:
        now: Seconds since 1970.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self._due: list[tuple[float, int, _Timer]] = []
        self._count = 0

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        """Call back after so many seconds."""
        timer = _Timer(callback)
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.step()
        self.now = until

    def step(self) -> bool:
        """Go to the next callback; return whether there was one."""
        if not self._due:
            return False
        when, _, timer = heapq.heappop(self._due)
        self.now = max(self.now, when)
        if timer.callback is not None:
            timer.callback()
        return True
