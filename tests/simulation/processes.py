"""The processes of a run: each a `SessionStore` with a journal of its own, whose callers do their steps one by one."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents_redis_ha import HAConfig, SessionStore
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, make_batch, put_mark
from tests.failover.campaign.record import Recorder
from tests.simulation.calls import Caller
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.plan import Step
from tests.simulation.timeline import Timeline

_FINAL_READS = 4
_BETWEEN_SECONDS = 0.001  # what begins in the moment in which another call ends is not behind it


class Memory(Recorder):
    """Takes the calls of all processes, in place of a file."""

    def __init__(self, loop: SimulatedLoop, timeline: Timeline) -> None:
        self._loop = loop
        self._timeline = timeline
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}

    def begin(self, session: str, handle: str, op: Op, *, items: Iterable[Mark] = (), limit: int | None = None) -> Call:
        """Note that a call begins now."""
        number = next(self._numbers)
        marks = tuple(items)
        worker = handle.partition("/")[0]
        now = self._loop.time()
        call = Call(
            worker=worker, number=number, session=session, handle=handle, op=op, begin=now, items=marks, limit=limit
        )
        self._calls[number] = call
        what = f"calls #{number} {op.value}{f'({limit})' if limit is not None else ''}"
        self._timeline.note(now, worker, f"{what} {session} {_marks(marks)}")
        return call

    def end(self, call: Call, status: Status, **outcome: Any) -> Call:
        """Note that a call has ended now, and how."""
        ended = self._calls[call.number] = replace(call, end=self._loop.time(), status=status, **outcome)
        told = ended.error or _marks(ended.result)
        self._timeline.note(ended.end, ended.worker, f"is told #{call.number} {status.value} {told}")
        return ended

    @property
    def calls(self) -> list[Call]:
        """All calls, in the order in which they began."""
        return list(self._calls.values())


def _marks(marks: Sequence[Mark | None]) -> str:
    return " ".join(map(str, marks))


class Worker:
    """One process, as often as it is started.

    Attributes:
        number: Which.
        process: What runs now; None while it is down.
        under_way: The step that each session's caller is at.
        ended: Whether it has read all of its sessions once more, and closed its store.
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
        self._versions: dict[str, Any] = {}
        self._todo: dict[str, list[Step]] = defaultdict(list)
        for step in steps:
            self._todo[step.session].append(step)
        for todo in self._todo.values():
            todo.reverse()
        self._store: SessionStore
        self._callers: dict[str, Caller] = {}
        self.under_way: dict[str, Step] = {}
        self.ended = 0
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
        for name in self._todo:
            self._spawn(self._write(name, self._caller(name)))

    def kill(self) -> None:
        """End the process as by SIGKILL."""
        if self.process is not None:
            self._loop.kill(self.process)
        self.process = None
        self.under_way = {}

    def read_all(self) -> None:
        """Let the process read each of its sessions, and end."""
        self.ended = 0
        self._spawn(self._end())

    def _spawn(self, coroutine: Any) -> None:
        loop = self._loop
        before, loop.owner = loop.owner, self.process
        try:
            contextvars.Context().run(loop.create_task, coroutine)
        finally:
            loop.owner = before

    def _caller(self, name: str) -> Caller:
        caller = self._callers.get(name)
        if caller is None:
            worker = f"p{self.number}.{self._starts}"
            caller = self._callers[name] = Caller(self._store.session(name), name, worker, self._memory)
        return caller

    async def _write(self, name: str, caller: Caller) -> None:
        todo = self._todo[name]
        while todo:
            await asyncio.sleep(todo[-1].pause)
            self.under_way[name] = todo.pop()
            await self._do(self.under_way[name], caller)
            del self.under_way[name]

    async def _do(self, step: Step, caller: Caller) -> None:
        call = self._call(step, caller)
        if step.cancel_after is None:
            await call
            return
        task = asyncio.ensure_future(call)
        await asyncio.wait((task,), timeout=step.cancel_after)
        task.cancel()
        await asyncio.wait((task,))

    async def _call(self, step: Step, caller: Caller) -> None:
        if step.op == "read":
            await caller.read(step.limit)
        elif step.op == "pop":
            await caller.pop()
        elif step.op == "clear":
            await caller.clear()
        else:
            self._sequences[step.session] += 1
            writer = f"p{self.number}.{step.session}"
            batch = make_batch(writer, self._sequences[step.session], step.size)
            items = [put_mark({"role": "user", "content": str(mark)}, mark, step.session) for mark in batch]
            await getattr(caller, step.op)(batch, items)

    async def _end(self) -> None:
        for name in self._todo:
            caller = self._caller(name)
            for _ in range(_FINAL_READS):
                await asyncio.sleep(_BETWEEN_SECONDS)
                call = await caller.read()
                if call.status is Status.OK:
                    break
            else:
                self.problems.append(f"p{self.number} cannot read {name} after the end of all faults: {call.error}")
        await self._store.close()
        self.ended = 1


def unfinished(calls: Iterable[Call]) -> list[Call]:
    """Return the calls that never got an answer."""
    return [call for call in calls if call.end == math.inf]
