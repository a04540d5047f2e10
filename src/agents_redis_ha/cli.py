"""The command ``agents-redis-ha``: parse, call, render, exit code."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ._config.model import HAConfig
from ._version import __version__
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .demo import Options, Report

EXIT_OK = 0
EXIT_NOT_WHOLE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

DEFAULT_TOPOLOGY: Literal["sentinel"] = "sentinel"
DEFAULT_FAULT: Literal["kill"] = "kill"
OWN_TTL_SECONDS = 3600
"""How long the demo's conversations stay on servers that it did not start."""

DEMO = """\
Replays recorded agent conversations through real local servers with several worker processes, has
a fault strike in the middle, and compares what is stored with what was said.

With --url it leaves servers and faults to you: an interrupt (Ctrl-C, SIGTERM) begins no further
conversation, ends those under way, and compares.

Exit code: 0 if every conversation is whole, 1 if not, 2 if the command cannot run like that."""

VERIFY = """\
Reads the conversations that demo --record wrote down from the servers, and through sessions, and
compares each item and its place.

Exit code: 0 if every conversation is whole, 1 if not, 2 if the command cannot run like that."""

URL_HELP = "servers that run already; without a URL those of the environment (AGENTS_REDIS_HA_URL and its like)"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="agents-redis-ha",
        description="High-availability sessions for the OpenAI Agents SDK on Redis and Valkey.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="agents talk through servers that fail, and every conversation stays whole",
        description=DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_demo_options(demo)
    demo.set_defaults(run=_demo)
    verify = commands.add_parser(
        "verify",
        help="read the conversations of an earlier run back and compare",
        description=VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("record", type=Path, metavar="FILE", help="what demo --record wrote")
    verify.add_argument("--url", nargs="?", const="", default="", metavar="URL", help=URL_HELP)
    verify.set_defaults(run=_verify)
    return parser


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--topology",
        choices=("standalone", "sentinel", "cluster", "tls"),
        help="the servers; tls is a standalone server that speaks only TLS (default: sentinel)",
    )
    demo.add_argument(
        "--fault",
        choices=("none", "kill", "stall", "move-slot"),
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
    demo.add_argument("--url", nargs="?", const="", metavar="URL", help=f"{URL_HELP}. The demo causes no fault there")
    demo.add_argument(
        "--copies",
        type=_positive,
        default=1,
        metavar="N",
        help="with --url: how often each conversation is replayed (default: 1)",
    )
    demo.add_argument("--record", type=Path, metavar="FILE", help="write down what was said, for verify")
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
        code: int = given.run(given)
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _demo(given: argparse.Namespace) -> int:
    try:
        from .demo import (
            ConversationError,
            choose_progress,
            run_demo,
        )
        from .demo.faults import why_not
        from .lab import LabError
        from .lab.errors import WorkerError
    except ImportError as error:
        return _refuse(f"the demo needs {error.name}: pip install 'openai-agents-redis-ha[demo]'")
    own = given.url is not None
    reason = _why_not_own(given) if own else why_not(given.fault or DEFAULT_FAULT, given.topology or DEFAULT_TOPOLOGY)
    if reason is not None:
        return _refuse(reason)
    try:
        options = _options(given)
        progress = choose_progress(sys.stderr if given.json else sys.stdout)
        with _told_to_end() if own else nullcontext() as end:
            report = run_demo(options, progress, end)
    except WorkerError as error:
        print(f"agents-redis-ha demo: {error}", file=sys.stderr)
        return EXIT_NOT_WHOLE
    except (ConfigurationError, ConversationError, LabError, OSError) as error:
        return _refuse(str(error))
    _render(report, options, as_json=given.json)
    return EXIT_OK if report.whole else EXIT_NOT_WHOLE


def _why_not_own(given: argparse.Namespace) -> str | None:
    """Return why these options do not go with servers of the user's own; None if they do."""
    for name in ("topology", "fault"):
        if getattr(given, name) is not None:
            return f"--{name} is for servers that the demo starts itself: leave it out with --url"
    return None if given.session == "ha" else "--session sdk is for servers that the demo starts itself"


def _options(given: argparse.Namespace) -> Options:
    from .demo import Options

    config = None if given.url is None else _config(given.url)
    return Options(
        topology=config.topology if config else given.topology or DEFAULT_TOPOLOGY,
        fault="none" if config else given.fault or DEFAULT_FAULT,
        session=given.session,
        conversations=given.conversations,
        limit=given.limit,
        workers=given.workers,
        seed=given.seed,
        config=config,
        copies=given.copies,
        record=given.record,
    )


def _config(url: str) -> HAConfig:
    """Return the configuration of a URL or of the environment, with an expiry for what the demo writes."""
    config = HAConfig.from_url(url) if url else HAConfig.from_env()
    return config if config.ttl else config.replace(ttl=OWN_TTL_SECONDS)


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; the next one interrupts."""
    end = threading.Event()

    def tell(*_: object) -> None:
        if end.is_set():
            raise KeyboardInterrupt
        end.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verify(given: argparse.Namespace) -> int:
    from .demo import ConversationError
    from .demo.examination import verify_record

    try:
        verdict = verify_record(given.record, _config(given.url))
    except (ConfigurationError, ConversationError) as error:
        return _refuse(str(error), "verify")
    for difference in verdict.damaged:
        print(difference)
    if verdict.damaged:
        print(f"Not every one of {verdict.conversations} conversations is whole.")
        return EXIT_NOT_WHOLE
    print(f"All {verdict.conversations} conversations are whole: {verdict.items} items, each once and in its place.")
    return EXIT_OK


def _refuse(reason: str, command: str = "demo") -> int:
    print(f"agents-redis-ha {command}: {reason}", file=sys.stderr)
    return EXIT_USAGE


def _render(report: Report, options: Options, *, as_json: bool) -> None:
    from .demo import figures, findings

    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return
    fault = f"fault {options.fault}" if options.config is None else "servers of your own"
    print(f"\n{options.topology}, {fault}, session {options.session}")
    for name, value in figures(report):
        print(f"  {name:<28}{value}")
    for name, message in report.error_examples.items():
        print(f"  {name}: {message}")
    print()
    for sentence in findings(report):
        print(sentence)
