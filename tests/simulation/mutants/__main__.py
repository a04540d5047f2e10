"""The command: look for each mutant, and say within how many runs it was found.

python -m tests.simulation.mutants --runs 1000
python -m tests.simulation.mutants "id not checked" "no sweep is begun"
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import agents_redis_ha
from tests.simulation import draw, verdict, world
from tests.simulation.mutants.table import MUTANTS, Mutant
from tests.simulation.second_opinion import second_opinion

_PACKAGE = Path(inspect.getfile(agents_redis_ha)).parent
_ROOT = Path(__file__).parents[3]


def main() -> int:
    """Look for the mutants of the command line; return 1 if one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="which (default: all)")
    parser.add_argument("--runs", type=int, default=1000, help="how many runs at most, for each (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run (default: 1)")
    parser.add_argument("--hunt", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    if options.hunt:
        _hunt(chosen[0], options.seed, options.runs)
        return 0
    print("| Mutant | Found within | By |", "|---|---:|---|", sep="\n", flush=True)
    survivors = [mutant for mutant in chosen if not _is_found(mutant, options.seed, options.runs)]
    return min(len(survivors), 1)


def _is_found(mutant: Mutant, seed: int, runs: int) -> bool:
    if mutant.equivalent:
        print(f"| {mutant.name} | equivalent | {mutant.equivalent} |", flush=True)
        return True
    for number, topology, at, broken in _failures(mutant, seed, runs):
        run = _run(topology, at)
        if not verdict.judge(run).broken and not second_opinion(run):  # else it is no mutant's fault
            print(f"| {mutant.name} | {number} | {topology} {at}: {broken[:90]} |", flush=True)
            return True
    print(f"| {mutant.name} | **survives {runs}** | |", flush=True)
    return False


def _failures(mutant: Mutant, seed: int, runs: int) -> Iterator[tuple[int, str, int, str]]:
    """Yield the how-manieth run fails with the mutant in place of the package, and how, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="agents-redis-ha-mutant-") as directory:
        shutil.copytree(_PACKAGE, Path(directory, "agents_redis_ha"), ignore=shutil.ignore_patterns("__pycache__"))
        put_in(mutant, Path(directory, "agents_redis_ha"))
        command = [sys.executable, "-m", "tests.simulation.mutants", "--hunt", mutant.name]
        process = subprocess.Popen(
            [*command, "--runs", str(runs), "--seed", str(seed)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((directory, str(_ROOT)))},
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                number, topology, at, broken = json.loads(line)
                yield number, topology, at, broken
        finally:
            process.kill()
            process.wait()


def put_in(mutant: Mutant, package: Path) -> None:
    """Put a mutant in the place of what is right.

    Raises:
        ValueError: The text does not occur just once: write the mutant anew.
    """
    for edit in mutant.edits:
        path = package / edit.file
        text = "\n" + path.read_text(encoding="utf-8")
        if text.count("\n" + edit.old) != 1:
            raise ValueError(f"{mutant.name}: its text does not occur just once in {edit.file}")
        path.write_text(text.replace("\n" + edit.old, "\n" + edit.new)[1:], encoding="utf-8")


def _run(topology: str, seed: int) -> world.Run:
    where, _, profile = topology.partition(":")
    where, _, workload = where.partition("+")
    name, _, processes = where.partition("*")
    count = int(processes) if processes else None
    plan = draw.draw_plan(seed, name, processes=count, profile=profile or None, workload=workload or "operations")
    return world.run(plan)


def _hunt(mutant: Mutant, seed: int, runs: int) -> None:
    """Print each failure of the package that is in place."""
    assert not str(_PACKAGE).startswith(str(_ROOT))
    for number in range(1, runs + 1):
        topology = mutant.topologies[number % len(mutant.topologies)]
        at = seed + number
        try:
            run = _run(topology, at)
            broken = verdict.judge(run).broken or tuple(map(str, second_opinion(run)))
        except Exception as error:  # noqa: BLE001 (a mutant may break anything)
            broken = (f"{type(error).__name__}: {error}",)
        if broken:
            print(json.dumps([number, topology, at, broken[0]]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
