"""Profiles that aim at one promise each: what is called, when and by which process, is theirs. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.simulation.plan import Fault, Plan, Step
from tests.simulation.shaping import SHARED, Profile

_HASTY: Mapping[str, Any] = {"pool": {"connect_timeout_seconds": 0.5, "response_timeout_seconds": 0.5}}


class _Script:
    """Calls of one session, each at its time."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, str, dict[str, Any]]] = []
        self.faults: list[Fault] = []

    def call(self, at: float, process: int, op: str, **more: Any) -> int:
        """Let a process call at this time; return which call of the script that is."""
        self._calls.append((at, process, op, more))
        return len(self._calls)

    def strike(self, at: float, kind: str, **arguments: Any) -> None:
        """Let a fault strike at this time."""
        self.faults.append(Fault(kind=kind, at=at, arguments=arguments))

    def strike_at(self, step: int, kind: str, *, request: int = 1, **arguments: Any) -> None:
        """Let a fault strike at a request of a call."""
        self.faults.append(Fault(kind=kind, step=step, request=request, arguments=arguments))

    def plan(self, plan: Plan, **fields: Any) -> Plan:
        """Return a plan with these calls and faults, and with these fields of each process's configuration."""
        last: dict[tuple[int, int], float] = {}
        steps = []
        for number, (at, process, op, more) in enumerate(self._calls, 1):
            caller = (process, more.get("caller", 0))
            pause = max(at - last.get(caller, 0.0), 1e-4)
            last[caller] = max(at, last.get(caller, 0.0))
            steps.append(Step(number=number, process=process, session=SHARED, op=op, pause=pause, **more))
        return replace(
            plan,
            steps=tuple(steps),
            faults=tuple(self.faults),
            fields=tuple({**each, **fields} for each in plan.fields),
        )


def _bare(stream: random.Random, plan: Plan) -> Plan:
    """A server evicts all that tells of changes, and leaves the items, between an append and its repeat."""
    script, last = _Script(), len(plan.fields) - 1
    at = 0.05
    for _ in range(stream.choice((0, 0, 1, 2, 4))):
        script.call(at, stream.randint(0, last), stream.choice(("append", "append", "read")))
        at += stream.uniform(0.02, 0.1)
    repeated = script.call(at, 0, "append")
    script.strike_at(repeated, "stall-reply", seconds=stream.uniform(0.8, 2.0))
    script.strike(at + stream.uniform(0.05, 0.45), "evict", **_EVICTS_THE_LOG)
    for _ in range(stream.choice((0, 1, 3))):
        script.call(at + stream.uniform(0.05, 1.0), last, stream.choice(("append", "read")))
    script.call(at + 1.5, last, "read")
    return script.plan(plan, **_HASTY)


def _anew(stream: random.Random, plan: Plan) -> Plan:
    """The same twice, and the second time a process that knows nothing of the session begins the new log."""
    script = _Script()
    for at in (0.05, 0.15, 0.25)[: stream.randint(1, 3)]:
        script.call(at, 0, "append")
    script.strike(0.4, "evict", **_EVICTS_THE_LOG)
    script.call(0.6, 0, "append")
    repeated = script.call(0.8, 0, "append")
    script.strike_at(repeated, "stall-reply", seconds=4.0)
    script.strike(0.9, "evict", **_EVICTS_THE_LOG)
    at = 1.0
    for _ in range(stream.randint(1, 14)):
        script.call(at, 1, "append")
        at += stream.uniform(0.02, 0.15)
    script.call(at + 0.1, 0, "append", caller=1)
    return script.plan(plan, pool={"connect_timeout_seconds": 0.5, "response_timeout_seconds": 3.0})


_EVICTS_THE_LOG: Mapping[str, Any] = {"server": None, "policy": "all", "first": 0, "each": 1, "parts": ("meta", "ops")}

AIMS: Mapping[str, Profile] = {
    "bare": Profile(_bare, (1, 2), ("standalone", "name")),
    "anew": Profile(_anew, (2,), ("standalone",)),
}
