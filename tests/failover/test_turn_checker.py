"""The judge of turns, on forged records: each breach is found, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.failover.campaign.findings import Kind, Report
from tests.failover.campaign.history import Attempt, Call, Op, Status, ToolRun
from tests.failover.campaign.marks import is_turn, make_turn
from tests.failover.campaign.record import Recorder, load, load_turns
from tests.failover.campaign.scenarios import BY_NAME
from tests.failover.campaign.turn_checker import check_turns, joined

MARKS = make_turn("w1.s", 1)
TURN: Any = {"session": "s", "batch": MARKS[0].batch}
FIRST = Attempt(**TURN, answer="a1", ending="answered", result="a1")
TOOL = ToolRun(**TURN, round=1, attempt=1, began=1.0, saved=2.0, resumes=True)
DELIVERY = Call(
    worker="w1", number=1, session="s", handle="w1/s", op=Op.APPEND, begin=1.0, end=3.0, status=Status.OK, items=MARKS
)
NOTICE = Call(worker="w1", number=2, session="s", handle="w1/s", op=Op.READ, begin=1.0, status=Status.HISTORY_LOST)


def kinds(*attempts: Attempt, tools: tuple[ToolRun, ...] = (), stored: str | None = "a1") -> list[Kind]:
    answers = {("s", MARKS[0].batch): stored} if stored else {}
    return [violation.kind for violation in check_turns([DELIVERY], attempts, tools, answers)]


def another(answer: str, ending: Any, result: str | None = None, **others: Any) -> Attempt:
    return replace(FIRST, answer=answer, ending=ending, result=result, **others)


def test_a_turn_that_is_repeated_lost_and_resumed_as_it_may_be_breaks_nothing() -> None:
    later = replace(TOOL, attempt=2, began=1.5)  # before the first one was saved
    attempts = (another("a0", "lost"), another("a2", "failed"), FIRST, another("a3", "answered", "a1"))
    assert kinds(*attempts, tools=(TOOL, later)) == []


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ((FIRST, another("a2", "answered", "a2")), Kind.ANSWERED_TWICE),
        ((another("a2", "answered", "a2"),), Kind.ANSWERED_TWICE),
        ((another("a1", "lost"),), Kind.REFUSED_AND_STORED),
        ((another("a1", "failed"), another("a2", "answered", "a1")), Kind.REFUSED_AND_STORED),
        ((another("a2", "lost", within_lease=True),), Kind.TAKEN_AWAY),
        ((FIRST, another("a2", "cancelled")), Kind.CANCELLED_AND_ANSWERED),
    ],
)
def test_what_a_delivery_is_told_that_does_not_fit_is_found(attempts: tuple[Attempt, ...], expected: Kind) -> None:
    assert set(kinds(*attempts)) == {expected}


def test_a_turn_that_another_one_cancelled_may_be_lost_within_its_lease() -> None:
    assert kinds(another("a2", "lost", within_lease=True), another("a3", "cancelled"), stored=None) == []


def test_a_tool_that_runs_again_although_its_output_was_saved_is_found() -> None:
    assert kinds(FIRST, tools=(TOOL, replace(TOOL, attempt=2, began=2.5))) == [Kind.TOOL_RUN_AGAIN]
    assert kinds(FIRST, tools=(replace(TOOL, saved=None), replace(TOOL, attempt=2, began=2.5))) == []


@pytest.mark.parametrize(("notices", "said"), [([], False), ([NOTICE], True)])
def test_another_answer_has_to_be_a_loss_that_was_said(notices: list[Call], said: bool) -> None:
    attempts = (FIRST, another("a2", "answered", "a2"))
    report = Report(violations=check_turns([DELIVERY, *notices], attempts, (), {}))
    assert [violation.said for violation in report.violations] == [said]
    assert bool(BY_NAME["kill"].unexpected(report, "primary")) is not said
    assert BY_NAME["kill"].unexpected(report, "replicas")


def test_the_deliveries_of_a_turn_are_one_call() -> None:
    killed = replace(DELIVERY, worker="w2", begin=0.5, end=float("inf"), status=Status.UNKNOWN)
    (call,) = joined([killed, DELIVERY, replace(DELIVERY, end=2.0, worker="w3")])
    assert (call.begin, call.end, call.status, call.worker) == (0.5, 2.0, Status.OK, "w3")
    refused = replace(DELIVERY, status=Status.NOT_APPLIED)
    assert joined([killed, refused])[0].may_be_applied
    assert not joined([refused, refused])[0].may_be_applied
    assert joined([NOTICE, DELIVERY, replace(NOTICE, number=3)]) == [NOTICE, replace(NOTICE, number=3), DELIVERY]


def test_a_turn_that_was_lost_and_made_anew_began_with_the_delivery_that_made_it() -> None:
    anew = replace(DELIVERY, worker="w2", handle="w2/s", number=7, begin=5.0, end=6.0)
    (call,) = joined([DELIVERY, anew], {("s", MARKS[0].batch): "w1.s.turns:1 w2/s.7.1"})
    assert (call.begin, call.end, call.worker) == (5.0, 6.0, "w2")
    (call,) = joined([DELIVERY, anew], {("s", MARKS[0].batch): "w1.s.turns:1 w1/s.1.1"})
    assert (call.begin, call.end, call.worker) == (1.0, 3.0, "w1")


def test_what_a_process_noted_of_its_turns_is_read_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "w1.jsonl", "w1")
    call = recorder.begin("s", "w1/s", Op.APPEND, items=MARKS)
    recorder.note_tool(TOOL)
    recorder.note_attempt(FIRST)
    recorder.end(call, Status.OK)
    recorder.close()
    assert load_turns(tmp_path / "w1.jsonl") == ([FIRST], [TOOL])
    assert [each.status for each in load(tmp_path / "w1.jsonl")] == [Status.OK]
    assert is_turn(MARKS[0])
    assert make_turn("w1.s", 1) == MARKS
