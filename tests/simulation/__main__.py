"""The command: simulate many histories, or replay one.

python -m tests.simulation --runs 1000 --seed 1 --topology standalone
python -m tests.simulation --replay 4711 --topology standalone
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter

from tests.simulation import draw, verdict, world
from tests.simulation.shrink import shrink


def main() -> int:
    """Run what the command line says; return how many runs broke something, 1 at most."""
    options = _parser().parse_args()
    if options.replay is not None:
        return _replay(options)
    return _simulate(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="how many histories (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the first one; the others follow (default: 1)")
    parser.add_argument("--minutes", type=float, help="stop after so long, however many runs are left")
    parser.add_argument("--topology", choices=draw.TOPOLOGIES, default="standalone")
    parser.add_argument("--workers", type=int, help="processes in each (default: as the seed says)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="show one history, without what it does not need")
    parser.add_argument("--whole", action="store_true", help="with --replay: leave nothing out")
    return parser


def _simulate(options: argparse.Namespace) -> int:
    began, used = time.monotonic(), time.process_time()
    totals: Counter[str] = Counter()
    failed: list[int] = []
    gc.freeze()
    for seed in range(options.seed, options.seed + options.runs):
        if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
            break
        plan = draw.draw_plan(seed, options.topology, processes=options.workers)
        run = world.run(plan)
        found = verdict.judge(run)
        totals["runs"] += 1
        totals["calls"] += len(run.calls)
        totals["promotions"] += run.promotions
        totals.update({f"fault {kind}": count for kind, count in run.struck.items()})
        totals.update({name: count for name, count in run.totals.items() if count})
        totals.update({f"call {name}": count for name, count in found.report.counts.items()})
        totals.update({f"found {name}": count for name, count in found.report.summary().items()})
        if found.broken:
            failed.append(seed)
            print(f"seed {seed}:", *found.broken[:3], sep="\n  ", flush=True)
    seconds = time.process_time() - used
    print(f"{totals['runs']} runs, {60 * totals['runs'] / max(seconds, 1e-9):.0f} a minute of processor time")
    print("\n".join(f"  {count:9} {name}" for name, count in sorted(totals.items())))
    print(f"{len(failed)} failed: {failed[:50]}" if failed else "nothing was broken")
    return min(len(failed), 1)


def _replay(options: argparse.Namespace) -> int:
    plan = draw.draw_plan(options.replay, options.topology, processes=options.workers)
    broken = verdict.judge(world.run(plan)).broken
    if broken and not options.whole:
        kinds = verdict.kinds(broken)
        plan = shrink(plan, lambda candidate: kinds & verdict.kinds(verdict.judge(world.run(candidate)).broken))
    run = world.run(plan)
    found = verdict.judge(run)
    print(
        f"plan: {plan}",
        *(f"p{number} {fields}" for number, fields in enumerate(plan.fields)),
        *plan.faults,
        *plan.steps,
        sep="\n",
    )
    print("\n".join(run.timeline.lines()))
    print("broken:" if found.broken else "nothing was broken", *found.broken, sep="\n  ")
    return min(len(found.broken), 1)


if __name__ == "__main__":
    sys.exit(main())
