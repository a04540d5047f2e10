"""Runs that broke something once, and a sample of all others: fixed seeds, each in the time of a blink."""

from __future__ import annotations

import pytest

from tests.simulation import draw, verdict, world
from tests.simulation.plan import Fault, Plan, Step
from tests.simulation.second_opinion import second_opinion

SEEDS = [("standalone", seed) for seed in range(40)] + [("sentinel", seed) for seed in range(12)]


@pytest.mark.parametrize(("topology", "seed"), SEEDS)
def test_nothing_is_broken_and_both_judges_say_so(topology: str, seed: int) -> None:
    run = world.run(draw.draw_plan(seed, topology))
    assert verdict.judge(run).broken == ()
    assert second_opinion(run) == []


@pytest.mark.parametrize("topology", draw.TOPOLOGIES)
def test_six_processes_break_nothing(topology: str) -> None:
    run = world.run(draw.draw_plan(7, topology, processes=6))
    assert len({call.worker.partition(".")[0] for call in run.calls}) == 6
    assert verdict.judge(run).broken == ()


def step(number: int, op: str, *, process: int = 0, pause: float = 0.01, size: int = 1) -> Step:
    return Step(number=number, process=process, session="s", op=op, pause=pause, size=size)


FOUND = {
    "a pop of an empty session, answered to its repeat, takes an item when it arrives at last": Plan(
        seed=508,
        topology="standalone",
        fields=({"pool": {"response_timeout_seconds": 0.5}},),
        steps=(step(23, "pop"), step(38, "append")),
        faults=(Fault(kind="stall-request", step=23, arguments={"seconds": 5.0}),),
    ),
}


@pytest.mark.xfail(reason="found by the simulation, and not mended yet", strict=True)
@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_not_broken_any_more(name: str) -> None:
    run = world.run(FOUND[name])
    assert verdict.judge(run).broken == ()
    assert second_opinion(run) == []
