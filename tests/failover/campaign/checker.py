"""Compares the record of all workers with what is stored. Pure: calls and items in, a report out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.failover.campaign.absence import Absence, find_absences
from tests.failover.campaign.findings import Kind, Report, Violation, distinct
from tests.failover.campaign.history import BatchId, Call, Op, Status
from tests.failover.campaign.marks import Mark
from tests.failover.campaign.shape import check_shape
from tests.failover.campaign.views import SessionHistory, View


def check(
    calls: Iterable[Call],
    stored: Mapping[str, Sequence[Mark | None]],
    removals: Iterable[Call] = (),
    *,
    counts_versions: bool = True,
) -> Report:
    """Return what became of all calls, and every promise that was broken.

    Args:
        calls: The calls of all workers.
        stored: Each session's items after the run, oldest first; None for an element without a mark.
        removals: What the servers have deleted by themselves, as they may.
        counts_versions: Whether a `HistoryLostError` accounts for as many changes as it names versions, or for all
            before it: where a session's versions were evicted, those of its elements are counted anew.
    """
    sessions: dict[str, list[Call]] = defaultdict(list)
    for name in stored:
        sessions[name] = []
    report = Report()
    for call in calls:
        sessions[call.session].append(call)
        report.counts[_count_of(call)] += 1
        if call.finished:
            report.slowest_seconds = max(report.slowest_seconds, call.end - call.begin)
    deleted: dict[str, list[Call]] = defaultdict(list)
    for removal in removals:
        deleted[removal.session].append(removal)
    for name in dict.fromkeys([*sessions, *deleted]):
        view = View(items=tuple(stored.get(name, ())))
        report.counts["stored"] += len(view.items)
        history = SessionHistory(name, sessions.get(name, ()), deleted.get(name, ()))
        report.violations += check_session(history, view, counts_versions=counts_versions)
    return report


def check_session(history: SessionHistory, stored: View, *, counts_versions: bool = True) -> list[Violation]:
    """Return every promise that was broken in one session."""
    found = [*_foreign_errors(history), *_pops(history, stored), *check_shape(history, stored)]
    losses = list(find_absences(history, stored, {}))
    found += _lost(history, losses, counts_versions=counts_versions)
    gone = {absence.batch for absence in losses}
    found += _reads(history, gone)
    return distinct(found)


def _count_of(call: Call) -> str:
    if call.op is Op.READ and call.status is not Status.HISTORY_LOST:
        return "reads" if call.status is Status.OK else "failed_reads"
    if not call.finished:
        return "unfinished"
    return "confirmed" if call.status is Status.OK else call.status.value


def _foreign_errors(history: SessionHistory) -> Iterator[Violation]:
    for call in history.calls:
        if call.foreign_error:
            what = f"{call.op.value} of {call.worker} at {call.begin:.3f}: {call.error}"
            yield Violation(kind=Kind.FOREIGN_ERROR, session=history.name, what=what)


def _pops(history: SessionHistory, stored: View) -> Iterator[Violation]:
    first: dict[Mark, Call] = {}
    for pop in history.pops:
        mark = pop.result[0]
        write = history.writes.get(mark.batch) if mark else None
        if mark is None or write is None or not write.may_be_applied:
            what = f"{mark}, handed out to {pop.worker} at {pop.end:.3f}"
            yield Violation(kind=Kind.GHOST, session=history.name, what=what)
            continue
        if mark in first:
            told = history.said(after=first[mark].begin, before=pop.end)
            what = f"{mark} to {first[mark].worker} and {pop.worker}, the second time at {pop.end:.3f}"
            yield Violation(kind=Kind.HANDED_OUT_TWICE, session=history.name, what=what, said=told)
        first.setdefault(mark, pop)
        newer = _newer(history, stored, write, pop)
        if newer is not None:
            what = f"{mark} at {pop.end:.3f}, although {newer[0]}:{newer[1]} was there already and still is"
            told = history.said(before=pop.begin)
            yield Violation(kind=Kind.POPPED_OUT_OF_TURN, session=history.name, what=what, said=told)


def _newer(history: SessionHistory, stored: View, write: Call, pop: Call) -> BatchId | None:
    """Return a stored batch that was behind this one, complete, when the pop began.

    Not one that had been popped by then: that it is back is a breach of its own.
    """
    back = {mark.batch for mark in stored.marks if mark in history.popped and history.popped[mark].begin < pop.end}
    for batch in reversed(stored.batches):
        call = history.writes.get(batch)
        if call is not None and batch not in back and write.settled < call.begin and call.settled < pop.begin:
            return batch
    return None


def _lost(history: SessionHistory, losses: list[Absence], *, counts_versions: bool) -> Iterator[Violation]:
    """A `HistoryLostError` names versions: it accounts for so many lost changes and no more."""
    unnamed = not counts_versions or any(not call.lost_versions for call in history.notices)
    accounted = sum(call.lost_versions for call in history.notices)
    for number, absence in enumerate(losses):
        call = history.writes[absence.batch]
        told = history.said(after=call.begin) and (unnamed or number < accounted)
        kind = Kind.LOST if absence.whole else Kind.TORN
        what = f"{_words(absence)}, {call.status.value} to {call.worker} at {call.end:.3f}, is not stored"
        yield Violation(kind=kind, session=history.name, what=what, said=told, begin=call.begin, batch=absence.batch)


def _reads(history: SessionHistory, gone: set[BatchId]) -> Iterator[Violation]:
    shown: dict[str | None, dict[BatchId, float]] = defaultdict(dict)
    reported: set[tuple[Kind, BatchId]] = set()
    for view in history.views():
        yield from check_shape(history, view)
        # Concurrent reads of one session object have no order: only what was shown before this one began counts.
        earlier = {batch: seen for batch, seen in shown[view.handle].items() if seen < view.begin}
        for absence in find_absences(history, view, earlier):
            kind = Kind.TORN if not absence.whole else Kind.BACKWARDS if absence.shown_before else Kind.STALE
            if (kind, absence.batch) in reported or (kind is Kind.STALE and absence.batch in gone):
                continue
            reported.add((kind, absence.batch))
            # Another caller of the process may have been told while the read was under way.
            told = history.said(before=view.end, worker=view.worker)
            missing, begin = f"which it lacks: {view}", history.writes[absence.batch].begin
            yield Violation(
                kind=kind, session=history.name, what=_words(absence), where=missing, said=told, begin=begin
            )
        for batch in view.batches:
            shown[view.handle].setdefault(batch, view.end)


def _words(absence: Absence) -> str:
    writer, sequence = absence.batch
    size = absence.marks[0].size
    if absence.whole and len(absence.marks) == size:
        return f"{writer}:{sequence} of {size}"
    return f"{', '.join(str(mark) for mark in absence.marks)} of {writer}:{sequence}"
