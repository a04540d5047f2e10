"""What a run's faults excuse, on forged histories."""

from __future__ import annotations

from typing import Any

import pytest

from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark
from tests.failover.stories import SESSION, Story
from tests.simulation.plan import Plan, Step
from tests.simulation.second_opinion import second_opinion
from tests.simulation.verdict import judge, kinds
from tests.simulation.world import Run


def put_back_behind(**reads: str) -> tuple[list[Call], list[Mark]]:
    """Return the calls, and what is stored: b's change, confirmed when that of a killed process was in front of it,
    behind that of c, which was begun later.

    Args:
        reads: Who reads before b writes, and before c does.
    """
    story = Story()
    first = story.append("a")
    if "early" in reads:
        story.read(reads["early"])
    story.append("b")
    if "late" in reads:
        story.read(reads["late"])
    lost = [mark for mark in story.stored if mark not in first.items]
    story.stored.clear()
    story.append("c")
    return story.calls, [*story.stored, *lost]


def run_of(calls: list[Call], stored: list[Mark], *, processes: int = 3, lost_at: float = 99.0, **fields: Any) -> Run:
    settings = {"servers": 3, "replicas": 2}
    steps = (Step(number=1, process=0, session=SESSION, op="read", pause=0.0),)
    plan = Plan(seed=0, topology="sentinel", fields=(fields,) * processes, steps=steps, faults=(), settings=settings)
    run = Run(plan=plan, calls=calls, stored={SESSION: list(stored)}, losses=[lost_at] if lost_at else [])
    run.struck["kill-process"] += 1
    return run


def test_what_was_lost_and_put_back_may_stand_behind_what_was_written_in_its_place() -> None:
    run = run_of(*put_back_behind())
    assert judge(run).broken == ()
    assert second_opinion(run) == []


@pytest.mark.parametrize(
    "run",
    [
        run_of(*put_back_behind(late="c")),
        run_of(*put_back_behind(early="b")),
    ],
    ids=["c knew it", "b knew what was in front"],
)
def test_where_a_process_would_have_noticed_both_judges_find_it(run: Run) -> None:
    assert kinds(judge(run).broken) == {"overtaken"}
    assert {finding.kind for finding in second_opinion(run)} == {"overtaken"}


@pytest.mark.parametrize(
    "run",
    [
        run_of(*put_back_behind(), lost_at=0.0),
        run_of(*put_back_behind(), processes=1),
        run_of(*put_back_behind(), durability={"replicas": 2}),
        run_of(*put_back_behind(), lost_at=1.0, durability={"replicas": 1}),
    ],
    ids=["nothing was lost", "one process", "all replicas had it", "lost before it was confirmed"],
)
def test_what_cannot_have_been_lost_is_not_put_back(run: Run) -> None:
    assert "put back behind" in kinds(judge(run).broken)


def silently_lost(lost_at: float, *evicted: str, processes: int = 2) -> Run:
    """Return a run in which a's second change is gone, in whose place c's stands."""
    story = Story()
    first = story.append("a")
    story.append("a")
    story.stored[:] = first.items
    story.append("c")
    story.read("a")
    run = run_of(story.calls, story.stored, processes=processes, lost_at=lost_at)
    run.struck.clear()
    run.struck["evict"] += 1
    run.evicted = True
    run.ids_evicted = set(evicted)
    return run


@pytest.mark.parametrize(
    ("run", "is_excused"),
    [
        (silently_lost(2.5, SESSION), True),
        (silently_lost(2.5, "another"), False),
        (silently_lost(0.0, SESSION), False),
        (silently_lost(1.5, SESSION), False),
        (silently_lost(2.5, SESSION, processes=1), False),
    ],
    ids=["both", "no ids evicted", "nothing lost", "lost before it was made", "one process"],
)
def test_where_changes_are_lost_and_ids_are_evicted_a_loss_may_stay_unsaid(run: Run, is_excused: bool) -> None:
    assert (judge(run).broken == ()) is is_excused
