"""The processes of a run: each a `SessionStore` with a journal of its own, whose callers do their steps one by one."""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from agents_redis_ha import HAConfig, SessionStore
from tests.failover.campaign.history import Call, Status
from tests.failover.campaign.marks import make_batch, put_mark
from tests.simulation.calls import Caller
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.memory import Memory
from tests.simulation.plan import Step

_FINAL_READS = 4
_SEEN_THROUGH = ("append", "pop", "clear", "replace")
_MARGIN_SECONDS = 0.6  # what takes longer may have come to its deadline
_LONGEST_REST_SECONDS = 0.1
_BETWEEN_SECONDS = 0.001  # what begins in the moment in which another call ends is not behind it


class Worker:
    """One process, as often as it is started.

    Attributes:
        number: Which.
        process: What runs now; None while it is down.
        under_way: The step that each caller is at, by session and number.
        sees_through: Whether a cancelled change is completed in any case: not where servers evict, or lose, what would
            tell whether it was.
        ended: Whether it has done what it was asked for after the end of all faults.
        problems: What it could not do in the end.
    """

    def __init__(
        self,
        number: int,
        config: HAConfig,
        steps: Sequence[Step],
        loop: SimulatedLoop,
        memory: Memory,
        place: Callable[[Process], None],
    ) -> None:
        self.number = number
        self.process: Process | None = None
        self._config = config
        self._loop = loop
        self._memory = memory
        self._place = place
        self._starts = 0
        self._sequences: dict[str, int] = defaultdict(int)
        self._turns: dict[int, Call] = {}  # by the step's number
        self._todo: dict[tuple[str, int], list[Step]] = defaultdict(list)
        for step in steps:
            self._todo[step.session, step.caller].append(step)
        for todo in self._todo.values():
            todo.reverse()
        self._store: SessionStore
        self._callers: dict[tuple[str, int], Caller] = {}
        self.under_way: dict[tuple[str, int], Step] = {}
        self.ended = False
        self.sees_through: Callable[[], bool] = lambda: True
        self.problems: list[str] = []

    @property
    def left(self) -> int:
        """How many steps are not done yet."""
        return sum(map(len, self._todo.values())) + len(self.under_way)

    def start(self) -> None:
        """Start the process; it goes on with the steps that were not begun yet."""
        self._starts += 1
        self.under_way = {}
        self.process = Process(f"p{self.number}.{self._starts}")
        self._place(self.process)
        self._store = SessionStore(self._config)
        self._callers = {}
        for which in self._todo:
            self._spawn(self._write(which, self._caller(*which)))

    def kill(self) -> None:
        """End the process as by SIGKILL."""
        if self.process is not None:
            self._loop.kill(self.process)
        self.process = None
        for which, step in self.under_way.items():
            if step.op == "turn":  # its job is delivered again
                self._todo[which].append(step)
        self.under_way = {}

    def read_one(self) -> None:
        """Let the process use one of its sessions: what it knows of the others has to be put back by itself."""
        self.ended = False
        self._spawn(self._end(self._sessions[:1], is_last=False))

    def read_all(self) -> None:
        """Let the process read each of its sessions, and end."""
        self.ended = False
        self._spawn(self._end(self._sessions, is_last=True))

    def _spawn(self, coroutine: Any) -> None:
        loop = self._loop
        before, loop.owner = loop.owner, self.process
        try:
            contextvars.Context().run(loop.create_task, coroutine)
        finally:
            loop.owner = before

    @property
    def _sessions(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._todo))

    def _caller(self, name: str, number: int = 0) -> Caller:
        caller = self._callers.get((name, number))
        if caller is None:
            worker, session = f"p{self.number}.{self._starts}", self._store.session(name)
            caller = self._callers[name, number] = Caller(session, name, worker, self._memory, number)
        return caller

    async def _write(self, which: tuple[str, int], caller: Caller) -> None:
        todo = self._todo[which]
        while todo:
            await asyncio.sleep(todo[-1].pause)
            self.under_way[which] = todo.pop()
            await self._do(self.under_way[which], caller)
            del self.under_way[which]

    async def _do(self, step: Step, caller: Caller) -> None:
        call = self._call(step, caller)
        if step.cancel_after is None:
            await call
            return
        loop = self._loop
        task = asyncio.ensure_future(call)
        await asyncio.wait((task,), timeout=step.cancel_after)
        was_running, cancelled_at = task.cancel(), loop.time()
        await asyncio.wait((task,))
        deadline = self._config.retry.deadline_seconds
        in_time = loop.time() - cancelled_at < deadline - _MARGIN_SECONDS
        if self.sees_through() and was_running and step.op in _SEEN_THROUGH and in_time:
            caller.see_through()

    async def _call(self, step: Step, caller: Caller) -> None:
        if step.op == "read":
            await caller.read(step.limit)
        elif step.op == "pop":
            await caller.pop()
        elif step.op == "clear":
            await caller.clear()
        elif step.number in self._turns:
            await caller.turn(step, self._turns[step.number])
        else:
            self._sequences[step.session] += 1
            writer = f"p{self.number}.{step.session}"
            batch = make_batch(writer, self._sequences[step.session], step.size)
            if step.op == "turn":
                self._turns[step.number] = caller.begin_turn(batch)
                await caller.turn(step, self._turns[step.number])
                return
            items = [put_mark({"role": "user", "content": str(mark)}, mark, step.session) for mark in batch]
            caller.rest_seconds = min(step.pause, _LONGEST_REST_SECONDS)
            await getattr(caller, step.op)(batch, items)

    async def _end(self, names: Sequence[str], *, is_last: bool) -> None:
        for name in names:
            caller = self._caller(name)
            for _ in range(_FINAL_READS):
                await asyncio.sleep(_BETWEEN_SECONDS)
                call = await caller.read()
                if call.status is Status.OK:
                    break
            else:
                self.problems.append(f"p{self.number} cannot read {name} after the end of all faults: {call.error}")
        if is_last:
            await self._store.close()
        self.ended = True
