"""The record of all processes' calls, in memory."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents_redis_ha import HistoryLostError
from tests.failover.campaign.history import Attempt, Call, Op, Status, ToolRun
from tests.failover.campaign.marks import Mark
from tests.failover.campaign.record import Recorder
from tests.simulation.loop import SimulatedLoop
from tests.simulation.timeline import Timeline


class Memory(Recorder):
    """Takes the calls of all processes, in place of a file.

    Attributes:
        guarded: When a session was not to be changed by others, since a change was made that expects it so: its name,
            from when, until when.
        latest: The call that began last, by session object.
        named: The versions that callers were told are lost, by session.
        tools: The tools that ran in turns.
        attempts: The deliveries of turns.
        expectations: Of each batch that was added at an expected version, by session and first item: the item in front.
    """

    def __init__(self, loop: SimulatedLoop, timeline: Timeline) -> None:
        self._loop = loop
        self._timeline = timeline
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self.guarded: list[tuple[str, float, float]] = []
        self.latest: dict[str, Call] = {}
        self.named: dict[str, set[int]] = defaultdict(set)
        self.tools: list[ToolRun] = []
        self.attempts: list[Attempt] = []
        self.expectations: dict[tuple[str, Mark], Mark | None] = {}

    def begin(self, session: str, handle: str, op: Op, *, items: Iterable[Mark] = (), limit: int | None = None) -> Call:
        """Note that a call begins now."""
        number = next(self._numbers)
        marks = tuple(items)
        worker = handle.partition("/")[0]
        now = self._loop.time()
        call = Call(
            worker=worker, number=number, session=session, handle=handle, op=op, begin=now, items=marks, limit=limit
        )
        self._calls[number] = self.latest[handle] = call
        what = f"calls #{number} {op.value}{f'({limit})' if limit is not None else ''}"
        self._timeline.note(now, worker, f"{what} {session} {_marks(marks)}")
        return call

    def end(self, call: Call, status: Status, **outcome: Any) -> Call:
        """Note that a call has ended now, and how."""
        ended = self._calls[call.number] = self.latest[call.handle] = replace(
            call, end=self._loop.time(), status=status, **outcome
        )
        told = ended.error or _marks(ended.result)
        self._timeline.note(ended.end, ended.worker, f"is told #{call.number} {status.value} {told}")
        return ended

    def note_tool(self, tool: ToolRun) -> None:
        """Note that a tool has run in a turn."""
        self.tools.append(tool)

    def note_attempt(self, attempt: Attempt) -> None:
        """Note how a delivery of a turn ended."""
        self.attempts.append(attempt)

    def note_front(self, session: str, first: Mark, front: Mark | None) -> None:
        """Note which item a turn has read in front of its own: nothing comes in between."""
        self.expectations[session, first] = front

    def note_loss(self, session: str, error: HistoryLostError) -> None:
        """Note which changes of a session a delivery was told to be gone."""
        self.named[session].update(error.versions)

    @property
    def calls(self) -> list[Call]:
        """All calls, in the order in which they began."""
        return list(self._calls.values())


def _marks(marks: Sequence[Mark | None]) -> str:
    return " ".join(map(str, marks))
