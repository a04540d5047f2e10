"""Runs that broke something once, and a sample of all others: fixed seeds, each in the time of a blink."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.simulation import draw, verdict, world
from tests.simulation.plan import Fault, Plan, Step
from tests.simulation.profiles import PROFILES
from tests.simulation.second_opinion import second_opinion

RUNS = {"standalone": 40, "name": 20, "sentinel": 12, "cluster": 6}
SEEDS = [(topology, seed) for topology, runs in RUNS.items() for seed in range(runs)]
SEEDS.append(("sentinel", 920110))  # what two partitions hold up one after another arrives in its order
SEEDS.append(("sentinel", 1010467))  # the Sentinel that leads a failover ends in the middle of it
SEEDS.append(("cluster", 1004760))  # a slot moves to a member that hands over meanwhile
SEEDS.append(("cluster", 1013253))  # a member was down while a slot moved, and hears of it from one of lower epoch
SEEDS.append(("cluster", 1013342))  # a primary is replaced while a slot comes to it, and stays one with that slot
SEEDS.append(("standalone", 1015322))  # a process is set up to put what was displaced behind what took its place
SEEDS.append(("standalone", 1031266))  # a late reply confirms a change that its server has lost since
SEEDS.append(("cluster", 1030653))  # a slot is to move to a primary that does not know yet that it was replaced
SEEDS.append(("cluster", 1030677))  # a server is down while the move of its slot is called off
SEEDS.append(("sentinel", 1031154))  # the server is full when what it lost is to be put back by the sweep
SEEDS.append(("cluster", 1036765))  # a primary is replaced when some keys of a slot have moved: the move is called off
SEEDS.append(("cluster", 1005898))  # a read shows what a pop took whose first attempt was lost with its server
SEEDS.append(("cluster", 1006078))  # the owner serves nobody in the moment in which it is asked what is stored
SEEDS.append(("standalone", 1004530))  # one process sweeps seconds before the other does anything
SEEDS.append(("standalone", 1042349))  # a window does not reach back to a change that another was put back behind
SEEDS.append(("name", 1012453))  # the same, of what was confirmed to another process
SEEDS.append(("name", 1036587))  # a pop of unknown outcome took what its process had been shown
SEEDS.append(("sentinel", 1039263))  # the end of a batch is what a pop took, where whole changes are lost, too
SEEDS.append(("sentinel", 1040081))  # a failover is called off, and clients use the promoted server for a while
SEEDS.append(("name", 1037359))  # a pop that is under way is made on one server, and again on the next one
SEEDS.append(("name", 1011042))  # the same, between two reads of another process
SEEDS.append(("name", 1011313))  # the server that a name led to before ends, with what it took meanwhile
SEEDS.append(("name", 1010691))  # changes are lost, and the ids of the session are evicted
SEEDS.append(("name", 1037401))  # the same, where all of the session is evicted, and another history is put back
SEEDS.append(("cluster", 1053483))  # a replacement that a partition holds back arrives behind its deadline
SEEDS.append(("sentinel", 1037450))  # a process that keeps nothing writes in the place of what it has met
SEEDS.append(("cluster", 1059230))  # a server stands still while another one ends without a word, and starts again
SEEDS.append(("cluster", 1059935))  # the same
SEEDS.append(("cluster", 1071292))  # the move of a slot is called off, and the elements of a session are left behind
SEEDS.append(("cluster", 1071671))  # the same, where two processes knew some of its changes each
SEEDS.append(("cluster", 1075179))  # elements are evicted between a look at another history and the next request
SEEDS.append(("cluster", 1074083))  # of two pops of one item the second, still under way, had taken the one before it


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


APART = [name for name, profile in PROFILES.items() if not profile.is_drawn]


@pytest.mark.parametrize("name", APART)
def test_plans_that_are_made_for_one_mutant_break_nothing_without_it(name: str) -> None:
    (topology,) = PROFILES[name].topologies
    for seed in range(1, 6):
        run = world.run(draw.draw_plan(seed, topology, profile=name))
        assert verdict.judge(run).broken == ()
        assert second_opinion(run) == []


SIX_PROCESSES = {
    1010355: "what a deposed server is asked late has another place on its successor",
    1033241: "a process comes back to a session when it does not remember it any more",
    1035069: "a process that keeps nothing writes in the place of what it has met",
    1038099: "a process knows a session that was evicted, when items of the next one are evicted and others wait",
    1040399: "a session that was evicted is put back by processes that had used it before a failover, behind a new one",
    1042172: "the same, where the failover came behind the eviction",
    1034534: "a window does not reach back to a change that others were put back behind",
    1047814: "a pop is made on a server that stands still, too, and that one has another newest item",
    1300806: "a server that is full stands still, and closes all connections when its memory suffices again",
}


@pytest.mark.parametrize("seed", SIX_PROCESSES)
def test_six_processes_behind_sentinels_break_nothing(seed: int) -> None:
    run = world.run(draw.draw_plan(seed, "sentinel", processes=6))
    assert verdict.judge(run).broken == ()
    assert second_opinion(run) == []


def step(number: int, op: str, *, process: int = 0, session: str = "s", pause: float = 0.01, **more: Any) -> Step:
    return Step(number=number, process=process, session=session, op=op, pause=pause, **more)


def written_in_place_while_an_operation_waits(seed: int) -> Plan:
    """Return a plan: p1 waits with a read of s while p0 writes in the place of its change; its sweep finds that."""
    chance = random.Random(seed)
    steps = (
        step(1, "append", pause=0.1),
        step(2, "read", process=1, pause=0.2),
        step(3, "append", process=1, pause=0.1),
        step(4, "read", process=1, pause=0.1),
        step(5, "append", process=1, session="t", pause=0.15),
        step(6, "append", pause=chance.uniform(0.5, 0.75)),
        step(7, "read", process=1, pause=chance.uniform(0.2, 0.4)),
        step(8, "append", process=1, session="t", pause=chance.uniform(0.45, 0.7)),
    )
    empty = Fault(kind="crash", at=0.55, arguments={"seconds": chance.uniform(0.1, 0.5), "keep": "nothing"})
    return Plan(seed=seed, topology="standalone", fields=({}, {}), steps=steps, faults=(empty,))


SHORT: dict[str, Any] = {"pool": {"response_timeout_seconds": 0.5}}
FOUND: dict[str, list[Plan]] = {
    "a process takes a session for deleted whose loss another one has noticed, and forgets what it knows of it": [
        draw.draw_plan(seed, "standalone", profile="evicted") for seed in (7551, 7574)
    ],
    "a pop of a history that was evicted takes an element of the one that was begun in its place": [
        draw.draw_plan(11123, "standalone", profile="evicted")
    ],
    "an unconfirmed change is not put back": [draw.draw_plan(1001604, "sentinel"), draw.draw_plan(321933, "name")],
    "of two processes that know all together, the one that comes second gives up its own change": [
        Plan(
            seed=seed,
            topology="standalone",
            fields=({}, {}),
            steps=(
                step(1, "append", pause=0.05),
                step(2, "append", process=1, pause=0.1),
                step(3, "expect", process=1, pause=0.2),
                step(4, "read", pause=0.85),
                step(5, "read", process=1, pause=0.6),
            ),
            faults=(Fault(kind="crash", at=0.6, arguments={"seconds": 0.2, "keep": "nothing"}),),
        )
        for seed in range(3)
    ],
    "a pop of an empty session, answered to its repeat, takes an item when it arrives at last": [
        Plan(
            seed=508,
            topology="standalone",
            fields=(SHORT,),
            steps=(step(23, "pop"), step(38, "append")),
            faults=(Fault(kind="stall-request", step=23, arguments={"seconds": 5.0}),),
        )
    ],
    "an operation under way is not told of what the sweep gives up": [
        written_in_place_while_an_operation_waits(seed) for seed in range(60)
    ],
    "a read whose parts a change comes between is kept as what the session was before it": [
        Plan(
            seed=seed,
            topology="standalone",
            fields=({}, {}),
            steps=(
                step(1, "append", size=2),
                step(2, "read", process=1, pause=0.1),
                step(3, "append", pause=0.2),
                step(4, "read", process=1, pause=0.2, limit=3),
                step(5, "append", pause=0.2),
                step(6, "read", process=1, pause=0.5),
            ),
            faults=(
                Fault(kind="split-request", step=4, arguments={"part": 0.9, "seconds": 0.2}),
                Fault(kind="crash", at=0.7, arguments={"seconds": 0.1, "keep": "nothing"}),
            ),
        )
        for seed in range(3)
    ],
    "a process that read that a session is empty is told of a loss": [
        Plan(
            seed=1,
            topology="standalone",
            fields=({}, {}),
            steps=(
                step(1, "append", size=2),
                step(2, "clear", pause=0.1),
                step(3, "read", process=1, pause=0.2),
                step(4, "read", process=1, pause=0.6),
            ),
            faults=(
                Fault(kind="kill-process", at=0.4, arguments={"process": 0, "seconds": 3.0}),
                Fault(kind="crash", at=0.5, arguments={"seconds": 0.1, "keep": "nothing"}),
            ),
        )
    ],
    "a process that knows nothing begins a new log behind evicted keys, and another task meets it before a repeat": [
        draw.draw_plan(seed, "standalone", profile="anew") for seed in (2, 17, 26, 28, 39)
    ],
    "behind a proxy with one replication id, changes are lost behind one that another process made": [
        draw.draw_plan(seed, "name", profile="proxied") for seed in (6, 8, 9, 19)
    ],
    "a demoted server that is behind answers a pop with nothing": [
        draw.draw_plan(seed, "name", profile="demoted") for seed in (1, 2, 8, 13, 14)
    ],
    "a change that a reader puts back without its id is repeated": [draw.draw_plan(300039, "name", profile="")],
    "a late reply of a server that was replaced confirms what another change stands in the place of": [
        draw.draw_plan(seed, "name", profile="moved") for seed in (193, 232, 242, 263)
    ],
    "a late reply of a server that was replaced shows what another change stands in the place of": [
        draw.draw_plan(301646, "name", profile="moved")
    ],
    "the first attempt of an append arrives behind its repeat and an eviction of the ids": [
        Plan(
            seed=101143,
            topology="standalone",
            fields=(SHORT,),
            steps=(step(11, "append", pause=0.2), step(15, "append", pause=0.2), step(16, "append", pause=0.5)),
            faults=(
                Fault(kind="stall-request", step=15, arguments={"seconds": 8.0}),
                Fault(kind="evict", at=1.2, arguments={"server": 0, "policy": "all", "first": 1, "each": 3}),
            ),
        )
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_not_broken_any_more(name: str) -> None:
    for plan in FOUND[name]:
        run = world.run(plan)
        assert verdict.judge(run).broken == ()
        assert second_opinion(run) == []
