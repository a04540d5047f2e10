"""Ends the waiting for a node as soon as another one took over, or as soon as it answers again.

As long as operations wait, and only then, the topology is asked again and again: since an attempt failed, or since a
request has gone unanswered for a moment. A stopped server breaks no connection; unmonitored, a request to it would
sit out its response timeout although another node was elected long before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .. import _ambient as ambient
from .._asyncio import Interruption, retrieve_exception
from .._commands import Reply
from .failures import AttemptError, TakenOverError
from .node import Node
from .request import Request

__all__ = ["FailoverMonitor", "InFlightRequest"]

# A request that is older than this makes the monitor begin. An ordinary one takes less than a millisecond.
_PATIENCE_SECONDS = 0.2
# From one look to the next, at random 20 % more or less: a fleet of workers must not ask in step. While an outage
# lasts this grows to the longest, by 2 % of the outage: what a look may add to it.
_SHORTEST_ROUND_SECONDS = 0.1
_LONGEST_ROUND_SECONDS = 0.25
_GROWTH = 0.02
_LEAST_PAUSE_SECONDS = 0.02
# So many rounds after no operation waits any more: one that was just woken may be about to fail again.
_LAST_ROUNDS = 2


class InFlightRequest:
    """A request that a node owes the reply to."""

    __slots__ = ("interruption", "node", "since")

    def __init__(self, node: Node, since: float, task: asyncio.Task[Any]) -> None:
        self.node = node
        self.since = since
        self.interruption = Interruption(task)

    def end(self) -> None:
        """End the waiting for the reply, or for the connection."""
        self.interruption.cancel_task()

    def was_only_cut(self) -> bool:
        """Whether `end` alone cancelled the task, not its owner; takes that cancellation back."""
        return self.interruption.take_back()


class FailoverMonitor:
    """Asks for the primary while operations wait, wakes them, and cuts requests to a node that was taken over.

    Attributes:
        topology_epoch: Grows with each reason to try again at once: another node took over, or one answers again.
    """

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        """Make a monitor that does nothing yet.

        Args:
            look: Finds out which node takes writes now, once for all tasks that call it at the same time; calls `cut`
                and `topology_changed` when it finds something new. An AttemptError means that none does, or that it
                cannot be known for now; a success after one is a change, too.
        """
        self.topology_epoch = 0
        self._look = look
        self._in_flight: dict[InFlightRequest, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._change: asyncio.Future[None] | None = None
        self._round: asyncio.Future[AttemptError | None] | None = None
        self._waiting = 0
        self._failure: AttemptError | None = None
        self._closed = False

    async def send(self, request: Request, node: Node, *, asking: bool = False, only_first_key: bool = False) -> Reply:
        """Return the reply of a node to a request; it is cut when another one takes over.

        Raises:
            AttemptError: As `Node.execute` raises it; with a `TakenOverError` if it was cut.
        """
        loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task(loop)  # not None within a coroutine
        in_flight = InFlightRequest(node, loop.time(), task)
        self._in_flight[in_flight] = None
        if self._timer is None and not self._closed:
            self._timer = loop.call_later(_PATIENCE_SECONDS, self._check)
        try:
            return await node.execute(request, asking=asking, only_first_key=only_first_key)
        except asyncio.CancelledError as error:
            if not in_flight.was_only_cut():
                raise
            raise AttemptError(TakenOverError("another node took over"), node=node.name, sent=request.sent) from error
        except Exception:
            in_flight.was_only_cut()  # it failed in the same moment
            raise
        finally:
            del self._in_flight[in_flight]

    def cut(self, node: Node) -> None:
        """End the requests to a node that was taken over, also those whose connection is still being made."""
        for in_flight in self._in_flight:
            if in_flight.node is node and not in_flight.interruption.happened:
                in_flight.end()

    def topology_changed(self) -> None:
        """Wake the operations that wait: the next attempt may succeed."""
        self.topology_epoch += 1
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def wait_for_topology_change(self, seconds: float, since_epoch: int) -> None:
        """Return after some seconds, or as soon as there is a reason to try again.

        Args:
            seconds: The longest wait.
            since_epoch: What `topology_epoch` was when the attempt that failed began.
        """
        if self.topology_epoch != since_epoch:
            return
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        await self._wait(self._change, seconds)

    async def looked(self) -> None:
        """Return after a look: the one of the monitor's next round, or one of its own where it does not run.

        However many operations wait, they cause one look a round. If the last one failed, that is the answer: the
        monitor wakes them as soon as one succeeds.

        Raises:
            AttemptError: It cannot be known for now which node takes writes.
        """
        if self._round is None:
            await self._look()
            return
        if self._failure is not None:
            raise self._failure
        around = self._round
        await self._wait(around, None)
        error = around.result()
        if error is not None:
            raise error

    def begin(self) -> None:
        """Monitor for as long as an operation waits."""
        if not self._closed and (self._task is None or self._task.done()):
            self._round = asyncio.get_running_loop().create_future()
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(retrieve_exception)

    async def _wait(self, future: asyncio.Future[Any], seconds: float | None) -> None:
        self._waiting += 1
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            self._waiting -= 1

    def _check(self) -> None:
        """Begin if the oldest request has gone unanswered for too long; called by a timer while there are any."""
        self._timer = None
        if not self._in_flight:
            return
        loop = asyncio.get_running_loop()
        age = loop.time() - next(iter(self._in_flight)).since
        if age >= _PATIENCE_SECONDS:
            self.begin()
            age = 0.0
        self._timer = loop.call_later(_PATIENCE_SECONDS - age, self._check)

    def _is_wanted(self, now: float) -> bool:
        oldest = next(iter(self._in_flight), None)
        return bool(self._waiting) or (oldest is not None and now - oldest.since >= _PATIENCE_SECONDS)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        idle_rounds = 0
        self._failure = None
        try:
            while idle_rounds < _LAST_ROUNDS:
                since = loop.time()
                await self._take_look()
                length = min(max(_SHORTEST_ROUND_SECONDS, _GROWTH * (since - began)), _LONGEST_ROUND_SECONDS)
                ends = since + length * ambient.uniform(0.8, 1.2)
                await asyncio.sleep(max(ends - loop.time(), _LEAST_PAUSE_SECONDS))
                idle_rounds = 0 if self._is_wanted(loop.time()) else idle_rounds + 1
        finally:
            self._end_round(None)
            self._round = None

    async def _take_look(self) -> None:
        error = None
        try:
            await self._look()
        except AttemptError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 (monitoring goes on; what waits for this look is told)
            error = AttemptError(failure, node=None, sent=False)
        if self._failure is not None and error is None:
            self.topology_changed()
        self._failure = error
        self._end_round(error)
        self._round = asyncio.get_running_loop().create_future()

    def _end_round(self, error: AttemptError | None) -> None:
        if self._round is not None and not self._round.done():
            self._round.set_result(error)

    async def aclose(self) -> None:
        """End the monitoring for good and wake the operations that wait."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
        self.topology_changed()
