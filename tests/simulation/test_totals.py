"""Totals count what runs broke, and are the same whether one process or several simulated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.failover.campaign.findings import Report
from tests.simulation import __main__ as command
from tests.simulation import draw, totals, verdict, world
from tests.simulation.judge import Finding
from tests.simulation.totals import Totals, differences, load, tables

RUN = world.run(draw.draw_plan(3, "standalone"))
BROKEN = verdict.Verdict(report=Report(), broken=("lost: x",))


@pytest.mark.parametrize("opinion", [[], [Finding("lost", "x")]])
@pytest.mark.parametrize("found", [verdict.judge(RUN), BROKEN])
def test_a_run_fails_that_broke_something_or_about_which_the_judges_disagree(
    found: verdict.Verdict, opinion: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "second_opinion", lambda run: opinion)
    counted = Totals()
    wrong = counted.count(RUN, found, asks_again=True)
    assert bool(wrong) == bool(counted.failed) == bool(found.broken or opinion)
    assert counted.counts["agreed"] == (bool(found.broken) == bool(opinion))
    assert counted.counts["agreed"] + counted.counts["disagreed"] == 1
    assert Totals().count(RUN, found, asks_again=False) == list(found.broken)


def test_several_processes_come_to_the_same_and_the_file_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "totals.jsonl"
    for jobs in ("1", "2"):
        arguments = ["--runs", "6", "--seed", "5", "--jobs", jobs, "--report", str(report), "--second-opinion", "2"]
        monkeypatch.setattr(sys, "argv", ["simulation", *arguments])
        assert command.main() == 0
    both = load([report])["standalone, 1 to 3"]
    once = Totals()
    for seed in range(5, 11):
        run = world.run(draw.draw_plan(seed, "standalone"))
        once.count(run, verdict.judge(run), asks_again=False)
    assert both.faults == {kind: 2 * count for kind, count in once.faults.items()}
    assert both.counts["calls"] == 2 * once.counts["calls"]
    assert both.counts["agreed"] == 3 + 4  # of each share every second one, from its first
    shown = "\n".join(tables(load([report])))
    assert f"| standalone, 1 to 3 | {both.counts['runs']} |" in shown
    assert all(f"| {kind} | {count} | {count} |" in shown for kind, count in both.faults.items())
    assert "nothing was broken" in capsys.readouterr().out


def test_verdicts_of_two_pythons_are_compared(tmp_path: Path) -> None:
    counted = Totals()
    counted.count(RUN, verdict.judge(RUN), asks_again=True)
    paths = [tmp_path / "one", tmp_path / "other"]
    for path in paths:
        counted.append_to(path, topology="standalone", workers=None)
        counted.library["retries"] += 1
    assert differences(*paths)[1] is False
    assert any("retries" in line for line in differences(*paths)[0])
    counted.failed.append(7)
    counted.append_to(paths[1], topology="standalone", workers=None)
    assert totals.main(["--compare", *map(str, paths)]) == 1


def test_a_run_that_broke_something_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "judge", lambda run: BROKEN)
    monkeypatch.setattr(sys, "argv", ["simulation", "--runs", "2", "--second-opinion", "0"])
    assert command.main() == 1
