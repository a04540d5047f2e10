"""What must hold of every view by itself: each item once, batches whole, everything in order, nothing foreign. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tests.failover.campaign.findings import Kind, Violation
from tests.failover.campaign.history import BatchId, Call, Status
from tests.failover.campaign.knowledge import may_stand_behind
from tests.failover.campaign.marks import Mark
from tests.failover.campaign.views import SessionHistory, View


def check_shape(history: SessionHistory, view: View) -> Iterator[Violation]:
    """Yield what is wrong with the view; items that are missing altogether are another matter."""
    yield from _ghosts(history, view)
    yield from _duplicates(history, view)
    yield from _torn(history, view)
    yield from _order(history, view)
    yield from _removed(history, view)


def missing_tail(view: View, batch: BatchId) -> list[Mark]:
    """Return the items that the view lacks at the end of a batch that it shows: only pops can have taken them."""
    shown = [mark for mark in view.marks if mark.batch == batch]
    size, last = shown[0].size, max(mark.place for mark in shown)
    return [Mark(*batch, index, size) for index in range(last + 1, size)]


def _ghosts(history: SessionHistory, view: View) -> Iterator[Violation]:
    if None in view.items:
        yield _violation(Kind.GHOST, history, view, "an element that nobody wrote")
    for mark in view.present:
        call = history.writes.get(mark.batch)
        if call is None or mark not in call.items:
            yield _violation(Kind.GHOST, history, view, f"{mark}, which nobody wrote")
        elif not call.may_be_applied:
            yield _violation(Kind.GHOST, history, view, f"{mark}, reported as {call.status.value}")


def _duplicates(history: SessionHistory, view: View) -> Iterator[Violation]:
    if len(view.present) < len(view.marks):
        for mark, times in Counter(view.marks).items():
            if times > 1:
                yield _violation(Kind.DUPLICATED, history, view, f"{mark} is there {times} times")


def _torn(history: SessionHistory, view: View) -> Iterator[Violation]:
    """Each batch is one run of rising indices from 0; only the window of a read may cut its front off."""
    seen: set[BatchId] = set()
    previous: Mark | None = None
    for position, mark in enumerate(view.marks):
        if previous is not None and mark.batch == previous.batch:
            fits = mark.place == previous.place + 1 or mark == previous  # the same again is a duplicate
        else:
            cut_by_window = position == 0 and not view.complete
            fits = mark.batch not in seen and (mark.place == 0 or cut_by_window)
        if not fits and view.marks.count(mark) == 1:
            yield _violation(Kind.TORN, history, view, f"{mark} stands behind {previous}")
        seen.add(mark.batch)
        previous = mark


def _order(history: SessionHistory, view: View) -> Iterator[Violation]:
    """No batch stands behind one that began only after it had been confirmed."""
    latest = -math.inf, ""
    latest_of: dict[str, float] = {}
    in_front: list[Call] = []
    for batch in view.batches:
        call = history.writes.get(batch)
        if call is None:
            continue
        writer = batch[0]
        if call.settled < latest_of.get(writer, -math.inf):
            yield _violation(
                Kind.REORDERED, history, view, f"{writer}:{batch[1]} stands behind a later batch of its writer"
            )
        elif call.settled < latest[0]:
            what = f"{writer}:{batch[1]} stands behind {latest[1]}, begun after it was confirmed"
            kind = Kind.PUT_BACK_BEHIND if may_stand_behind(history, batch, in_front) else Kind.OVERTAKEN
            told = history.said(after=call.begin)
            yield replace(_violation(kind, history, view, what, said=told), begin=call.begin)
        latest_of[writer] = max(call.begin, latest_of.get(writer, -math.inf))
        latest = max(latest, (call.begin, f"{writer}:{batch[1]}"))
        in_front.append(call)


def _removed(history: SessionHistory, view: View) -> Iterator[Violation]:
    """Nothing is there that was popped or cleared before the look began."""
    told = history.said(before=view.begin, worker=view.worker)
    for mark in view.present:
        pop = history.popped.get(mark)
        if pop is not None and pop.settled < view.begin and not _may_be_made_anew(history, mark):
            what = f"{mark}, popped by {pop.worker} at {pop.end:.3f}"
            yield _violation(Kind.POPPED_STILL_THERE, history, view, what, said=told)
    cleared = [call for call in history.removers if call.status is Status.OK and call.end < view.begin]
    for clear in cleared[-1:]:
        older = [batch for batch in view.batches if batch in history.writes]
        older = [batch for batch in older if history.writes[batch].settled < clear.begin]
        if older:
            what = f"what {clear.worker} cleared at {clear.end:.3f}, such as {older[0][0]}:{older[0][1]}"
            yield _violation(Kind.CLEARED_STILL_THERE, history, view, what, said=told)


def _may_be_made_anew(history: SessionHistory, mark: Mark) -> bool:
    """Whether an append was under way when its session was deleted: a repeat behind that is made on a new session."""
    call = history.writes.get(mark.batch)
    return call is not None and any(each.begin < call.settled and call.begin < each.end for each in history.removals)


def _violation(kind: Kind, history: SessionHistory, view: View, what: str, *, said: bool = False) -> Violation:
    in_read = view.worker is not None
    return Violation(kind=kind, session=history.name, what=what, where=str(view), said=said, in_read=in_read)
