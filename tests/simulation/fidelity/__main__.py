"""``python -m tests.simulation.fidelity``: many random sequences on a simulated and on a real server."""

from __future__ import annotations

import argparse
import time

from agents_redis_ha import lab

from .comparison import Pair, RealServer, directives
from .coverage import BranchCoverage
from .sequences import SCRIPTS


def main() -> int:
    """Compare, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.fidelity", description=__doc__)
    parser.add_argument("--sequences", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", default=None, help="the real server's executable")
    parser.add_argument("--most", type=int, default=5, help="stop after so many differences")
    parser.add_argument("--branches", action="store_true", help="say which branches of the scripts never ran")
    options = parser.parse_args()
    began, different, steps = time.monotonic(), 0, 0
    with lab.start("standalone", server=options.server, config=directives(options.server)) as servers:
        real = RealServer(servers)
        pair = Pair(real)
        branches = BranchCoverage(pair.version[0], SCRIPTS, is_valkey=real.is_valkey) if options.branches else None
        for seed in range(options.seed, options.seed + options.sequences):
            found = pair.compare(seed)
            steps += pair.steps
            if found is not None:
                different += 1
                print(f"seed {seed}:\n{found}\n", flush=True)
                if different >= options.most:
                    break
        real.close()
    seconds = time.monotonic() - began
    count = seed - options.seed + 1
    print(f"{count} sequences, {steps} requests in {seconds:.0f} s: {different} differ from {real.version}")
    if branches is not None:
        _report(branches)
    return int(different > 0)


def _report(branches: BranchCoverage) -> None:
    print(f"{len(branches.all) - len(branches.missed)} of {len(branches.all)} branches of the scripts ran; never:")
    for branch in sorted(branches.missed):
        print(f"  {branch.script}:{branch.line} {'holds' if branch.holds else 'fails'}: {branch.text}")


if __name__ == "__main__":
    raise SystemExit(main())
