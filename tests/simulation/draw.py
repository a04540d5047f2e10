"""A whole plan from a seed: which processes with which settings, what they call, and what strikes. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.draw_faults import Scene, draw_faults
from tests.simulation.plan import Plan, chance
from tests.simulation.profiles import PROFILES, draw_profile
from tests.simulation.randomness import Seed
from tests.simulation.turns import with_turns
from tests.simulation.workloads import draw_steps, duration

_PACES = {
    "standalone": (0.01, 0.05, 0.2),
    "name": (0.02, 0.1, 0.3),
    "sentinel": (0.05, 0.2, 0.5),
    "cluster": (0.05, 0.2, 0.5),
}
"""Mean pauses between two calls of one caller, in seconds."""

WORKLOADS: Mapping[str, Callable[[Plan], Plan]] = {"operations": lambda plan: plan, "turns": with_turns}
"""What is made of a plan's calls."""

TOPOLOGIES = ("standalone", "name", "sentinel", "cluster")


def draw_plan(
    seed: int,
    topology: str = "standalone",
    *,
    processes: int | None = None,
    profile: str | None = None,
    workload: str = "operations",
) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: Decides everything.
        topology: One of `TOPOLOGIES`.
        processes: How many; None means as the seed says.
        profile: A name of `PROFILES`; None means as the seed says, "" means none.
        workload: A name of `WORKLOADS`.
    """
    stream = Seed(seed).stream("plan")
    name = draw_profile(seed, topology) if profile is None else profile
    drawn = stream.choice((1, 1, 2, 2, 3))
    shaping = Seed(seed).stream("shape")
    if name:
        drawn = shaping.choice(PROFILES[name].processes)
    count = drawn if processes is None else processes
    steps = draw_steps(Seed(seed).stream("steps"), count, _PACES[topology])
    settings = _draw_settings(stream, topology)
    scene = Scene(
        topology=topology,
        processes=count,
        steps=len(steps),
        seconds=duration(steps),
        servers=settings["servers"],
        sentinels=settings.get("sentinels", 0),
        sessions=tuple(sorted({step.session for step in steps})),
    )
    plan = Plan(
        seed=seed,
        topology=topology,
        fields=_draw_fields(stream, count, topology, settings),
        steps=steps,
        faults=draw_faults(Seed(seed).stream("faults"), scene),
        settings=settings,
    )
    return WORKLOADS[workload](PROFILES[name].shape(shaping, plan) if name else plan)


def _draw_settings(stream: random.Random, topology: str) -> dict[str, Any]:
    drift = stream.choice((0.0, 0.0, 1e-4, -1e-3))
    if topology == "standalone":
        return {"drift": drift, "servers": 1}
    if topology == "name":
        return {"drift": drift, "servers": 2, "replicas": 1, "config": {"repl-diskless-sync-delay": "0"}}
    if topology == "cluster":
        config = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": stream.choice(("500", "1000", "2000")),
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
        }
        return {"drift": drift, "shards": 3, "replicas": 1, "servers": 6, "config": config}
    return {
        "drift": drift,
        "replicas": 2,
        "servers": 3,
        "sentinels": 3,
        "quorum": 2,
        "down_after": stream.choice((0.5, 1.0, 2.0)),
        "failover_timeout": stream.choice((3.0, 10.0)),
        "config": {"repl-diskless-sync-delay": "0"},
    }


def _draw_fields(
    stream: random.Random, processes: int, topology: str, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Return the fields of each process's configuration: mostly alike, sometimes mixed."""
    durability = _draw_durability(stream, settings) if topology != "standalone" else {}
    alike = {**_draw_options(stream), **durability}
    mixed = chance(stream, 0.2)
    return tuple({**_draw_options(stream), **durability} if mixed else alike for _ in range(processes))


def _draw_durability(stream: random.Random, settings: Mapping[str, Any]) -> dict[str, Any]:
    replicas = stream.choice((0, 0, 1, 1, settings["replicas"]))
    return {"durability": {"replicas": replicas, "timeout_seconds": 0.4}} if replicas else {}


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
