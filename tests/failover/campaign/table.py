"""The results in words: a line a scenario, a table of all, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tests.failover.campaign.findings import Kind, Report
from tests.failover.campaign.runner import Options, Result

_COUNTS = ("confirmed", "not_applied", "unknown", "unconfirmed", "unfinished", "history_lost", "reads", "failed_reads")
_TURNS = tuple(f"turns_{ending}" for ending in ("answered", "lost", "cancelled", "failed", "open"))
_FIRST = ("topology", "fault", "result", "fault s")
_LAST = ("slowest s", "lost", "lost, said", "other violations")


def line(result: Result) -> str:
    """Return one line about a scenario."""
    head = f"{result.topology:9} {result.scenario:22} {_word(result):8}"
    counts = ", ".join(
        f"{result.report.counts[name]} {name}" for name in (*_COUNTS, *_TURNS) if result.report.counts[name]
    )
    found = ", ".join(f"{number} {kind}" for kind, number in result.report.summary().items()) or "nothing broken"
    tail = "; ".join([*result.notes, *result.problems])
    times = f"{result.seconds:5.1f} s, fault {result.fault_seconds:4.1f} s"
    return f"{head} {times}: {counts}: {found}{f' ({tail})' if tail else ''}"


def to_markdown(results: Sequence[Result], options: Options) -> str:
    """Return the report as Markdown: the table, then each violation that is not expected."""
    counts = (*_COUNTS, *_TURNS) if options.workload == "turns" else _COUNTS
    head = (*_FIRST, *(name.replace("_", " ") for name in counts), *_LAST)
    rows = [head, tuple("---" for _ in head), *(_row(result, counts) for result in results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    setting = f"Durability `{options.durability}`, {options.workers} workers, seed {options.seed}, {options.workload}."
    return "\n".join(["# Fault campaign", "", setting, "", table, "", *_details(results)])


def to_json(results: Iterable[Result]) -> str:
    """Return the report as JSON."""
    return json.dumps([_as_dict(result) for result in results], indent=2)


def _word(result: Result) -> str:
    return "passed" if result.passed else "FAILED"


def _row(result: Result, counts: Sequence[str]) -> tuple[str, ...]:
    report = result.report
    return (
        result.topology,
        result.scenario,
        _word(result),
        f"{result.fault_seconds:.1f}",
        *(str(report.counts[name]) for name in counts),
        f"{report.slowest_seconds:.1f}",
        str(len(report.of(Kind.LOST, said=False))),
        str(len(report.of(Kind.LOST, said=True))),
        _others(report) or "–",
    )


def _others(report: Report) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in report.summary().items() if not kind.startswith(Kind.LOST.value))


def _details(results: Sequence[Result], most: int = 4) -> list[str]:
    lines: list[str] = []
    for result in results:
        said = list(result.problems)
        for kind in Kind:
            found = [str(violation) for violation in result.unexpected if violation.kind is kind]
            said += found[:most] + ([f"… and {len(found) - most} more {kind.value}"] if len(found) > most else [])
        if said:
            lines += [f"## {result.topology}, {result.scenario}", "", *(f"- {text}" for text in said), ""]
    return lines


def _as_dict(result: Result) -> dict[str, Any]:
    return {
        "topology": result.topology,
        "fault": result.scenario,
        "passed": result.passed,
        "seconds": round(result.seconds, 1),
        "fault_seconds": round(result.fault_seconds, 1),
        "notes": result.notes,
        "problems": result.problems,
        "unexpected": [str(violation) for violation in result.unexpected],
        **result.report.to_dict(),
    }
