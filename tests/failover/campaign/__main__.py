"""`python -m tests.failover.campaign`: the long form, with a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.failover.campaign.runner import Options, Result, chosen, run
from tests.failover.campaign.scenarios import ALL, BY_NAME, SCENARIOS
from tests.failover.campaign.table import line, to_json, to_markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and return its exit code: 0 if every scenario passed, else 1."""
    chosen_by_user = _parser().parse_args(arguments)
    options = Options(
        durability=chosen_by_user.durability,
        seconds=chosen_by_user.seconds,
        seed=chosen_by_user.seed,
        workers=chosen_by_user.workers,
        keep=chosen_by_user.keep,
        conversations=chosen_by_user.conversations,
        workload=chosen_by_user.workload,
    )
    scenarios = [BY_NAME[name] for name in chosen_by_user.fault] if chosen_by_user.fault else SCENARIOS
    topologies = ALL if chosen_by_user.topology == "all" else (chosen_by_user.topology,)
    results: list[Result] = []
    for scenario, topology in chosen(scenarios, topologies):
        results.append(run(scenario, topology, options))
        print(line(results[-1]), flush=True)
        if chosen_by_user.report is not None:  # after each: a run that is broken off leaves what it found
            _write(chosen_by_user.report, results, options)
    failed = [result for result in results if not result.passed]
    print(f"{len(results) - len(failed)} of {len(results)} without an unexpected violation")
    return 1 if failed else 0


def _write(path: Path, results: Sequence[Result], options: Options) -> None:
    text = to_json(results) if path.suffix == ".json" else to_markdown(results, options)
    path.write_text(text + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.failover.campaign", description=main.__doc__)
    parser.add_argument("--topology", choices=[*ALL, "all"], default="all")
    parser.add_argument("--fault", nargs="+", choices=sorted(BY_NAME), metavar="NAME", help=", ".join(BY_NAME))
    parser.add_argument("--workload", choices=["operations", "turns"], default="operations")
    parser.add_argument("--durability", choices=["primary", "replicas"], default="primary")
    parser.add_argument("--seconds", type=float, default=4.0, help="load before each fault")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, metavar="FILE", help="where to write it: .md or .json")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep the workers' records there")
    parser.add_argument("--conversations", type=Path, metavar="FILE", help="JSON lines to colour the items with")
    return parser


if __name__ == "__main__":
    sys.exit(main())
