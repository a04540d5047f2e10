"""Asks the independent judge about a run, in the judge's own terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark
from tests.simulation.judge import Event, Finding, Item, judge
from tests.simulation.world import Run

_OUTCOMES = {
    Status.OK: "ok",
    Status.NOT_APPLIED: "failed",
    Status.UNKNOWN: "unknown",
    Status.UNCONFIRMED: "applied",
    Status.HISTORY_LOST: "lost",
}


def second_opinion(run: Run) -> list[Finding]:
    """Return what the independent judge finds broken in a run."""
    forgets = any("kill" in kind or kind == "evict" for kind in run.struck) or run.seconds > run.plan.retention_seconds
    forgets |= run.plan.keeps_less
    names = {f"p{number}" for number in run.plan.forgetful}
    forgetful = {call.worker for call in run.calls if call.worker.partition(".")[0] in names}
    found: list[Finding] = []
    for session in run.plan.sessions:
        calls = [call for call in run.calls if call.session == session]
        removals = [call for call in run.removals if call.session == session]
        stored = [_item(mark) for mark in run.stored.get(session, ())]
        struck = [replace(call, begin=call.end) for call in removals]
        events = [event for call in (*calls, *struck) for event in _events(call)]
        found += judge(
            events,
            stored,
            may_lose=run.loses,
            losses=run.losses,
            may_forget=forgets,
            may_reorder=run.plan.reorders,
            forgetful=forgetful,
            deletions=[call.end for call in removals],
        )
    return found


def _events(call: Call) -> Iterator[Event]:
    """Yield the call, and what its caller was told instead of its outcome."""
    event = _event(call)
    yield replace(event, kind="read", items=()) if call.is_open else event
    if call.is_open:
        yield replace(event, outcome="unknown", end=math.inf)


def _event(call: Call) -> Event:
    return Event(
        process=call.worker,
        kind=call.op.value,
        begin=call.begin,
        end=call.end,
        outcome=_OUTCOMES[call.status],
        items=tuple(_named(mark) for mark in call.items),
        result=tuple(_item(mark) for mark in call.result),
        limit=call.limit if call.op is Op.READ else None,
    )


def _item(mark: Mark | None) -> Item | None:
    return None if mark is None else _named(mark)


def _named(mark: Mark) -> Item:
    return (mark.writer, mark.sequence, mark.place)
