"""Measure this library beside its peers, in one run and taking turns: ``python -m tests.benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from agents_redis_ha import lab
from tests.benchmarks.results import as_json, as_markdown, as_text, versions
from tests.benchmarks.stages import beside, elsewhere, standalone, turns
from tests.benchmarks.worker import keep_apart

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def main() -> int:
    """Run the benchmarks; return 1 if a target is missed and that was asked for."""
    options = _options()
    common = {"conversations": options.conversations, "processor": keep_apart()}
    if options.beside:
        rows = beside(common, options.beside.resolve())
    else:
        rows = standalone(common, quick=options.quick)
        rows += [] if options.quick else elsewhere(common)
        rows += turns(common, quick=options.quick)
    header = versions(".".join(map(str, lab.find_server().version)))
    print(json.dumps(as_json(rows, header), indent=2) if options.json else as_text(rows, header))
    if options.write:
        _write(options.write, as_markdown(rows, header))
    missed = [text for row in rows for text in row.missed]
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds on a standalone server: does it run at all")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="compare with the code of another working tree")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this file")
    parser.add_argument("--conversations", metavar="FILE", help="JSON lines of conversations, in place of the packaged")
    return parser.parse_args()


def _write(path: Path, table: str) -> None:
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n{table}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
