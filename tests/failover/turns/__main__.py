"""`python -m tests.failover.turns`: the long form."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agents_redis_ha import lab
from agents_redis_ha.lab.conversations import load_conversations
from tests.failover.turns.claims import MOMENTS, claim_all
from tests.failover.turns.crowd import run_crowd
from tests.failover.turns.kills import killable, play_all
from tests.failover.turns.stops import POINTS, Stop, play_stop

Found = Iterator[tuple[str, list[str]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each kind of disturbance and return the exit code: 0 if all turns were stored whole and once, else 1."""
    options = _parser().parse_args(arguments)
    runs = failed = 0
    for kind in options.kind:
        with tempfile.TemporaryDirectory() as directory:
            for name, wrong in KINDS[kind](options, Path(directory) / "log"):
                runs, failed = runs + 1, failed + bool(wrong)
                print(f"{kind}, {name}: {'; '.join(wrong) or 'passed'}", flush=True)
    print(f"{runs - failed} of {runs} without a violation")
    return 1 if failed else 0


def _kills(options: argparse.Namespace, log: Path) -> Found:
    fitting = [one for one in load_conversations(options.conversations) if killable(one) is not None]
    with lab.start("standalone") as servers:
        for conversation in fitting[: options.most]:
            began = time.monotonic()
            plays, wrong = play_all(servers, [conversation], log)
            yield f"{conversation.conversation_id}, {plays} workers, {time.monotonic() - began:.0f} s", wrong


def _crowds(options: argparse.Namespace, log: Path) -> Found:
    for number, replicas in itertools.product(range(options.repeat), (0, 1)):
        with lab.start("sentinel") as servers:
            seed = options.seed + number
            result = run_crowd(servers, log.with_name(f"{seed}{replicas}"), each=4, seed=seed, replicas=replicas)
        counts = f"{result.turns} turns, {result.judged} in order, {result.lapsed} places lost"
        yield f"seed {seed}, replicas={replicas}: {counts}, failed: {dict(result.errors)}", result.wrong


def _stops(options: argparse.Namespace, log: Path) -> Found:
    kinds = itertools.product(POINTS, ("same", "running", "other", "none"), ("stays", "fails over", "lost"))
    for stop in itertools.starmap(Stop, kinds):
        with lab.start("sentinel", links=stop.grant == "lost") as servers:
            yield (
                f"at {stop.point!r}, taken by {stop.taken_by}, grant {stop.grant}",
                play_stop(servers, stop, f"{stop}", log),
            )


def _claims(options: argparse.Namespace, log: Path) -> Found:
    for number, moment in itertools.product(range(options.repeat), MOMENTS):
        seed = options.seed + number
        with lab.start("sentinel") as servers:
            result = claim_all(servers, f"{seed} {moment}", log, moment=moment, seed=seed)
        yield f"seed {seed}, killed at {moment!r}: {dict(result.ends)}", result.wrong


KINDS: dict[str, Callable[[argparse.Namespace, Path], Found]] = {
    "kills": _kills,
    "crowds": _crowds,
    "stops": _stops,
    "claims": _claims,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.failover.turns", description=main.__doc__)
    parser.add_argument("--kind", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument(
        "--conversations", type=Path, metavar="FILE", help="JSON lines, for the kills; else the packaged ones"
    )
    parser.add_argument("--most", type=int, default=10, help="how many conversations")
    parser.add_argument("--repeat", type=int, default=3, help="how often crowds and claims are run")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
