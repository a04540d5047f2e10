"""An event loop in a thread of its own, which works while the test's own loop is busy or not running."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import LabError

T = TypeVar("T")

_CONTROL_SECONDS = 10.0


class LoopThread:
    """Runs coroutines for threads that wait for them.

    Args:
        name: The thread's name, also for error messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"agents-redis-ha-lab-{name}", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine returns.

        Raises:
            LabError: The thread has ended, or the coroutine takes longer than 10 s.
        """
        if self._loop.is_closed():
            work.close()
            raise LabError(f"the {self._name} is closed")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CONTROL_SECONDS)
        except concurrent.futures.TimeoutError as error:
            raise LabError(f"the {self._name} does not react") from error

    def close(self) -> None:
        """End the thread; a second time does nothing."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CONTROL_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_end_tasks())
            self._loop.close()


async def _end_tasks() -> None:
    """Cancel what still runs in the loop, and wait for it: also what asyncio itself began."""
    await asyncio.sleep(0)  # all have begun then; one that has not would leave a socket open behind it
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # one more turn of the loop, in which the transports are closed
