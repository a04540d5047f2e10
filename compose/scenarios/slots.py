"""Slots that move to other primaries while conversations in them go on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .servers import ClusterNode, ClusterServers
from .stack import ScenarioError, Stack
from .story import Story

MOVED_SLOTS = 8
LIVE_SECONDS = 1
KEYS = "agents:ha:*:items"


@dataclass(frozen=True)
class Live:
    """A conversation that was written to a moment ago."""

    key: str
    slot: int
    home: ClusterNode
    items: int


def move_slots(stack: Stack, servers: ClusterServers, story: Story) -> None:
    """Move slots of live conversations, each to another primary, and see conversations go on there.

    Raises:
        ScenarioError: A slot is not where it should be, or no conversation went on.
    """
    view = servers.view()
    primaries = sorted((node for node in view.values() if node.slots), key=lambda node: node.name)
    live = {one.slot: one for home in primaries for one in _live_in(stack, home)}
    if not live:
        raise ScenarioError("no conversation is going on")
    moved: dict[int, ClusterNode] = {}
    for slot in random.sample(sorted(live), min(len(live), MOVED_SLOTS)):
        one = live[slot]
        away = primaries[(primaries.index(one.home) + 1) % len(primaries)]
        _move(stack, slot, one.home, away, primaries)
        moved[slot] = away
        story.say(f"slot {slot} moved from {one.home.name} to {away.name}, its conversation at item {one.items}")
    owners = servers.view()
    astray = [slot for slot, away in moved.items() if slot not in owners[away.name].slots]
    if astray:
        raise ScenarioError(f"slots {astray} are not where they were moved to")

    def went_on() -> int:
        lengths = ((live[slot], stack.ask(away.name, f"llen '{live[slot].key}'")[0]) for slot, away in moved.items())
        return sum(int(length) > one.items for one, length in lengths)

    number = stack.wait_until(went_on, "a conversation goes on in a slot that was moved", 20.0)
    story.say(f"{len(moved)} slots moved; {number} of their conversations went on at the new owner already")


def _live_in(stack: Stack, home: ClusterNode) -> list[Live]:
    """Conversations in a node that were written to a moment ago, and whose keys share no slot with others seen."""
    keys = stack.ask(home.name, f"--scan --pattern '{KEYS}'")
    if not keys:
        return []
    questions = ("object idletime", "cluster keyslot", "llen")
    answers = stack.ask(home.name, "", [f'{question} "{key}"' for key in keys for question in questions])
    figures = [tuple(map(int, answers[at : at + 3])) for at in range(0, len(answers), 3)]
    return [
        Live(key, slot, home, items)
        for key, (idle, slot, items) in zip(keys, figures, strict=True)
        if idle <= LIVE_SECONDS
    ]


def _move(stack: Stack, slot: int, home: ClusterNode, away: ClusterNode, primaries: list[ClusterNode]) -> None:
    """Move a slot as the Cluster specification has it, its keys last written while it is half moved."""
    stack.ask(away.name, f"cluster setslot {slot} importing {home.identity}")
    stack.ask(home.name, f"cluster setslot {slot} migrating {away.identity}")
    while keys := [key for key in stack.ask(home.name, f"cluster getkeysinslot {slot} 100") if key]:
        quoted = " ".join(f"'{key}'" for key in keys)
        stack.ask(home.name, f"migrate {away.address} 6379 '' 0 5000 keys {quoted}")
    for node in (away, home, *(one for one in primaries if one not in (home, away))):
        stack.ask(node.name, f"cluster setslot {slot} node {away.identity}")
