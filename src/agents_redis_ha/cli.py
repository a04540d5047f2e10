"""The command ``agents-redis-ha``: parse, call, render, exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .demo import Options, Report

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

DEMO = """\
Replays recorded agent conversations through real local servers with several worker processes, has
a fault strike in the middle, and compares what is stored with what was said.

Exit code: 0 if every conversation is whole, 1 if not, 2 if the command cannot run like that."""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="agents-redis-ha",
        description="High-availability sessions for the OpenAI Agents SDK on Redis and Valkey.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="agents talk through servers that fail, and every conversation stays whole",
        description=DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_demo_options(demo)
    return parser


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--topology",
        choices=("standalone", "sentinel", "cluster", "tls"),
        default="sentinel",
        help="the servers; tls is a standalone server that speaks only TLS (default: sentinel)",
    )
    demo.add_argument(
        "--fault",
        choices=("none", "kill", "stall", "move-slot"),
        default="kill",
        help="kill: SIGKILL of a primary; stall: SIGSTOP for longer than it takes to be noticed; "
        "move-slot: slots in use move to other primaries and back (default: kill)",
    )
    demo.add_argument(
        "--session",
        choices=("ha", "sdk"),
        default="ha",
        help="ha: this library; sdk: the SDK's own RedisSession, to compare (default: ha)",
    )
    demo.add_argument(
        "--conversations",
        type=Path,
        metavar="FILE",
        help='JSON lines {"conversation": id, "items": [...]} in place of the packaged ones',
    )
    demo.add_argument("--limit", type=_positive, metavar="N", help="at most N conversations")
    demo.add_argument("--workers", type=_positive, default=4, metavar="N", help="processes (default: 4)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="for what is drawn at random (default: 0)")
    demo.add_argument("--json", action="store_true", help="the report as JSON on stdout, progress on stderr")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows the command's name; ``None`` means the process's own.

    Returns:
        The exit code. A usage error ends in ``SystemExit`` with code 2, as argparse has it.
    """
    parser = build_parser()
    given = parser.parse_args(arguments)
    try:
        return _demo(given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _demo(given: argparse.Namespace) -> int:
    try:
        from .demo import ConversationError, FleetError, Options, choose_progress, run_demo
        from .demo.faults import why_not
        from .lab import LabError
    except ImportError as error:
        return _refuse(f"the demo needs {error.name}: pip install 'openai-agents-redis-ha[demo]'")
    reason = why_not(given.fault, given.topology)
    if reason is not None:
        return _refuse(reason)
    options = Options(
        topology=given.topology,
        fault=given.fault,
        session=given.session,
        conversations=given.conversations,
        limit=given.limit,
        workers=given.workers,
        seed=given.seed,
    )
    try:
        report = run_demo(options, choose_progress(sys.stderr if given.json else sys.stdout))
    except (ConversationError, LabError) as error:
        return _refuse(str(error))
    except FleetError as error:
        print(f"agents-redis-ha demo: {error}", file=sys.stderr)
        return EXIT_NOT_WHOLE
    _render(report, options, as_json=given.json)
    return EXIT_OK if report.whole else EXIT_NOT_WHOLE


def _refuse(reason: str) -> int:
    print(f"agents-redis-ha demo: {reason}", file=sys.stderr)
    return EXIT_USAGE


def _render(report: Report, options: Options, *, as_json: bool) -> None:
    from .demo import figures, findings

    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return
    print(f"\n{options.topology}, fault {options.fault}, session {options.session}")
    for name, value in figures(report):
        print(f"  {name:<28}{value}")
    for name, message in report.error_examples.items():
        print(f"  {name}: {message}")
    print()
    for sentence in findings(report):
        print(sentence)
