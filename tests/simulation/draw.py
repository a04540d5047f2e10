"""A whole plan from a seed: which processes with which settings, what they call, and what strikes. Pure."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation import faults
from tests.simulation.plan import Plan, chance
from tests.simulation.randomness import Seed
from tests.simulation.workloads import draw_steps, duration

TOPOLOGIES = ("standalone",)


def draw_plan(seed: int, topology: str = "standalone", *, processes: int | None = None) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: Decides everything.
        topology: One of `TOPOLOGIES`.
        processes: How many; None means as the seed says.
    """
    stream = Seed(seed).stream("plan")
    drawn = stream.choice((1, 1, 2, 2, 3))
    count = drawn if processes is None else processes
    fields = _draw_fields(stream, count)
    steps = draw_steps(Seed(seed).stream("steps"), count)
    struck = faults.draw_standalone(Seed(seed).stream("faults"), count, len(steps), duration(steps))
    settings: dict[str, Any] = {"drift": stream.choice((0.0, 0.0, 1e-4, -1e-3))}
    return Plan(seed=seed, topology=topology, fields=fields, steps=steps, faults=struck, settings=settings)


def _draw_fields(stream: random.Random, processes: int) -> tuple[dict[str, Any], ...]:
    """Return the fields of each process's configuration: mostly alike, sometimes mixed."""
    alike = _draw_options(stream)
    mixed = chance(stream, 0.2)
    return tuple(_draw_options(stream) if mixed else alike for _ in range(processes))


def _draw_options(stream: random.Random) -> dict[str, Any]:
    deadline = stream.choice((4.0, 8.0, 15.0))
    options: dict[str, Any] = {
        "retry": {"deadline_seconds": deadline},
        "pool": {
            "connect_timeout_seconds": stream.choice((0.5, 2.0)),
            "response_timeout_seconds": stream.choice((0.5, 1.0, 3.0)),
        },
        "op_retention_seconds": stream.choice((30, 60, 120)),
    }
    if chance(stream, 0.1):
        options["protocol"] = 3
    return options
