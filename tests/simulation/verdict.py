"""What a run broke: the campaign's checker, and which of its findings the faults of this run excuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.failover.campaign.checker import check
from tests.failover.campaign.findings import Kind, Report, Violation
from tests.failover.campaign.history import Op, Status
from tests.failover.campaign.scenarios import AFTER_A_NOTICE, LOSSES
from tests.simulation.fences import passed
from tests.simulation.kept import unkept
from tests.simulation.leases import confirmed_by_deposed
from tests.simulation.plan import Fault
from tests.simulation.turns import broken_turns
from tests.simulation.world import Run

_KILLS = {"kill-process", "kill-at-request"}
_EVICTIONS = {"evict"}
_UNTIL_IT_IS_BACK = frozenset(
    {
        Kind.STALE,
        Kind.HANDED_OUT_TWICE,
        Kind.POPPED_STILL_THERE,
        Kind.POPPED_OUT_OF_TURN,
        Kind.CLEARED_STILL_THERE,
    }
)
"""What a process meets that does not know a change which the servers lost."""
_CONFIRMED = (Kind.LOST, Kind.PUT_BACK_BEHIND)
"""What cannot be where a change was not lost."""
_ABSENT = ((Kind.LOST, Kind.TORN), (Kind.STALE,))
"""What is missing in the end, and in a read."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of a run.

    Attributes:
        report: All that the checker found.
        broken: What the faults of the run do not excuse, and what went wrong with the run itself, in words.
    """

    report: Report
    broken: tuple[str, ...]


def judge(run: Run) -> Verdict:
    """Return what a run broke."""
    counts_versions = not any(run.struck[kind] for kind in _EVICTIONS)
    report = check(run.calls, run.stored, run.removals, counts_versions=counts_versions)
    excused = Excuses(run)
    unexpected = [
        str(violation)
        for violation in report.violations
        if not excused.covers(violation) and not (excused.loses and _is_accounted(violation, run, report))
    ]
    found = [*unexpected, *run.problems, *unkept(run), *confirmed_by_deposed(run), *passed(run)]
    found += broken_turns(run)
    if not excused.several_lost:
        found += [*_unexpected_order(run), *_unexpected_changes(run)]
    if not run.evicted:
        found += _unexpected_nothing(run)
    if not run.loses:
        found += [f"outcome lost: {call.error}" for call in run.calls if (call.error or "").startswith("OutcomeLost")]
    return Verdict(report=report, broken=tuple(found))


def _unexpected_order(run: Run) -> Iterator[str]:
    """Yield what was added at an expected version and stands behind something else than what was there then.

    What is in front of a batch stays there as long as the batch does: a pop takes the newest item.
    """
    views = [(call.session, call.result, call.limit is None) for call in run.calls if call.op is Op.READ]
    views += [(session, tuple(items), True) for session, items in run.stored.items()]
    for session, items, is_whole in views:
        for at, mark in enumerate(items):
            if mark is not None and (session, mark) in run.expectations and (at or is_whole):
                before = items[at - 1] if at else None
                if before != run.expectations[session, mark]:
                    yield f"expected version: {mark} in {session} behind {before}"


def _unexpected_changes(run: Run) -> Iterator[str]:
    """Yield what was changed and confirmed between a look at a session and a change that expects it as it was then."""
    for session, began, ended in run.guarded:
        for call in run.calls:
            changes = call.op is not Op.READ and (call.op is not Op.POP or call.result)
            if call.session == session and changes and began < call.begin and call.settled < ended:
                yield f"expected version: {call.op.value} #{call.number} came in between at {call.begin:.3f}"


def _unexpected_nothing(run: Run) -> Iterator[str]:
    """Yield pops of nothing while something was there: confirmed behind the last loss, and stored to the end.

    Only a replica can lack it then, and no process is answered by one.
    """
    if run.plan.topology not in ("standalone", "name"):
        return
    last_loss = max(run.losses, default=0.0)
    for call in run.calls:
        if call.op is Op.APPEND and call.status is Status.OK and call.begin > last_loss and not call.error:
            stored = set(run.stored.get(call.session, ()))
            for pop in run.calls if set(call.items) <= stored else ():
                is_behind = pop.session == call.session and pop.op is Op.POP and pop.begin > call.end
                if is_behind and pop.status is Status.OK and not pop.result:
                    yield f"popped nothing: {pop.worker} at {pop.begin:.3f}, though {call.items[0]} was there"


def _is_accounted(violation: Violation, run: Run, report: Report) -> bool:
    """Whether a loss is one of those that were said, and a pop of unknown outcome took what the checker took for that.

    The checker gives such a pop to the oldest absence; where that one was said, another one is left.
    """
    absent = next((kinds for kinds in _ABSENT if violation.kind in kinds), ())
    calls = [call for call in run.calls if call.session == violation.session]
    open_pops = sum(call.op is Op.POP and call.may_be_applied and call.status is not Status.OK for call in calls)
    said = sum(call.lost_versions for call in calls if call.status is Status.HISTORY_LOST)
    lost = {each.what for kind in absent for each in report.of(kind) if each.session == violation.session}
    return 0 < len(lost) <= said and open_pops > 0


def kinds(broken: Iterable[str]) -> set[str]:
    """Return what kinds of things were broken: the word in front."""
    return {text.partition(":")[0] for text in broken}


class Excuses:
    """What happened in a run excuses (docs/guarantees.md, "What is lost all the same").

    Where servers lost nothing, nothing is excused. What they lost is put back by the processes that knew it, so where
    there is one that lives on, nothing is excused either. Of several processes, each knows a part: one that did not
    know a change reads and changes less until it is back, and what it writes in the place of a change takes that one's
    place, which then is said. If a process that alone knew changes is killed, they are gone without a word. What stood
    behind a change that is gone so is put back behind what was written in its place.

    What all replicas confirmed is never lost by a promotion, and what was confirmed by a replica after the last
    promotion is not lost any more.
    """

    def __init__(self, run: Run) -> None:
        plan = run.plan
        self._last_loss = max(run.losses, default=0.0)
        self.loses = run.loses
        kills = any(run.struck[kind] for kind in _KILLS)
        several = len(plan.fields) > 1 or any(step.caller for step in plan.steps)
        self._run = run
        self.several_lost = self.loses and (several or kills or plan.keeps_less)
        self._said: frozenset[Kind] = frozenset()
        self._unsaid: frozenset[Kind] = frozenset()
        if self.loses and several:
            self._said, self._unsaid = AFTER_A_NOTICE, _UNTIL_IT_IS_BACK | {Kind.PUT_BACK_BEHIND}
        if self.loses and (kills or plan.keeps_less or run.seconds > plan.retention_seconds):  # or forgotten
            self._said, self._unsaid = AFTER_A_NOTICE, self._unsaid | _UNTIL_IT_IS_BACK | LOSSES | {Kind.TORN}
        self._may_stay_unsaid = frozenset(run.ids_evicted) if self.loses and several else frozenset[str]()
        self._evicts = any(run.struck[kind] for kind in _EVICTIONS)  # on the replicas, too, whatever they confirmed
        if self._evicts:  # what only one process had read is gone, and said
            self._said |= AFTER_A_NOTICE
            self.several_lost = True
        self._replicas = min(fields.get("durability", {}).get("replicas", 0) for fields in plan.fields)
        self._replicas *= not plan.degrades
        forgets = run.strays or any(map(loses_data, plan.faults))
        self._all_confirm = bool(self._replicas) and self._replicas >= plan.settings["replicas"] and not forgets

    def covers(self, violation: Violation) -> bool:
        """Whether what happened excuses a finding."""
        kind: Kind = violation.kind
        is_confirmed = self._all_confirm or (self._replicas and violation.begin > self._last_loss)
        if kind in _CONFIRMED and is_confirmed and not self._evicts:
            return False
        if self._is_untold(violation):
            return True
        if kind is Kind.STALE and not self._evicts and (self._all_confirm or self._is_settled(violation)):
            return False
        if kind is Kind.GHOST and violation.in_read and self.several_lost:  # there, lost, and then refused
            return True
        if kind is Kind.OVERTAKEN and self.several_lost:  # put back behind a gap, which was said; or as it is set up
            return self._run.plan.reorders or bool(self._run.named.get(violation.session))
        return kind in self._unsaid or (violation.said and kind in self._said and self._is_named(violation))

    def _is_untold(self, violation: Violation) -> bool:
        """Whether it is a loss that no process can tell, as the ids were evicted, too.

        "A server that loses changes and evicts `ops`, too, can leave a loss unsaid: what others wrote in the place of a
        lost change cannot be told from what they wrote behind it." (docs/guarantees.md, "Eviction")
        """
        is_loss = violation.kind in LOSSES and violation.begin < self._last_loss
        return is_loss and violation.session in self._may_stay_unsaid

    def _is_settled(self, violation: Violation) -> bool:
        """Whether a change was made after the last loss, where nothing but a replica could lack it."""
        return self._run.plan.topology in ("standalone", "name") and violation.begin > self._last_loss

    def _is_named(self, violation: Violation) -> bool:
        """Whether a loss was said by the version of what is lost, if that is known; evicted versions begin anew."""
        made = self._run.made.get((violation.session, violation.batch)) if violation.batch else None
        return not made or self._evicts or bool(made & self._run.named.get(violation.session, set()))


def loses_data(fault: Fault) -> bool:
    """Whether a server comes back without all of its data."""
    return bool(fault.arguments.get("keep", "all") != "all")
