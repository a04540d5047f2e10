"""What each scenario allows, how errors are recorded, and how results are told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agents_redis_ha import HistoryLostError, InvalidItemError, OperationError, Outcome, UnconfirmedError
from tests.failover.campaign.__main__ import main
from tests.failover.campaign.caller import outcome_of
from tests.failover.campaign.findings import Kind, Report, Violation, distinct
from tests.failover.campaign.history import Status
from tests.failover.campaign.runner import Options, Result, chosen
from tests.failover.campaign.scenarios import ALL, BY_NAME, SCENARIOS, Durability
from tests.failover.campaign.table import line, to_json, to_markdown


def violation(kind: Kind, *, said: bool = False) -> Violation:
    return Violation(kind=kind, session="s", what="w1.own0:1 of 2", said=said)


def allowed(fault: str, durability: Durability, kind: Kind, *, said: bool) -> bool:
    report = Report(violations=[violation(kind, said=said)])
    return not BY_NAME[fault].unexpected(report, durability)


def test_every_fault_strikes_on_some_topology_and_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(SCENARIOS)
    everywhere = chosen(SCENARIOS, ALL)
    assert {scenario.name for scenario, _ in everywhere} == set(BY_NAME)
    assert ("slot-migration", "sentinel") not in [(scenario.name, topology) for scenario, topology in everywhere]


@pytest.mark.parametrize(
    ("fault", "durability", "said", "expected"),
    [
        ("kill", "primary", True, True),
        ("kill", "primary", False, False),
        ("kill", "replicas", True, False),
        ("restart-empty", "replicas", True, True),
        ("restart-empty", "replicas", False, False),
        ("script-flush", "primary", True, False),
    ],
)
def test_a_loss_has_to_be_possible_and_said(fault: str, durability: Durability, said: bool, expected: bool) -> None:
    assert allowed(fault, durability, Kind.LOST, said=said) is expected


@pytest.mark.parametrize(("durability", "expected"), [("primary", True), ("replicas", False)])
def test_what_a_minority_confirms_after_the_election_may_not_be_lost(durability: Durability, expected: bool) -> None:
    losses = [replace(violation(Kind.LOST, said=True), begin=begin) for begin in (4.0, 6.0)]
    found = BY_NAME["minority"].unexpected(Report(violations=losses), durability, kept_from=5.0)
    assert found == ([] if expected else losses[1:])


@pytest.mark.parametrize(
    ("fault", "durability", "expected"),
    [
        ("kill", "primary", True),
        ("kill", "replicas", False),
        ("minority", "replicas", True),
        ("calm", "primary", False),
    ],
)
def test_a_stale_read_has_to_be_possible(fault: str, durability: Durability, expected: bool) -> None:
    assert allowed(fault, durability, Kind.STALE, said=False) is expected


@pytest.mark.parametrize("kind", [Kind.POPPED_STILL_THERE, Kind.CLEARED_STILL_THERE])
@pytest.mark.parametrize(("in_read", "expected"), [(True, True), (False, False)])
def test_a_stale_read_may_lack_a_removal_that_is_stored_in_the_end(kind: Kind, in_read: bool, expected: bool) -> None:
    report = Report(violations=[replace(violation(kind), in_read=in_read)])
    assert (not BY_NAME["minority"].unexpected(report, "replicas")) is expected
    assert BY_NAME["calm"].unexpected(report, "replicas")


@pytest.mark.parametrize("said", [True, False])
def test_what_is_stored_in_the_end_is_judged_beside_the_stale_reads_that_showed_it(said: bool) -> None:
    reads = [replace(violation(Kind.POPPED_STILL_THERE, said=told), in_read=True) for told in (True, False)]
    found = distinct([violation(Kind.POPPED_STILL_THERE, said=said), *reads])
    assert [(each.said, each.in_read) for each in found] == [(said, False), (False, True)]
    unexpected = BY_NAME["minority"].unexpected(Report(violations=found), "replicas")
    assert unexpected == ([] if said else found[:1])


@pytest.mark.parametrize("kind", [Kind.DUPLICATED, Kind.GHOST, Kind.REORDERED, Kind.FOREIGN_ERROR])
def test_some_promises_hold_whatever_is_said(kind: Kind) -> None:
    for fault in BY_NAME:
        assert not allowed(fault, "primary", kind, said=True)


def error_of(kind: type[OperationError], outcome: Outcome, **details: Any) -> OperationError:
    return kind("x", operation="append", topology="sentinel", outcome=outcome, **details)


@pytest.mark.parametrize(
    ("error", "status", "foreign"),
    [
        (error_of(OperationError, Outcome.NOT_APPLIED), Status.NOT_APPLIED, False),
        (error_of(OperationError, Outcome.UNKNOWN), Status.UNKNOWN, False),
        (error_of(UnconfirmedError, Outcome.APPLIED), Status.UNCONFIRMED, False),
        (error_of(HistoryLostError, Outcome.NOT_APPLIED, versions=(4, 5)), Status.HISTORY_LOST, False),
        (error_of(HistoryLostError, Outcome.UNKNOWN, versions=(4, 5)), Status.HISTORY_LOST, False),
        (InvalidItemError(0, "x"), Status.NOT_APPLIED, False),
        (AttributeError("x"), Status.UNKNOWN, True),
    ],
)
def test_an_error_is_recorded_by_what_it_says_of_the_change(error: Exception, status: Status, foreign: bool) -> None:
    recorded = outcome_of(error)
    assert recorded["status"] is status
    assert recorded.get("foreign_error", False) is foreign
    assert recorded.get("lost_versions", 0) == (2 if status is Status.HISTORY_LOST else 0)
    if isinstance(error, HistoryLostError):
        assert recorded["is_open"] is (error.outcome is Outcome.UNKNOWN)


def test_what_is_seen_in_many_reads_is_one_violation_and_silence_weighs_more() -> None:
    said, silent = violation(Kind.LOST, said=True), violation(Kind.LOST)
    assert distinct([said, silent, said]) == [silent]


def results() -> list[Result]:
    bad = violation(Kind.LOST)
    report = Report(violations=[bad])
    report.counts["confirmed"] = 7
    return [
        Result(scenario="calm", topology="cluster"),
        Result(scenario="kill", topology="sentinel", report=report, unexpected=[bad], notes=["a note"]),
    ]


def test_results_are_told_as_a_line_a_table_and_json() -> None:
    good, bad = results()
    assert "passed" in line(good)
    assert "FAILED" in line(bad)
    assert "7 confirmed: 1 lost (a note)" in line(bad)
    markdown = to_markdown([good, bad], Options())
    assert "- lost: s: w1.own0:1 of 2" in markdown
    assert [row["passed"] for row in json.loads(to_json([good, bad]))] == [True, False]


def test_an_unknown_fault_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--fault", "earthquake"])
    assert "earthquake" in capsys.readouterr().err
