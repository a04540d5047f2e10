"""What a run broke: the campaign's checker, and which of its findings the faults of this run excuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.failover.campaign.checker import check
from tests.failover.campaign.findings import Kind, Report, Violation
from tests.failover.campaign.history import Op, Status
from tests.failover.campaign.scenarios import AFTER_A_NOTICE, LOSSES
from tests.simulation.plan import Fault, Plan
from tests.simulation.world import Run

_KILLS = {"kill-process", "kill-at-request"}
_EVICTIONS = {"evict"}


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
    counts_versions = not any(fault.kind in _EVICTIONS for fault in run.plan.faults)
    report = check(run.calls, run.stored, run.removals, counts_versions=counts_versions)
    excused = Excuses(run.plan)
    unexpected = [
        str(violation)
        for violation in report.violations
        if not excused.covers(violation) and not (excused.loses and _is_accounted(violation, run, report))
    ]
    return Verdict(report=report, broken=(*unexpected, *run.problems))


def _is_accounted(violation: Violation, run: Run, report: Report) -> bool:
    """Whether a loss is one of those that were said, and a pop of unknown outcome took what the checker took for that.

    The checker gives such a pop to the oldest absence; where that one was said, another one is left.
    """
    if violation.kind is not Kind.LOST:
        return False
    calls = [call for call in run.calls if call.session == violation.session]
    open_pops = sum(call.op is Op.POP and call.status in (Status.UNKNOWN, Status.UNCONFIRMED) for call in calls)
    said = sum(call.lost_versions for call in calls if call.status is Status.HISTORY_LOST)
    lost = [each for each in report.of(Kind.LOST) if each.session == violation.session]
    return open_pops > 0 and len(lost) <= said


def kinds(broken: Iterable[str]) -> set[str]:
    """Return what kinds of things were broken: the word in front."""
    return {text.partition(":")[0] for text in broken}


class Excuses:
    """What a plan's faults excuse (docs/guarantees.md, "What is lost all the same").

    Servers that lose confirmed changes: these are put back or said. A process that never knew them may read less until
    then. If a process that alone knew them is killed, they are gone without a word.
    """

    def __init__(self, plan: Plan) -> None:
        self.loses = any(map(loses_data, plan.faults)) or self._promotes(plan)
        kills = any(fault.kind in _KILLS for fault in plan.faults)
        several = len(plan.fields) > 1 or kills
        self._said: frozenset[Kind] = AFTER_A_NOTICE if self.loses else frozenset()
        self._unsaid: frozenset[Kind] = frozenset()
        if self.loses and several:
            # A process pops, or reads, what another one has changed and has not put back yet.
            self._unsaid = frozenset(
                {Kind.STALE, Kind.HANDED_OUT_TWICE, Kind.POPPED_STILL_THERE, Kind.CLEARED_STILL_THERE}
            )
        if self.loses and kills:
            self._unsaid |= LOSSES | {Kind.TORN}

    def covers(self, violation: Violation) -> bool:
        """Whether the faults excuse a finding."""
        kind: Kind = violation.kind
        return kind in self._unsaid or (violation.said and kind in self._said)

    @staticmethod
    def _promotes(plan: Plan) -> bool:
        return plan.topology != "standalone"


def loses_data(fault: Fault) -> bool:
    """Whether a server comes back without all of its data."""
    return bool(fault.arguments.get("keep", "all") != "all")
