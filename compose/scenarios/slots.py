"""Slots that move to another primary while conversations in them go on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .servers import ClusterNode, ClusterServers
from .stack import ScenarioError, Stack
from .story import Story

LIVE_MOVED = 2
"""So many conversations that go on are in the slots that move, besides those that ended or come."""
LIVE_SECONDS = 1
RESHARD_SECONDS = 600.0
"""A slot takes a millisecond or two, and many times as long on a machine that is busy."""
KEYS = "agents:ha:*:items"


@dataclass(frozen=True)
class Conversation:
    """A conversation in a node.

    Attributes:
        key: Its list.
        slot: Its slot.
        idle_seconds: Since when it was not written to.
        items: Its length.
    """

    key: str
    slot: int
    idle_seconds: int
    items: int


def move_slots(stack: Stack, servers: ClusterServers, story: Story) -> None:
    """Have ``redis-cli`` move a primary's lowest slots to another, as an operator does, and see conversations go on.

    Raises:
        ScenarioError: A slot is not where it should be, or no conversation went on there.
    """
    primaries = sorted((node for node in servers.view().values() if node.slots), key=lambda node: node.name)
    stored = {home: _conversations_in(stack, home) for home in primaries}
    choices = {home: _lowest_slots(home, found) for home, found in stored.items() if any(map(_is_live, found))}
    if not choices:
        raise ScenarioError("no conversation is going on")
    home, due = min(choices.items(), key=lambda choice: len(choice[1]))
    away = primaries[(primaries.index(home) + 1) % len(primaries)]
    began = time.monotonic()
    nodes = f"--cluster-from {home.identity} --cluster-to {away.identity}"
    reshard = f"--cluster reshard 127.0.0.1:6379 {nodes} --cluster-slots {len(due)} --cluster-yes"
    stack.ask(home.name, reshard, seconds=RESHARD_SECONDS)
    took = time.monotonic() - began
    story.say(f"{len(due)} slots moved from {home.name} to {away.name} in {took:.1f} s, conversations going on in them")
    astray = due - servers.view()[away.name].slots
    if astray:
        raise ScenarioError(f"{len(astray)} slots are not where they were moved to")
    before = {one.key: one.items for one in stored[home]}

    def went_on() -> int:
        moved = (one for one in _conversations_in(stack, away) if one.slot in due)
        return sum(_is_live(one) and one.items > before.get(one.key, 0) for one in moved)

    number = stack.wait_for(went_on, "a conversation goes on in a slot that was moved")
    story.say(f"{len(due)} slots moved; {number} conversations went on at the new owner already")


def _lowest_slots(home: ClusterNode, stored: list[Conversation]) -> set[int]:
    """The slots that ``redis-cli`` has to move, which takes the lowest first, until live conversations have moved."""
    live = sorted(one.slot for one in stored if _is_live(one))
    return {slot for slot in home.slots if slot <= live[:LIVE_MOVED][-1]}


def _is_live(conversation: Conversation) -> bool:
    return conversation.idle_seconds <= LIVE_SECONDS


def _conversations_in(stack: Stack, node: ClusterNode) -> list[Conversation]:
    keys = stack.ask(node.name, f"--scan --pattern '{KEYS}'")
    if not keys:
        return []
    questions = ("cluster keyslot", "object idletime", "llen")
    answers = stack.ask(node.name, "", [f'{question} "{key}"' for key in keys for question in questions])
    figures = [tuple(map(int, answers[at : at + 3])) for at in range(0, len(answers), 3)]
    return [Conversation(key, *found) for key, found in zip(keys, figures, strict=True)]
