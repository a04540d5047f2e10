"""How turns wait for a session: seldom enough for the server, often enough for the next one's user."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from agents_redis_ha._commands import LogPosition, ReplicationHistory, TurnReply, TurnSpec, TurnStatus
from agents_redis_ha._telemetry import TurnSpan
from agents_redis_ha._turns.grant import ask_for_session
from tests.support.fakes import SPEC
from tests.support.virtual_time import in_virtual_time

WAITING = 50
TURN = TurnSpec(SPEC, b"t", b"token", b"-", 30_000, 1000)


@dataclass
class Line:
    """A server that lets one after the other in, and keeps their order.

    Attributes:
        waiting: Who waits, in the order of arrival.
        is_held: Whether a turn has the session.
        asked: How often it was asked.
    """

    waiting: list[int] = field(default_factory=list)
    is_held: bool = True
    asked: int = 0

    def ask(self, who: int) -> TurnReply:
        self.asked += 1
        if who not in self.waiting:
            self.waiting.append(who)
        place = self.waiting.index(who) + 1
        status = TurnStatus.GRANTED if place == 1 and not self.is_held else TurnStatus.HELD
        if status is TurnStatus.GRANTED:
            self.is_held, _ = True, self.waiting.pop(0)
        return TurnReply(status, LogPosition(0, b""), ReplicationHistory("h:1", "1f"), place=place)


@dataclass
class Waiter:
    """The operations of one session object."""

    line: Line
    number: int

    async def execute(self, command: Any, **_: Any) -> TurnReply:
        return self.line.ask(self.number)

    async def take_turn(self, times: list[tuple[float, float]], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        operations: Any = self
        how: dict[str, Any] = {"if_busy": "enqueue", "if_unanswered": "resume", "newest": 0}
        span = TurnSpan("standalone", SPEC.session_id, "t", "off", claims=False)
        await ask_for_session(operations, TURN, span, wait_seconds=600, **how)
        began = loop.time()
        await asyncio.sleep(seconds)
        self.line.is_held = False
        times.append((began, loop.time()))


@in_virtual_time
async def test_fifty_turns_that_wait_ask_150_times_a_second_at_most() -> None:
    line = Line()
    waiters = [asyncio.ensure_future(Waiter(line, number).take_turn([], 1.0)) for number in range(WAITING)]
    await asyncio.sleep(1.0)
    before = line.asked
    await asyncio.sleep(20.0)
    assert 50 < (line.asked - before) / 20.0 < 150
    assert not any(waiter.done() for waiter in waiters)


@in_virtual_time
async def test_the_next_turn_begins_within_50_ms_of_the_end_of_the_one_before() -> None:
    line, times = Line(), list[tuple[float, float]]()
    waiters = [asyncio.ensure_future(Waiter(line, number).take_turn(times, 1.0)) for number in range(WAITING)]
    await asyncio.sleep(2.0)
    line.is_held = False
    await asyncio.gather(*waiters)
    gaps = [begin - end for (_, end), (begin, _) in pairwise(times)]
    assert statistics.median(gaps) < 0.03
    assert max(gaps) < 0.051
