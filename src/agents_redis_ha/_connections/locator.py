"""What a topology has to answer: which node holds these keys now. The seam between the data path and the topologies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sized
from typing import Protocol, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from .._asyncio import retrieve_exception
from .._commands import Reply
from .._config import Address, PoolConfig, Topology
from .failover_monitor import FailoverMonitor
from .failures import AttemptError
from .node import Node
from .request import Request

__all__ = ["Locator", "Patience", "SingleFlight", "ask_all", "is_majority"]

_Answer = TypeVar("_Answer")
# After a majority answered: how long the others may still take, since one of them may know a newer epoch.
_GRACE_SECONDS = 0.05
# A look at servers that are near takes milliseconds. One that makes a connection first takes five or six round trips
# (TCP, two of TLS, HELLO, CLIENT SETINFO) where one on a connection takes one.
_SHORTEST_LOOK_SECONDS = 0.5
_ROUND_TRIPS = 6


class Locator(Protocol):
    """Knows which node to ask now.

    Attributes:
        topology: Its name.
        failovers: The nodes that took over from the one that was asked before, in order; None where it is not known.
    """

    topology: Topology
    failovers: list[str | None]

    @property
    def monitor(self) -> FailoverMonitor:
        """What wakes the operations that wait for a node."""

    async def attempt(self, request: Request) -> Reply:
        """Send a request to the node that holds its keys now; return its reply.

        Raises:
            AttemptError: It failed; redirects have been followed already.
        """

    def suspect(self, error: AttemptError) -> None:
        """Note that a node failed: find out anew, once for all waiting operations, before the next attempt."""

    def nodes(self) -> list[Node]:
        """Return the nodes that there may be connections to now; any thread may ask."""

    async def primaries(self) -> list[Node]:
        """Return the nodes that take writes now, found out anew.

        Raises:
            AttemptError: None could be found.
        """

    async def problems(self) -> list[str]:
        """Return what is wrong with the topology besides its primaries, in words, as of the last `primaries`."""

    async def aclose(self) -> None:
        """Close every connection and end every background task."""


class SingleFlight:
    """Runs a coroutine function once for all tasks that wait for it at the same time."""

    def __init__(self, function: Callable[[], Awaitable[None]]) -> None:
        self._function = function
        self._task: asyncio.Future[None] | None = None

    def start(self) -> asyncio.Future[None]:
        """Return the run under way, or start one; its error is for those that wait."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._function())
            self._task.add_done_callback(retrieve_exception)
        return self._task

    async def run(self) -> None:
        """Wait for the run under way, or start one; a cancelled waiter does not stop it for the others."""
        task = self.start()
        # Unlike awaiting the task, this raises CancelledError only for the waiter's own cancellation: a waiter that
        # took the task's for its own, or the other way round, would end too early or never.
        await asyncio.wait((task,))
        if task.cancelled():
            raise AttemptError(RedisConnectionError("closed"), node=None, sent=False)
        task.result()

    async def aclose(self) -> None:
        """Cancel the run under way."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


class Patience:
    """How long to wait for servers: not long if they are near or one is down, long enough if all of them are far.

    Attributes:
        seconds: For the first answer.
    """

    def __init__(self, pool: PoolConfig) -> None:
        self.seconds = _SHORTEST_LOOK_SECONDS
        self._longest = max(pool.connect_timeout_seconds + pool.response_timeout_seconds, self.seconds)

    def answered(self, after_seconds: float) -> None:
        """Wait as much longer than this the next time as a new connection takes."""
        self.seconds = min(max(_SHORTEST_LOOK_SECONDS, _ROUND_TRIPS * after_seconds), self._longest)

    def silent(self) -> None:
        """Wait twice as long the next time: no server answered."""
        self.seconds = min(2 * self.seconds, self._longest)


def is_majority(some: Sized, of: Sized) -> bool:
    """Whether ``some`` are more than half of ``of``."""
    return 2 * len(some) > len(of)


async def ask_all(
    questions: Mapping[Address, Awaitable[_Answer]],
    timeout_seconds: float,
    voters: int | None = None,
    *,
    one_is_enough: bool = False,
) -> tuple[dict[Address, _Answer], dict[Address, Exception]]:
    """Ask all nodes at once; return a majority's answers with those that come right behind, and the errors until then.

    A slow node does not hold the others up, and one that knows a newer epoch than the majority is heard if it is quick.

    Args:
        questions: What to await for each node; all are awaited or cancelled.
        timeout_seconds: After this, a node that has not answered counts as an error.
        voters: Of how many a majority is waited for; None means of all that are asked.
        one_is_enough: Whether one answer will do: the others then have six times as long as it took, but half a second
            at least. So a node that is down holds nothing up, however far the others are.
    """
    needed = (len(questions) if voters is None else voters) // 2 + 1
    tasks = {asyncio.ensure_future(question): address for address, question in questions.items()}
    answers: dict[Address, _Answer] = {}
    errors: dict[Address, Exception] = {}
    pending = set(tasks)
    now = asyncio.get_running_loop().time
    began = now()
    deadline = began + timeout_seconds
    try:
        while pending:
            left = max(deadline - now(), 0)
            timeout = min(left, _GRACE_SECONDS) if len(answers) >= needed else left
            done, pending = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                error = task.exception()
                if error is None:
                    if one_is_enough and not answers:
                        deadline = min(deadline, began + max(_SHORTEST_LOOK_SECONDS, _ROUND_TRIPS * (now() - began)))
                    answers[tasks[task]] = task.result()
                elif isinstance(error, Exception):
                    errors[tasks[task]] = error
    finally:
        for task in pending:
            task.add_done_callback(retrieve_exception)
            task.cancel()
            errors[tasks[task]] = asyncio.TimeoutError(f"no answer within {deadline - began:.3g} s")
    return answers, errors
