"""Turns in the simulated world: killed at each step and cut at each reply, and still stored once and whole."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.failover.campaign.history import ToolRun
from tests.simulation import draw, verdict, world
from tests.simulation.plan import Fault, Plan, Step
from tests.simulation.second_opinion import second_opinion
from tests.simulation.turns import broken_turns

OPTIONS: dict[str, Any] = {
    "if_busy": "enqueue",
    "if_unanswered": "resume",
    "save": "steps",
    "on_error": "keep",
    "wait_seconds": 20.0,
    "lease_seconds": 4.0,
    "think_seconds": 0.05,
}
UNDISTURBED = [f"p0.s:1:{place}/6" for place in range(6)]
REQUESTS = {"steps": 4, "end": 2}
"""Begin, two rounds of tools, finish; or begin and finish."""
SCRIPTS = {"steps": 3, "end": 2}
"""Each is refused once, since the server does not know it, and sent with its source."""
CUTS = ("cut-before", "cut-after", "cut-reply", "kill-at-request")


def plan(*faults: Fault, **options: Any) -> Plan:
    turn = Step(number=1, process=0, session="s", op="turn", size=6, pause=0.1, turn={**OPTIONS, **options})
    fields = {"retry": {"deadline_seconds": 4.0}}
    return Plan(
        seed=1,
        topology="standalone",
        fields=(fields,),
        steps=(turn,),
        faults=faults,
        settings={"drift": 0.0, "servers": 1},
    )


def stored(run: world.Run) -> list[str]:
    return [str(mark) for mark in run.stored["s"]]


def assert_stored_once(run: world.Run) -> None:
    assert stored(run) == UNDISTURBED
    assert verdict.judge(run).broken == ()
    assert second_opinion(run) == []
    assert len({each.result for each in run.attempts} - {None}) == 1


def ran(run: world.Run) -> list[int]:
    """Return which tools ran, in order."""
    return [tool.round for tool in run.tools]


@pytest.mark.parametrize("save", REQUESTS)
def test_a_turn_takes_a_round_trip_to_begin_one_a_tool_round_and_one_to_finish(save: str) -> None:
    run = world.run(plan(save=save))
    assert_stored_once(run)
    asked = [line for line in run.timeline.lines() if "is asked by" in line and ":turns" in line]
    sources = sum("EVAL ?" in line for line in asked)  # each script is sent once
    assert len(asked) - sources == REQUESTS[save]


@pytest.mark.parametrize("if_unanswered", ["resume", "restart"])
@pytest.mark.parametrize("save", REQUESTS)
@pytest.mark.parametrize("kind", CUTS)
def test_a_turn_that_is_cut_at_any_request_is_stored_once(kind: str, save: str, if_unanswered: str) -> None:
    requests = REQUESTS[save] + SCRIPTS[save]
    struck = 0
    for request in range(1, requests + 1):
        fault = Fault(kind=kind, step=1, request=request, arguments={"part": 0.5, "seconds": 1.0})
        run = world.run(plan(fault, save=save, if_unanswered=if_unanswered))
        assert_stored_once(run)
        struck += run.struck[kind]
        if kind != "kill-at-request" or (save, if_unanswered) == ("steps", "resume"):
            again = [number for number in (1, 2) if ran(run).count(number) > 1]
            assert len(again) <= (kind == "kill-at-request")  # the one whose output was on its way
    assert struck == requests


@pytest.mark.parametrize("if_unanswered", ["resume", "restart"])
@pytest.mark.parametrize("save", REQUESTS)
def test_a_worker_that_is_killed_at_any_moment_is_followed_by_another(save: str, if_unanswered: str) -> None:
    undisturbed = world.run(plan(save=save))
    end = undisturbed.calls[0].end - 1000.0
    moments = sorted({0.1 + 0.0004 * n for n in range(1, 12)} | {0.1 + end * n / 60 for n in range(60)})
    for at in moments:
        fault = Fault(kind="kill-process", at=at, arguments={"process": 0, "seconds": 1.0})
        run = world.run(plan(fault, save=save, if_unanswered=if_unanswered))
        assert_stored_once(run)


def test_a_worker_that_stood_still_is_refused_after_another_took_its_turn() -> None:
    steps = tuple(
        Step(number=n + 1, process=n, session="s", op="turn", size=6, pause=0.1 + n, turn=OPTIONS) for n in range(2)
    )
    stopped = Fault(kind="pause-process", at=0.16, arguments={"process": 0, "seconds": 12.0})
    fields: dict[str, Any] = {"retry": {"deadline_seconds": 4.0}}
    both = plan(stopped)
    run = world.run(
        Plan(
            seed=1,
            topology="standalone",
            fields=(fields, fields),
            steps=steps,
            faults=(stopped,),
            settings=both.settings,
        )
    )
    assert verdict.judge(run).broken == ()
    batches = [mark.batch for mark in run.stored["s"] if mark is not None]
    assert [batch for batch, _ in itertools.groupby(batches)] == [("p1.s", 1), ("p0.s", 1)]
    assert len(batches) == 12
    assert [tool.attempt for tool in run.tools if tool.batch == ("p0.s", 1)][-1] == 2


def test_a_tool_that_runs_again_although_its_output_was_saved_is_found() -> None:
    run = world.run(plan())
    assert list(broken_turns(run)) == []
    first = run.tools[0]
    run.tools.append(ToolRun(**{**vars(first), "attempt": 2, "began": (first.saved or 0.0) + 1}))
    assert [text.partition(":")[0] for text in broken_turns(run)] == ["turn"]


FOUND = {("standalone", 362): "a renewal was told of a loss, and its turn's user was not"}


@pytest.mark.parametrize(("topology", "seed"), FOUND, ids=str)
def test_what_broke_once_holds(topology: str, seed: int) -> None:
    run = world.run(draw.draw_plan(seed, topology, workload="turns"))
    assert verdict.judge(run).broken == ()
    assert second_opinion(run) == []


@pytest.mark.parametrize("topology", draw.TOPOLOGIES)
def test_turns_are_drawn_and_judged_in_every_topology(topology: str) -> None:
    turns = 0
    for seed in range(7001, 7004):
        run = world.run(draw.draw_plan(seed, topology, workload="turns"))
        assert verdict.judge(run).broken == ()
        assert second_opinion(run) == []
        turns += sum(step.op == "turn" for step in run.plan.steps)
    assert turns > 20
