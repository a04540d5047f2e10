"""What a process knew of a session, as far as its calls tell. Pure.

A process that knows a change notices that it is gone before it writes anything, and a process that also knows what was
in front of it notices that another change stands there. Where neither does, a change that was lost and put back stands
behind a later one, and no order could have been kept (docs/guarantees.md, "Kept").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tests.failover.campaign.history import BatchId, Call, Op, Status
from tests.failover.campaign.views import SessionHistory


def may_stand_behind(history: SessionHistory, batch: BatchId, in_front: Sequence[Call]) -> bool:
    """Whether a batch can have been lost and put back behind changes that began when it had been confirmed.

    Args:
        history: The session's.
        batch: The batch.
        in_front: The calls whose batches stand in front of it.
    """
    written = history.writes[batch]
    if any(_knew(history, call.worker, batch, call.begin) for call in in_front if written.settled < call.begin):
        return False
    gone = [
        call
        for call in history.calls
        if call.op is not Op.READ and call.may_be_applied and call.begin < written.end and call not in in_front
    ]
    gone.remove(written)
    return any(_missed(history, gone, worker, at) for worker, at in _learned(history, batch))


def _learned(history: SessionHistory, batch: BatchId) -> list[tuple[str, float]]:
    """Return which processes wrote or read a batch, and when that ended."""
    reads = (call for call in history.calls if any(mark and mark.batch == batch for mark in call.result))
    return [(call.worker, call.end) for call in (history.writes[batch], *reads)]


def _knew(history: SessionHistory, worker: str, batch: BatchId, at: float) -> bool:
    """Whether a process knew a batch then: it had met it, and was not told since that history is gone."""
    met = [end for who, end in _learned(history, batch) if who == worker and end < at]
    return bool(met) and not history.said(after=max(met), before=at, worker=worker)


def _missed(history: SessionHistory, gone: Iterable[Call], worker: str, until: float) -> bool:
    """Whether a process did not know one of these changes when it made changes of its own.

    A change's reply tells nothing of those before it. A read tells what was new since the last reply.
    """
    read = -math.inf
    for own in history.calls:
        if own.worker != worker or own.begin >= until:
            continue
        if own.op is Op.READ:
            read = max(read, own.begin if own.status is Status.OK else read)
        elif own.may_be_applied:
            others = (call for call in gone if call.worker != worker or call.settled == math.inf)
            if any(call.begin < own.end and call.settled >= read for call in others):
                return True
    return False
