"""What profiles are made of: the parts that several of them share. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.plan import Fault, Plan, Step, chance

SHARED = "shared0"
_SLOWEST = (0.02, 0.1, 0.3)
CHANGES = ("append", "pop", "clear", "replace", "compact", "expect")
UNDER_LOAD = ("cut-after", "cut-reply", "stall-reply", "flush-scripts", "pause-process", "slow-link")


@dataclass(frozen=True)
class Profile:
    """One profile.

    Attributes:
        shape: Returns what becomes of a plan.
        processes: How many there are, one of these.
        topologies: Where it makes sense; none means everywhere.
        is_drawn: Whether seeds draw it. One more that they draw changes the plans of a sixth of them; where a mutant
            needs one, naming it is enough.
    """

    shape: Callable[[random.Random, Plan], Plan]
    processes: tuple[int, ...]
    topologies: tuple[str, ...] = ()
    is_drawn: bool = True


def begins(steps: tuple[Step, ...]) -> dict[int, float]:
    """Return when each step begins where nothing takes time, by number."""
    at: dict[tuple[int, str, int], float] = defaultdict(float)
    found: dict[int, float] = {}
    for step in steps:
        at[step.process, step.session, step.caller] += step.pause
        found[step.number] = at[step.process, step.session, step.caller]
    return found


def end_of(plan: Plan) -> float:
    return max(begins(plan.steps).values())


def some_faults(stream: random.Random, plan: Plan, kinds: tuple[str, ...], most: int) -> tuple[Fault, ...]:
    return tuple(fault for fault in plan.faults if fault.kind in kinds)[: stream.randint(0, most)]


def with_fields(plan: Plan, **fields: Any) -> Plan:
    return replace(plan, fields=tuple({**each, **fields} for each in plan.fields))


def is_emptied(stream: random.Random, at: float) -> Fault:
    """A primary ends, and is back with less before another one can take over."""
    keep = stream.choice(("nothing", "nothing", "snapshot"))
    arguments = {"server": None, "silently": False, "seconds": stream.uniform(0.02, 0.3), "keep": keep}
    return Fault(kind="crash", at=at, arguments=arguments)


def together(stream: random.Random, plan: Plan, most: float = 1.0) -> Plan:
    """Let most of the calls be of one session."""
    steps = (replace(step, session=SHARED) if chance(stream, most) else step for step in plan.steps)
    return replace(plan, steps=tuple(steps))


def is_slow(stream: random.Random, process: int, at: float) -> Fault:
    arguments = {"process": process, "server": None, "latency": stream.choice(_SLOWEST)}
    return Fault(kind="slow-link", at=max(at, 0.0), arguments={**arguments, "seconds": stream.uniform(0.5, 3.0)})
