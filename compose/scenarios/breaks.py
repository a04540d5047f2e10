"""What can be done to the servers while agents talk, and what has to follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .servers import ClusterServers, Servers
from .slots import move_slots
from .stack import ScenarioError, Stack
from .story import Story
from .writers import Writers

PAUSE_SECONDS = 6.0
"""Three times what the servers take for a failure (down-after-milliseconds, cluster-node-timeout)."""

TURNS_BETWEEN = 10
"""So many turns have to be answered by the new primary before the old one comes back."""


@dataclass(frozen=True)
class Scene:
    """All that a break plays with."""

    stack: Stack
    servers: Servers
    writers: Writers
    story: Story

    def wait_until_well(self) -> None:
        """Wait until every server passes its health check: nothing is missing any more."""
        self.stack.wait_for(
            lambda: all(self.stack.healthy(service) for service in self.servers.services), "all servers are healthy"
        )
        self.story.say(f"all healthy: {self.servers.describe()}")


def kill(scene: Scene) -> None:
    """SIGKILL a primary; start it again when another has taken over."""
    container = scene.stack.container
    _lose_primary(
        scene,
        "killed (SIGKILL)",
        lambda node: scene.stack.docker("kill", container(node)),
        lambda node: scene.stack.docker("start", container(node)),
        "started again",
    )


def pause(scene: Scene) -> None:
    """Freeze a primary for longer than the servers wait; it goes on unaware of what it missed."""
    container, began = scene.stack.container, time.monotonic()

    def resume(node: str) -> None:
        time.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
        scene.stack.docker("unpause", container(node))

    _lose_primary(
        scene, "frozen", lambda node: scene.stack.docker("pause", container(node)), resume, "goes on, unaware of it"
    )


def partition(scene: Scene) -> None:
    """Take a primary off the network, and put it back at its address."""
    stack = scene.stack
    _lose_primary(scene, "cut off the network", stack.cut, stack.mend, "back on the network")


def roll(scene: Scene) -> None:
    """Restart every server, one by one; a primary hands over first."""
    stack, servers = scene.stack, scene.servers
    before = {service: stack.inspect(service, ".State.StartedAt") for service in servers.services}
    primaries = servers.primaries()
    _check_in_flight(scene)
    for service in sorted(servers.services, key=lambda name: name in primaries):
        if service in servers.primaries():
            _hand_over(scene, service)
        stack.docker("restart", "-t", "10", stack.container(service))
        scene.story.say(f"{service} restarted")
        stack.wait_for(lambda: all(stack.healthy(one) for one in servers.services), "all servers are healthy")
    same = [service for service, began in before.items() if stack.inspect(service, ".State.StartedAt") == began]
    if same or servers.primaries() & primaries == primaries:
        raise ScenarioError(f"not everything was rolled: {same or primaries} is as before")
    _check_answers(scene)
    scene.story.say(f"all {len(before)} servers restarted: {servers.describe()}")


def hand_over(scene: Scene) -> None:
    """Have a primary that is alive and takes writes hand over to a replica."""
    _check_in_flight(scene)
    _hand_over(scene, scene.servers.victim())
    _check_answers(scene)


def move(scene: Scene) -> None:
    """Move slots of conversations that are going on to another primary."""
    _check_in_flight(scene)
    if not isinstance(scene.servers, ClusterServers):
        raise ScenarioError("slots can be moved in a cluster only")
    move_slots(scene.stack, scene.servers, scene.story)
    _check_answers(scene)
    scene.wait_until_well()


BREAKS: dict[str, Callable[[Scene], None]] = {
    "kill": kill,
    "pause": pause,
    "partition": partition,
    "roll": roll,
    "hand-over": hand_over,
    "move-slots": move,
}


def _lose_primary(
    scene: Scene, how: str, strike: Callable[[str], object], repair: Callable[[str], object], repaired: str
) -> None:
    servers, story = scene.servers, scene.story
    before = servers.primaries()
    old = servers.victim()
    _check_in_flight(scene)
    began = time.monotonic()
    strike(old)
    story.say(f"primary {old} {how}, with {scene.writers.now.in_flight} turns in flight")

    def successors() -> set[str]:
        now = servers.primaries()
        return now - before if old not in now and len(now) == len(before) else set()

    (new,) = scene.stack.wait_for(successors, f"another takes the place of {old}")
    story.say(f"{new} is primary in place of {old}, after {time.monotonic() - began:.1f} s")
    _check_answers(scene)
    repair(old)
    story.say(f"{old} {repaired}")
    scene.wait_until_well()
    if old in servers.primaries():
        raise ScenarioError(f"{old} is primary again: nothing failed over")


def _hand_over(scene: Scene, primary: str) -> None:
    scene.servers.hand_over(primary)
    scene.story.say(f"{primary} has handed over")
    scene.wait_until_well()


def _check_in_flight(scene: Scene) -> None:
    """What strikes has to meet turns."""
    scene.stack.wait_for(lambda: scene.writers.now.in_flight > 0, "turns are in flight")


def _check_answers(scene: Scene) -> None:
    """Turns have to be answered after it, and not by what was under way alone."""
    moment = scene.writers.wait_for_turns(TURNS_BETWEEN, f"{TURNS_BETWEEN} turns are answered")
    scene.story.say(
        f"writers: {moment.answered} turns answered, {moment.in_flight} in flight, {moment.failed} failed, "
        f"{moment.retries} retries"
    )
