"""Turns: which of the calls of a plan become turns, how a process runs and repeats one, and what a turn may not do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agents_redis_ha import (
    AgentsRedisError,
    HistoryLostError,
    OperationError,
    Outcome,
    OutcomeLostError,
    RedisHASession,
    Turn,
    TurnLostError,
    ha_turn,
)
from tests.failover.campaign.caller import outcome_of
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, find_mark, put_mark
from tests.simulation.plan import Plan, Step, chance
from tests.simulation.randomness import Seed

if TYPE_CHECKING:
    from tests.simulation.memory import Memory
    from tests.simulation.world import Run

_SHARE = 0.7  # of the appends and replacements
_LONGEST_DEADLINE_SECONDS = 4.0  # a lease is longer, and a worker that is gone has the session for as long
_DELIVERED_FOR_SECONDS = 30.0
_AGAIN_SECONDS = 0.2
_SIZES = (2, 4, 4, 6)


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """A tool that has run in a turn.

    Attributes:
        session: The session's name.
        batch: What names the turn.
        round: Which round of it, from 0.
        attempt: In which attempt of the turn.
        began: When.
        saved: When the draft with its output was saved; None if that was not confirmed.
        resumes: Whether the turn goes on from what is saved.
    """

    session: str
    batch: tuple[str, int]
    round: int
    attempt: int
    began: float
    saved: float | None
    resumes: bool


def with_turns(plan: Plan) -> Plan:
    """Return a plan in which most of what is added is added in turns."""
    stream = Seed(plan.seed).stream("turns")
    steps = tuple(_as_turn(stream, step) for step in plan.steps)
    fields = tuple(_with_short_deadline(each) for each in plan.fields)
    return replace(plan, steps=steps, fields=fields)


def _as_turn(stream: random.Random, step: Step) -> Step:
    if step.op not in ("append", "replace", "compact", "expect") or not chance(stream, _SHARE):
        return step
    options = {
        "if_busy": stream.choice(("enqueue", "enqueue", "enqueue", "reject", "rollback")),
        "if_unanswered": stream.choice(("resume", "resume", "restart")),
        "save": stream.choice(("steps", "steps", "end")),
        "on_error": stream.choice(("keep", "keep", "rollback")),
        "wait_seconds": stream.choice((2.0, 20.0)),
        "lease_seconds": _LONGEST_DEADLINE_SECONDS + stream.choice((0.0, 4.0)),
        "think_seconds": stream.choice((0.0, 0.01, 0.3, 2.0)),
    }
    return replace(step, op="turn", size=stream.choice(_SIZES), turn=options)


def _with_short_deadline(fields: Mapping[str, Any]) -> dict[str, Any]:
    retry = dict(fields.get("retry", {}))
    retry["deadline_seconds"] = min(retry.get("deadline_seconds", 4.0), _LONGEST_DEADLINE_SECONDS)
    return {**fields, "retry": retry}


def rounds_of(batch: Sequence[Mark], session: str) -> list[list[dict[str, Any]]]:
    """Return what a run adds, one list a call of `add_items`: the message, a call with its output each, the answer."""
    items = [_item(mark, session) for mark in batch]
    return [items[:1], *(items[at : at + 2] for at in range(1, len(items) - 1, 2)), items[-1:]]


def _item(mark: Mark, session: str) -> dict[str, Any]:
    if mark.place == 0:
        item: dict[str, Any] = {"role": "user", "content": str(mark)}
    elif mark.place == mark.size - 1:
        item = {"role": "assistant", "content": str(mark)}
    else:
        number, is_output = divmod(mark.place - 1, 2)
        item = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": f"{mark.batch}:{number}"}
        if is_output:
            item = {"type": "function_call_output", "output": str(mark), "call_id": item["call_id"]}
    return put_mark(item, mark, session)


class TurnCaller:
    """Runs one turn, and delivers it again until it is answered."""

    def __init__(self, session: RedisHASession, call: Call, step: Step, memory: Memory) -> None:
        """Make it of the record of the call, which goes on through the deliveries."""
        self._session, self._call, self._step, self._memory = session, call, step, memory
        self._rounds = rounds_of(call.items, call.session)
        self._options = {name: value for name, value in step.turn.items() if name != "think_seconds"}
        self._is_open = False
        self._lost = 0  # how often it was lost, but to a turn that cancelled it

    async def deliver(self) -> Call:
        """Deliver the turn until it is answered, or cannot be."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _DELIVERED_FOR_SECONDS
        while loop.time() < until:
            try:
                await self._attempt()
            except OutcomeLostError as error:  # answered, and the answer is lost
                return self._memory.end(self._call, Status.OK, error=f"{error}"[:100])
            except OperationError as error:
                self._note(error)
            except AgentsRedisError:  # cancelled by another turn
                self._lost = 0
                break
            else:
                self._memory.lost_turns += self._lost
                return self._memory.end(self._call, Status.OK)
            await asyncio.sleep(_AGAIN_SECONDS)
        self._memory.lost_turns += self._lost
        return self._memory.end(self._call, Status.UNKNOWN if self._is_open else Status.NOT_APPLIED)

    def _note(self, error: OperationError) -> None:
        self._lost += isinstance(error, TurnLostError)
        self._is_open |= error.outcome is not Outcome.NOT_APPLIED and error.operation == "turn_finish"
        if isinstance(error, HistoryLostError):
            self._memory.named[self._call.session].update(error.versions)
            told = self._memory.begin(self._call.session, f"{self._call.handle}~", Op.READ)
            self._memory.end(told, **outcome_of(error))

    async def _attempt(self) -> None:
        call = self._call
        name = ":".join(map(str, call.items[0].batch))
        async with ha_turn(self._session, name, name, **self._options) as turn:
            if not turn.is_answered:
                await self._run(turn)
                turn.answer(name)
        if turn.result != name:
            self._memory.wrong.append(f"turn: {name} in {call.session} has the result {turn.result!r}")

    async def _run(self, turn: Turn) -> None:
        session = self._call.session
        own = self._call.items[0].batch
        marks = [find_mark(item, session) for item in await turn.session.get_items()]
        there = sum(mark is not None and mark.batch == own for mark in marks)
        before = marks[: len(marks) - there]
        # Nothing comes between what a turn has read and what it publishes.
        self._memory.expectations[session, self._call.items[0]] = before[-1] if before else None
        for number, items in enumerate(self._rounds):
            if there > 0:
                there -= len(items)
                continue
            await asyncio.sleep(self._step.turn["think_seconds"])
            began = asyncio.get_running_loop().time()
            await turn.session.add_items(items)  # type: ignore[arg-type]
            saved = asyncio.get_running_loop().time() if self._options["save"] == "steps" else None
            if len(items) > 1:
                resumes = (self._options["if_unanswered"], self._options["on_error"]) == ("resume", "keep")
                run = ToolRun(
                    session=session,
                    batch=own,
                    round=number,
                    attempt=turn.attempt,
                    began=began,
                    saved=saved,
                    resumes=resumes,
                )
                self._memory.tools.append(run)


def broken_turns(run: Run) -> Iterator[str]:
    """Yield what a turn did that it may not do: a wrong result, or a tool again whose output was saved.

    What servers lost may have been the saved output, and a cleared session has none.
    """
    yield from run.wrong
    if run.loses:
        return
    if run.lost_turns and not run.struck:
        yield f"turn: {run.lost_turns} lost, where nothing went wrong: a change did not wait"
    cleared = {call.session for call in run.calls if call.op is Op.CLEAR}
    for tool in run.tools:
        for other in run.tools:
            same = (tool.session, tool.batch, tool.round) == (other.session, other.batch, other.round)
            is_later = same and other.attempt > tool.attempt and tool.saved is not None and other.began > tool.saved
            if is_later and tool.resumes and tool.session not in cleared:
                yield f"turn: {tool.batch} in {tool.session} runs round {tool.round} again at {other.began:.3f}"
