"""What many runs came to: counted, written to a file as JSON lines, and summed up in words.

python -m tests.simulation --runs 1000 --report totals.jsonl
python -m tests.simulation.totals totals.jsonl …            prints tables in Markdown
python -m tests.simulation.totals --compare a.jsonl b.jsonl   prints what differs, of the same seeds on two Pythons
"""

from __future__ import annotations

import gc
import json
import math
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import draw, verdict, world
from tests.simulation.second_opinion import second_opinion
from tests.simulation.verdict import Verdict
from tests.simulation.world import Run


@dataclass
class Totals:
    """What some runs of one topology came to.

    Attributes:
        counts: ``runs`` with a fault, ``calm`` ones, ``calls``, ``promotions``; ``agreed`` and ``disagreed``:
            how often the independent judge said the same as the checker.
        faults: How often each kind struck.
        library: What the library counted.
        calls: The calls, by what became of them.
        found: What the checker found, excused or not.
        failed: The seeds of the runs that broke something, or about which the judges disagree.
        seconds: Processor time.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    library: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, run: Run, found: Verdict, *, asks_again: bool) -> list[str]:
        """Count a run; return what is wrong with it.

        Args:
            run: The run.
            found: What the checker says.
            asks_again: Whether to ask the independent judge, too.
        """
        self.counts["runs" if run.struck else "calm"] += 1
        self.counts["calls"] += len(run.calls)
        self.counts["promotions"] += run.promotions
        self.faults.update(run.struck)
        self.library.update({name: count for name, count in run.totals.items() if count})
        self.calls.update(found.report.counts)
        self.found.update(found.report.summary())
        wrong = list(found.broken)
        if asks_again:
            opinion = second_opinion(run)
            agrees = bool(opinion) == bool(found.broken)
            self.counts["agreed" if agrees else "disagreed"] += 1
            if not agrees:
                wrong += [f"the independent judge disagrees: {each}" for each in opinion or ["nothing is broken"]]
        if wrong:
            self.failed.append(run.plan.seed)
        return wrong

    def add(self, other: Totals) -> None:
        """Take over what others came to."""
        for name in ("counts", "faults", "library", "calls", "found"):
            getattr(self, name).update(getattr(other, name))
        self.failed += other.failed
        self.seconds += other.seconds

    def lines(self) -> list[str]:
        """Return it in words."""
        runs = self.counts["runs"] + self.counts["calm"]
        rows = [*self.counts.items()]
        for title in ("faults", "calls", "found", "library"):
            rows += [(f"{title}: {name}", count) for name, count in sorted(getattr(self, title).items())]
        return [
            f"{runs} runs, {60 * runs / max(self.seconds, 1e-9):.0f} a minute of processor time",
            *(f"  {count:9} {name}" for name, count in rows),
            f"{len(self.failed)} failed: {self.failed[:50]}" if self.failed else "nothing was broken",
        ]

    def append_to(self, path: Path, **about: Any) -> None:
        """Append it to a file as a line of JSON."""
        line = {**about, "python": platform.python_version(), **vars(self)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def simulate(
    topology: str,
    workers: int | None,
    every: int,
    minutes: float | None,
    seeds: Iterable[int],
    *,
    workload: str = "operations",
) -> Totals:
    """Return what the runs of some seeds came to, and print what is wrong with them.

    Args:
        topology: Of `draw.TOPOLOGIES`.
        workers: How many processes; None means as the seed says.
        every: Which runs the independent judge looks at; 0 means none.
        minutes: After which to stop; None means after the last seed.
        seeds: The seeds.
        workload: Of `draw.WORKLOADS`.
    """
    totals, used = Totals(), time.process_time()
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    gc.freeze()
    for number, seed in enumerate(seeds):
        if time.monotonic() > end:
            break
        run = world.run(draw.draw_plan(seed, topology, processes=workers, workload=workload))
        wrong = totals.count(run, verdict.judge(run), asks_again=every > 0 and number % every == 0)
        if wrong:
            print(f"seed {seed}:", *wrong[:3], sep="\n  ", flush=True)
    totals.seconds = time.process_time() - used
    return totals


def load(paths: Iterable[Path]) -> dict[str, Totals]:
    """Return what files hold, by topology and processes."""
    found: dict[str, Totals] = defaultdict(Totals)
    for line in (line for path in paths for line in path.read_text(encoding="utf-8").splitlines()):
        values = json.loads(line)
        totals = Totals(failed=values["failed"], seconds=values["seconds"])
        for name in ("counts", "faults", "library", "calls", "found"):
            getattr(totals, name).update(values[name])
        workers = values["workers"]
        found[f"{values['topology']}, {workers if workers else '1 to 3'}"].add(totals)
    return dict(found)


def tables(found: Mapping[str, Totals]) -> list[str]:
    """Return the lines of two tables in Markdown: the runs, and the faults that struck."""
    total = Totals()
    for each in found.values():
        total.add(each)
    rows = {**found, "all": total}
    lines = [
        "| Topology, processes | Runs with faults | A minute | Operations | Faults | Promotions | Put back "
        "| Broken | Judged twice | Agreed |",
        "|---|" + "---:|" * 9,
    ]
    for name, each in rows.items():
        counts = each.counts
        rate = 60 * (counts["runs"] + counts["calm"]) / max(each.seconds, 1e-9)
        cells = (
            counts["runs"],
            round(rate),
            counts["calls"],
            sum(each.faults.values()),
            counts["promotions"],
            each.library["changes_restored"],
            len(each.failed),
            counts["agreed"] + counts["disagreed"],
            counts["agreed"],
        )
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", f"| Fault | {' | '.join(rows)} |", "|---|" + "---:|" * len(rows)]
    for kind, _ in total.faults.most_common():
        lines.append(f"| {kind} | " + " | ".join(f"{each.faults[kind]:,}" for each in rows.values()) + " |")
    return lines


def differences(one: Path, other: Path) -> tuple[list[str], bool]:
    """Return what differs of the same seeds on two Pythons, in words, and whether the verdicts do.

    Their versions of asyncio take another number of the loop's turns for the same call. So an attempt may begin a
    microsecond later, and meet a fault or not: retries may differ, and what becomes of a call in the midst of a fault.
    """
    mine, others = load([one]), load([other])
    words = [
        f"{name}: {field} of {key}: {getattr(own, field)[key]}, {getattr(others[name], field)[key]}"
        for name, own in mine.items()
        for field in ("counts", "calls", "found", "library")
        for key in sorted({*getattr(own, field), *getattr(others[name], field)})
        if getattr(own, field)[key] != getattr(others[name], field)[key]
    ]
    verdicts = [{name: each.failed for name, each in some.items()} for some in (mine, others)]
    return [*words, f"failed: {verdicts}"], verdicts[0] != verdicts[1]


def main(arguments: Sequence[str]) -> int:
    """Print what files hold; return 1 if verdicts differ that are compared."""
    if arguments[:1] != ["--compare"]:
        print("\n".join(tables(load(map(Path, arguments)))))
        return 0
    words, differ = differences(*map(Path, arguments[1:]))
    print("\n".join(words))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
