"""The short form of the campaign: the faults that happen most, under load, and nothing broken.

The long form, all faults with a report: `python -m tests.failover.campaign --report campaign.md`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.failover.campaign.runner import Options, Result, run
from tests.failover.campaign.scenarios import BY_NAME
from tests.failover.campaign.table import line

pytestmark = pytest.mark.faults

SHORT = Options(seconds=2.0, workers=2)


def campaign(fault: str, topology: str, options: Options = SHORT) -> Result:
    result = run(BY_NAME[fault], topology, options)
    print(line(result))
    assert result.problems == []
    assert [str(violation) for violation in result.unexpected] == []
    assert result.report.counts["confirmed"] > 100
    assert result.report.counts["reads"] > 100
    return result


@pytest.mark.parametrize(
    ("topology", "fault"),
    [
        ("sentinel", "kill"),
        ("sentinel", "stall-long"),
        ("sentinel", "replies-cut"),
        ("cluster", "kill"),
        ("cluster", "slot-migration"),
        ("standalone", "stable-name"),
        ("cluster", "eviction-volatile"),
    ],
)
def test_nothing_is_broken(topology: str, fault: str) -> None:
    campaign(fault, topology)


def test_nothing_that_a_replica_confirmed_is_lost() -> None:
    campaign("kill", "sentinel", replace(SHORT, durability="replicas"))


def test_nothing_that_a_minority_confirms_after_the_election_is_lost() -> None:
    campaign("minority", "sentinel", replace(SHORT, durability="replicas"))


def test_a_killed_workers_last_calls_are_judged_too() -> None:
    result = campaign("worker-killed", "sentinel", replace(SHORT, workers=3))
    assert result.report.counts["unfinished"] > 0


@pytest.mark.parametrize(
    ("topology", "fault", "options"),
    [
        ("sentinel", "kill", replace(SHORT, durability="replicas")),
        ("cluster", "kill", SHORT),
        ("sentinel", "worker-killed", replace(SHORT, workers=3)),
    ],
)
def test_turns_are_stored_whole_and_once(topology: str, fault: str, options: Options) -> None:
    result = run(BY_NAME[fault], topology, replace(options, workload="turns"))
    print(line(result))
    assert result.problems == []
    assert [str(violation) for violation in result.unexpected] == []
    assert result.report.counts["turns_answered"] > 20
