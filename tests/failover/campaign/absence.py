"""What a view lacks although it was confirmed, or shown before, and nothing can have removed it. Pure.

What can remove an item: a pop that returned it; a clear or a replacement that did not end before the item's batch
began; a pop whose outcome is unknown, or was unknown then, one item each. A clear takes everything, so it explains
nothing if an older batch is still there; a pop takes the newest item, so it explains nothing if a newer batch was
complete before it began and is still there. A pop whose answer is there again was made on two servers, of which one is
lost: on the other one it took another item, if that was not confirmed yet when the pop began. Servers lose whole
batches, so that pops explain ends of batches first; then what the same session object had shown before, since it pops
from the server that it reads.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.failover.campaign.history import BatchId, Call, Status
from tests.failover.campaign.marks import Mark
from tests.failover.campaign.shape import missing_tail
from tests.failover.campaign.views import SessionHistory, View


@dataclass(frozen=True)
class Absence:
    """Something that ought to be there.

    Attributes:
        batch: Its batch.
        marks: The items in question.
        whole: Whether the view shows nothing of the batch; else its end is missing.
        shown_before: Whether the same session object had shown it.
    """

    batch: BatchId
    marks: tuple[Mark, ...]
    whole: bool
    shown_before: bool


@dataclass(frozen=True)
class _Open:
    """An absence that only a pop can explain: one of unknown outcome, begun before the deadline, or one made twice.

    That one began before it was known, by its confirmation or a look, that the item is there.
    """

    known: float
    deadline: float
    absence: Absence


def find_absences(history: SessionHistory, view: View, shown: Mapping[BatchId, float]) -> Iterator[Absence]:
    """Yield what is missing without an explanation.

    Args:
        history: The session's.
        view: The view in question.
        shown: Batches that this session object has shown before, and when.
    """
    landscape = _Landscape(history, view)
    unexplained = [*_absent(landscape, shown), *_cut(landscape)]
    unexplained.sort(key=lambda each: (each.absence.whole, not each.absence.shown_before, each.deadline))
    under_way = _under_way(history, view, shown)
    pops = sorted(pop.begin for pop in (*history.open_pops, *under_way) if pop.begin < view.end)
    twice = sorted(pop.begin for pop in history.pops if pop.end <= view.end and view.present.intersection(pop.result))
    explained: list[_Open] = []
    for each in unexplained:
        if _suffice(pops, twice, [*explained, each]):
            explained.append(each)
        else:
            yield each.absence


def _suffice(pops: Sequence[float], twice: Sequence[float], absences: Iterable[_Open]) -> bool:
    """Return whether there are pops for all that is missing, each begun in time."""
    needed = 0
    for each in sorted(absences, key=lambda each: each.known):  # the deadlines have the same order
        needed += len(each.absence.marks)
        if needed > bisect_right(pops, each.deadline) + bisect_left(twice, each.known):
            return False
    return True


def _under_way(history: SessionHistory, view: View, shown: Mapping[BatchId, float]) -> Iterator[Call]:
    """Yield the pops that had no reply yet: the item that one took then was another one, if a server has lost that.

    Not one that was answered with what the look misses: it has taken just that, if no other pop had.
    """
    taken = {mark for pop in history.pops if pop.end <= view.end for mark in pop.result}
    for pop in history.pops:
        if pop.end > view.end:
            missed = {mark for mark in pop.result if _was_missed(history, view, shown, mark)}
            if missed <= taken:
                yield pop
            taken |= missed


def _was_missed(history: SessionHistory, view: View, shown: Mapping[BatchId, float], mark: Mark | None) -> bool:
    """Return whether an item has to be there, and the look does not show it: then the pop took no other one."""
    call = history.writes.get(mark.batch) if mark is not None else None
    if call is None or mark in view.present:
        return False
    return call.items[0].batch in view.batches or _known_since(call, shown) < view.begin


def _known_since(call: Call, shown: Mapping[BatchId, float]) -> float:
    """Return since when a batch has to be there.

    What too few replicas have may be lost; but once it was shown, the same object goes on showing it.
    """
    confirmed = call.end if call.status is Status.OK else math.inf
    return min(confirmed, shown.get(call.items[0].batch, math.inf))


class _Landscape:
    """What the view shows, by time."""

    def __init__(self, history: SessionHistory, view: View) -> None:
        self.history = history
        self.view = view
        self.present: dict[BatchId, Call] = {
            batch: history.writes[batch] for batch in view.batches if batch in history.writes
        }
        self.oldest_settled = min((call.settled for call in self.present.values()), default=math.inf)
        rows = sorted((call.begin, call.settled) for call in self.present.values())
        self._begins = [begin for begin, _ in rows]
        self._earliest = [math.inf] * (len(rows) + 1)  # of all from here on: when the first one was complete
        for index in range(len(rows) - 1, -1, -1):
            self._earliest[index] = min(rows[index][1], self._earliest[index + 1])

    def pop_deadline(self, settled: float) -> float:
        """Return until when a pop could still have taken an item that was complete at that time."""
        return self._earliest[bisect_left(self._begins, settled)]

    def left(self, marks: Iterable[Mark]) -> tuple[Mark, ...]:
        """Return those that no pop returned before the look had ended."""
        popped = self.history.popped
        return tuple(mark for mark in marks if not (mark in popped and popped[mark].begin < self.view.end))

    def may_be_cleared(self, call: Call) -> bool:
        """Return whether a clear or replacement can have removed what this call wrote."""
        if self.oldest_settled < call.begin:
            return False
        # What a replacement wrote is shown: it was there, whatever became of it later.
        shown = [other for other in self.present.values() if other.removes_all]
        return any(
            remover is not call and remover.begin < self.view.end and not remover.settled < call.begin
            for remover in (*self.history.removers, *shown)
        )


def _absent(landscape: _Landscape, shown: Mapping[BatchId, float]) -> Iterator[_Open]:
    view, history = landscape.view, landscape.history
    # A window shows the newest items: what is missing must be newer than something that it shows.
    first = 0 if view.complete else bisect_left(history.begins, landscape.oldest_settled)
    for batch, call in history.by_begin[first:]:
        if call.begin >= view.begin:
            break
        known = _known_since(call, shown)
        if batch in landscape.present or known >= view.begin or not call.may_be_applied:
            continue
        marks = landscape.left(call.items)
        if not marks or landscape.may_be_cleared(call):
            continue
        if view.complete or not history.stands_in_front(batch, view):
            yield _Open(known, landscape.pop_deadline(known), Absence(batch, marks, True, batch in shown))


def _cut(landscape: _Landscape) -> Iterator[_Open]:
    ends = {mark.batch: mark for mark in landscape.view.marks}
    for batch, call in landscape.present.items():
        if ends[batch].place + 1 < ends[batch].size:
            marks = landscape.left(missing_tail(landscape.view, batch))
            if marks:
                yield _Open(call.settled, landscape.pop_deadline(call.settled), Absence(batch, marks, False, False))
