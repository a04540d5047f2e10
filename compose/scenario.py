"""From nothing to a verified failover: starts servers, has agents talk, breaks the servers, and reads everything back.

    python3 compose/scenario.py sentinel
    python3 compose/scenario.py cluster --break kill,move-slots

Needs Docker with Compose v2 and Python 3.10 or newer, nothing else. Exit code: 0 if the servers failed over as they
should while turns were in flight and every conversation is whole, 1 if not, 2 if it cannot run like that.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from scenarios.breaks import BREAKS, Scene
from scenarios.servers import ClusterServers, SentinelServers, Servers
from scenarios.stack import ScenarioError, Stack
from scenarios.story import Story
from scenarios.writers import RECORD, WARM_TURNS, Writers

TOPOLOGIES = ("sentinel", "cluster", "tls")
ELECTED = {"kill", "pause", "partition", "roll", "hand-over"}
DELETE = "delete-item"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology", choices=TOPOLOGIES, help="the servers; tls is Sentinel over mutual TLS")
    parser.add_argument(
        "--break",
        dest="breaks",
        default="kill",
        metavar="LIST",
        help=f"one after the other, with commas: {', '.join(BREAKS)} (move-slots in a cluster alone), or {DELETE}, "
        "which deletes an item behind the library's back, to see that it is missed (default: kill)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the servers up")
    parser.add_argument("--project", metavar="NAME", help="Compose's name for it (default: ha-TOPOLOGY)")
    parser.add_argument("--deadline", type=float, default=1200.0, metavar="SECONDS", help="for all of it")
    given = parser.parse_args(arguments)
    given.breaks = given.breaks.split(",")
    unknown = [name for name in given.breaks if name not in (*BREAKS, DELETE)]
    if unknown:
        parser.error(f"there is no break {unknown[0]!r}")
    if "move-slots" in given.breaks and given.topology != "cluster":
        parser.error("slots can be moved in a cluster only")
    if DELETE in given.breaks and given.topology == "tls":
        parser.error("with tls only the app's user may delete an item")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Play the scenario; returns the exit code."""
    given = parse(arguments)
    story = Story()
    try:
        stack = Stack(
            f"compose/{given.topology}.yml",
            project=given.project or f"ha-{given.topology}",
            cli="/servers/cli" if given.topology == "tls" else "redis-cli",
            deadline=time.monotonic() + given.deadline,
        )
    except ScenarioError as error:
        print(f"needs Docker with Compose v2: {error}", file=sys.stderr)
        return 2
    try:
        play(stack, given.topology, given.breaks, story)
    except ScenarioError as error:
        story.say(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        story.say("interrupted")
        return 130
    finally:
        if given.keep:
            story.say(f"left up: docker compose -p {stack.project} -f compose/{given.topology}.yml down --volumes")
        else:
            stack.down()
            story.say("all taken down")
    return 0


def play(stack: Stack, topology: str, breaks: list[str], story: Story) -> None:
    """Start, break, verify.

    Raises:
        ScenarioError: Something is not as it should be.
    """
    story.say(f"building the writers' image and starting the servers of {topology}.yml")
    stack.up("writers")
    servers: Servers = ClusterServers(stack) if topology == "cluster" else SentinelServers(stack)
    story.say(f"up: {servers.describe()}")
    if topology == "tls":
        probe(stack, story)
    writers = Writers(stack, story)
    try:
        scene = Scene(stack, servers, writers, story)
        moment = writers.wait_for_turns(WARM_TURNS, "the writers have answered turns")
        story.say(f"writers: {moment.answered} turns answered, {moment.in_flight} in flight")
        for name in breaks:
            if name in BREAKS:
                BREAKS[name](scene)
        report = writers.end()
    finally:
        writers.stop()
    check(report, breaks, story)
    if DELETE in breaks:
        delete_item(stack, servers, story)
    verify(stack, story)


def probe(stack: Stack, story: Story) -> None:
    """See that TLS and the user's rights keep out what they should."""
    code, said = stack.run("writers", "python3", "/tls/probe.py")
    for line in said.splitlines():
        story.say(line)
    if code:
        raise ScenarioError("something was permitted that must not be")


def check(report: dict[str, Any], breaks: list[str], story: Story) -> None:
    """See that the writers got through, and that they met what was broken."""
    story.say(
        f"writers ended: {report['conversations']} conversations, {report['turns_done']} of {report['turns']} turns "
        f"answered, {report['failed_turns']} failed with an error, {report['retries']} retries, "
        f"{report['failovers']} failovers seen, longest wait in a turn {report['longest_wait_seconds']:.1f} s"
    )
    if not report["whole"]:
        wrong = ("lost", "duplicated", "foreign", "out_of_order", "bad_inputs", "unresolved_turns", "errors", "refused")
        raise ScenarioError(f"not all is whole: { {name: report[name] for name in wrong} }")
    if ELECTED & set(breaks) and not report["failovers"]:
        raise ScenarioError("the writers saw no failover")


def delete_item(stack: Stack, servers: Servers, story: Story) -> None:
    """Delete an item behind the library's back."""
    for node in sorted(servers.primaries()):
        keys = stack.ask(node, "--scan --pattern 'agents:ha:*:items'")
        if keys:
            stack.ask(node, f"lpop '{keys[0]}'")
            story.say(f"deleted the oldest item of {keys[0]}")
            return
    raise ScenarioError("there is no item to delete")


def verify(stack: Stack, story: Story) -> None:
    """Read everything back in a new process."""
    code, said = stack.run("writers", "agents-redis-ha", "verify", RECORD, "--url")
    for line in said.splitlines():
        story.say(f"verify: {line}")
    if code:
        raise ScenarioError("not every conversation is whole")


if __name__ == "__main__":
    sys.exit(main())
