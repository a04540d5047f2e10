"""What processes that live on knew together is put back: then nothing is lost, and nothing is said to be.

The checker excuses what is said where several processes use a session, and all that is lost where one was killed. Where
nothing came in between, neither is an excuse: guarantees.md says that what a living process made or read is put back.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.failover.campaign.history import Call, Op, Status
from tests.simulation.world import Run

_UNDISTURBED = {"kill-process", "crash"}
_PATIENCE_SECONDS = 1.0  # half of what the library has with others


def unkept(run: Run) -> Iterator[str]:
    """Yield what was known to processes that live on, and is lost all the same."""
    if not run.losses or run.plan.keeps_less or set(run.struck) - _UNDISTURBED:
        return
    if run.seconds > run.plan.retention_seconds:  # then it is known no more
        return
    for session in run.plan.sessions:
        calls = [call for call in run.calls if call.session == session]
        before = [call for call in calls if call.end < run.losses[0]]
        after = [call for call in calls if call.begin > run.losses[0]]
        if len(before) + len(after) == len(calls) and all(call.op is Op.READ for call in after):
            yield from _unkept(run, session, before, after)


def _unkept(run: Run, session: str, before: list[Call], after: list[Call]) -> Iterator[str]:
    alive = {call.worker for call in before} & {call.worker for call in after}
    changes = [call for call in before if call.op is not Op.READ and call.status is not Status.NOT_APPLIED]
    last = max((call.end for call in changes), default=0.0)
    reads = [c for c in before if c.worker in alive and c.op is Op.READ and c.status is Status.OK and c.begin > last]
    shown = {mark for call in reads for mark in call.result if mark is not None}
    is_read = any(call.limit is None for call in reads)
    known = is_read or all(
        call.worker in alive or (call.op is Op.APPEND and set(call.items) <= shown) for call in changes
    )
    # With the first thing that it does, in whichever session, a process looks after all that it knows.
    looks = [call for call in run.calls if call.end > run.losses[0]]
    comes = [min(max(call.begin, run.losses[0]) for call in looks if call.worker == worker) for worker in alive]
    in_time = bool(comes) and max(comes) - min(comes) < _PATIENCE_SECONDS
    if not known or not in_time or any(call.status is not Status.OK for call in changes):
        return
    for call in after:
        if call.worker in alive and call.status is Status.HISTORY_LOST:
            yield f"unkept: {session}: {call.worker} is told of a loss at {call.end:.3f}: {call.error}"
    for mark in sorted(shown - set(run.stored.get(session, ()))):
        yield f"unkept: {session}: {mark}, which a living process had read, is not stored"
