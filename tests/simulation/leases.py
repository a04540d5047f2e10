"""With Sentinels, a primary confirms nothing more once another server has been promoted (guarantees.md, its lease)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.failover.campaign.history import Status
from tests.simulation.world import Run


def confirmed_by_deposed(run: Run) -> Iterator[str]:
    """Yield what was written and confirmed by a server in whose place another one had been promoted by then.

    Where the Sentinel that had it promoted gave up or ended before it had told the others, that may be undone.
    Only where replicas have to confirm: without, a primary that is cut off takes writes. Where Sentinels are told to
    fail over, processes need not know if something else strikes, too. If that is all, and only one is told, nothing is
    sent to the old primary any more.
    """
    by_hand, is_all = run.struck["fail-over"], len(run.struck) == 1
    confirms = all(fields.get("durability", {}).get("replicas", 0) for fields in run.plan.fields)
    knows = is_all and (confirms or by_hand == 1) if by_hand else confirms
    if run.plan.topology != "sentinel" or run.plan.degrades or not knows:
        return
    for call in run.calls:
        server = run.answered.get((call.session, call.items[0].batch)) if call.items else None
        if server is None or call.status is not Status.OK:
            continue
        later = {host for at, host in run.takeovers if at > call.begin}
        before = [host for at, host in run.takeovers if at < call.begin]
        if before and not {server, None} & {before[-1], *later}:
            yield f"confirmed by a deposed primary: {call.session}: {call.items[0]} at {call.begin:.3f}, by {server}"
