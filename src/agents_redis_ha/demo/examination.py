"""Compares what is stored with what was said, at the end of a run or later from its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import HAConfig
from ..lab.conversations import Conversation, load_conversations, shapes
from .comparison import Comparison, compare
from .servers import read_stored, read_through_sessions
from .sessions import SessionPlan


@dataclass(frozen=True)
class Found:
    """What the store held at the end.

    Attributes:
        comparisons: One for each conversation.
        view_differs: Number of conversations that a session reads in another form than they are stored.
    """

    comparisons: tuple[Comparison, ...]
    view_differs: int


def examine(plan: SessionPlan, said: Sequence[tuple[Conversation, int]]) -> Found:
    """Compare what is stored with what was said.

    Args:
        plan: How it is stored.
        said: Conversations, each with the number of its turns that were said.
    """
    ids = [one.conversation_id for one, _ in said]
    stored = read_stored(plan, ids)
    viewed = read_through_sessions(plan, ids)
    return Found(
        comparisons=tuple(compare(one, items, turns) for (one, turns), items in zip(said, stored, strict=True)),
        view_differs=sum(_differ(a, b) for a, b in zip(stored, viewed, strict=True)),
    )


def _differ(stored: Sequence[Any], viewed: Sequence[Any] | None) -> bool:
    return viewed is None or shapes(stored) != shapes(viewed)


@dataclass(frozen=True)
class Verdict:
    """What became of the conversations of a record.

    Attributes:
        conversations: Their number.
        items: Number of items in the record.
        damaged: What differs, in words; empty if nothing does.
    """

    conversations: int
    items: int
    damaged: tuple[str, ...]


def verify_record(record: Path, config: HAConfig) -> Verdict:
    """Read the conversations of a record from the servers, and through sessions, and compare each item and its place.

    Args:
        record: A file that ``Options.record`` named.
        config: The servers.

    Raises:
        ConversationError: The record cannot be read.
    """
    said = load_conversations(record)
    found = examine(SessionPlan("ha", config), [(one, len(one.turns)) for one in said])
    damaged = [
        f"{one.conversation_id}: {comparison}"
        for one, comparison in zip(said, found.comparisons, strict=True)
        if not comparison.intact
    ]
    if found.view_differs:
        damaged.append(f"{found.view_differs} read through the session differ from what the servers hold")
    return Verdict(len(said), sum(len(one.items) for one in said), tuple(damaged))
