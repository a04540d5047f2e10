"""What the processes call, drawn from the seed. A new call is a row here and a method of `calls.Caller`. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.simulation.plan import Step, chance

STEPS = 40
_LIMITS = (1, 2, 4, 8)

_MIXES: Mapping[str, Mapping[str, float]] = {
    "appends": {"append": 6, "read": 3},
    "all": {"append": 5, "read": 3, "pop": 1.5, "clear": 0.3, "replace": 0.3, "compact": 0.4, "expect": 0.7},
    "pops": {"append": 4, "pop": 4, "read": 2},
    "compaction": {"append": 4, "read": 2, "replace": 0.7, "compact": 1.5, "expect": 1},
}
"""How often each kind of call occurs in a mix."""


def draw_steps(
    stream: random.Random, processes: int, paces: Sequence[float], *, steps: int = STEPS
) -> tuple[Step, ...]:
    """Return the calls of a run: some sessions of its own for each process, and some that all of them call.

    Args:
        stream: Decides.
        processes: How many there are.
        paces: Mean pauses to choose from, in seconds.
        steps: How many calls.
    """
    shared = [f"shared{n}" for n in range(stream.choice((1, 1, 2)))]
    mix = _MIXES[stream.choice(list(_MIXES))]
    pace = stream.choice(paces)
    cancelling = stream.choice((0.0, 0.0, 0.03, 0.1))
    homes = {
        process: ([f"own{process}"] if processes == 1 or chance(stream, 0.4) else []) for process in range(processes)
    }
    drawn = []
    for number in range(1, steps + 1):
        process = stream.randrange(processes)
        session = stream.choice([*shared, *homes[process]])
        drawn.append(_draw_step(stream, number, process, session, mix, pace, cancelling))
    return tuple(drawn)


def duration(steps: Iterable[Step]) -> float:
    """Return how long the calls take without faults, in seconds: as long as the pauses of the slowest caller."""
    seconds: dict[tuple[int, str, int], float] = defaultdict(float)
    for step in steps:
        seconds[step.process, step.session, step.caller] += step.pause
    return max(seconds.values())


def _draw_step(
    stream: random.Random,
    number: int,
    process: int,
    session: str,
    mix: Mapping[str, float],
    pace: float,
    cancelling: float,
) -> Step:
    (op,) = stream.choices(list(mix), list(mix.values()))
    details: dict[str, Any] = {}
    if op in ("append", "replace", "compact", "expect"):
        details["size"] = stream.choice((1, 1, 2, 3))
    elif op == "read" and chance(stream, 0.5):
        details["limit"] = stream.choice(_LIMITS)
    if chance(stream, cancelling):
        details["cancel_after"] = stream.choice((0.0, stream.uniform(0, 0.002), stream.uniform(0, 0.5)))
    pause = 1e-4 + stream.expovariate(1 / pace)
    return Step(number=number, process=process, session=session, op=op, pause=pause, **details)
