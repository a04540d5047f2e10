"""The command: simulate many histories, or replay one.

python -m tests.simulation --runs 1000 --seed 1 --topology standalone
python -m tests.simulation --replay 4711 --topology standalone
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.simulation import draw, verdict, world
from tests.simulation.second_opinion import second_opinion
from tests.simulation.shrink import shrink
from tests.simulation.totals import Totals, simulate


def main() -> int:
    """Run what the command line says; return 1 if a run broke something."""
    options = _parser().parse_args()
    if options.replay is not None:
        return _replay(options)
    totals = _simulate(options)
    print("\n".join(totals.lines()))
    if options.report is not None:
        totals.append_to(options.report, topology=options.topology, workers=options.workers, seed=options.seed)
    return min(len(totals.failed), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="how many histories (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the first one; the others follow (default: 1)")
    parser.add_argument("--minutes", type=float, help="stop after so long, however many runs are left")
    parser.add_argument("--topology", choices=draw.TOPOLOGIES, default="standalone")
    parser.add_argument("--workload", choices=draw.WORKLOADS, default="operations", help="(default: operations)")
    parser.add_argument("--workers", type=int, help="processes in each (default: as the seed says)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that simulate at once (default: 1)")
    parser.add_argument("--report", type=Path, help="a file to which the totals are appended as a line of JSON")
    parser.add_argument(
        "--second-opinion",
        type=int,
        default=1,
        metavar="N",
        help="let the independent judge look at every N-th history; 0 means none (default: 1)",
    )
    parser.add_argument("--replay", type=int, metavar="SEED", help="show one history, without what it does not need")
    parser.add_argument("--whole", action="store_true", help="with --replay: leave nothing out")
    return parser


def _simulate(options: argparse.Namespace) -> Totals:
    """Simulate, in as many processes as are asked for: each takes its share of the seeds."""
    last = options.seed + options.runs
    shares = [range(options.seed + job, last, options.jobs) for job in range(options.jobs)]
    share = partial(
        simulate,
        options.topology,
        options.workers,
        options.second_opinion,
        options.minutes,
        workload=options.workload,
    )
    if options.jobs == 1:
        return share(shares[0])
    totals = Totals()
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as jobs:
        for each in jobs.map(share, shares):
            totals.add(each)
    return totals


def _replay(options: argparse.Namespace) -> int:
    plan = draw.draw_plan(options.replay, options.topology, processes=options.workers, workload=options.workload)
    broken = verdict.judge(world.run(plan)).broken
    if broken and not options.whole:
        kinds = verdict.kinds(broken)
        plan = shrink(plan, lambda candidate: kinds & verdict.kinds(verdict.judge(world.run(candidate)).broken))
    run = world.run(plan)
    found, opinion = verdict.judge(run), second_opinion(run)
    print(
        f"plan: {plan}",
        *(f"p{number} {fields}" for number, fields in enumerate(plan.fields)),
        *plan.faults,
        *plan.steps,
        sep="\n",
    )
    print("\n".join(run.timeline.lines()))
    print("broken:" if found.broken else "nothing was broken", *found.broken, sep="\n  ")
    if bool(opinion) != bool(found.broken):
        print("the independent judge disagrees:", *opinion or ["nothing was broken"], sep="\n  ")
    return min(len(found.broken) + len(opinion), 1)


if __name__ == "__main__":
    sys.exit(main())
