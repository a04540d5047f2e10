"""Turns: which of the calls of a plan become turns, and what a turn may not do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agents_redis_ha import RedisHASession
from tests.failover.campaign.history import Call, Op
from tests.failover.campaign.turn_checker import other_results, refused_answers, tools_run_again
from tests.failover.campaign.turns import TurnCaller
from tests.simulation.plan import Plan, Step, chance
from tests.simulation.randomness import Seed

if TYPE_CHECKING:
    from tests.simulation.memory import Memory
    from tests.simulation.world import Run

_SHARE = 0.7  # of the appends and replacements
_LONGEST_DEADLINE_SECONDS = 4.0  # a lease is longer, and a worker that is gone has the session for as long
_SIZES = (2, 4, 4, 6)


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


def turn_caller(session: RedisHASession, call: Call, step: Step, memory: Memory) -> TurnCaller:
    """Return what runs the turn of a step."""
    options = {name: value for name, value in step.turn.items() if name != "think_seconds"}
    return TurnCaller(session, call, options, memory, step.turn["think_seconds"])


def broken_turns(run: Run) -> Iterator[str]:
    """Yield what a turn did that it may not do: other results, a refused answer, or a tool again that was saved.

    What servers lost may have been the answer or the saved output, and a cleared session has none.
    """
    told = {each.result for each in run.attempts if each.result is not None}
    for attempt in refused_answers(run.attempts, told):
        yield f"turn: {attempt.answer!r} in {attempt.session} was {attempt.ending}, and is a result"
    if run.loses:
        return
    for attempt, before in other_results(run.attempts):
        yield f"turn: {attempt.batch} in {attempt.session} has the results {before!r} and {attempt.result!r}"
    cancelled = {(each.session, each.batch) for each in run.attempts if each.ending == "cancelled"}
    lost = [each for each in run.attempts if each.ending == "lost" and (each.session, each.batch) not in cancelled]
    if lost and not run.struck:
        yield f"turn: {len(lost)} lost, where nothing went wrong: a change did not wait"
    for tool in tools_run_again(run.tools, {call.session for call in run.calls if call.op is Op.CLEAR}):
        yield f"turn: {tool.batch} in {tool.session} runs round {tool.round} again at {tool.began:.3f}"
