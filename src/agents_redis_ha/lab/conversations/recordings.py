"""Recorded conversations and how they are cut into turns; no I/O but reading the file.

A conversation is a list of Responses input items. A *turn* starts at a user message and runs to the
item before the next one. Within a turn, a *response* is what the model said in one call: the run of
assistant messages and function calls up to the next function call output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

Item = dict[str, Any]
"""One Responses input item as JSON gives it."""

PACKAGED = "conversations.jsonl"
PACKAGED_COPIES = 5


class ConversationError(ValueError):
    """A conversation that cannot be replayed; the message says which one and why."""


@dataclass(frozen=True)
class Turn:
    """What was said from one user message to the next.

    Attributes:
        items: The user message, then everything that followed it.
    """

    items: tuple[Item, ...]

    @property
    def user_message(self) -> Item:
        """The message that the user sent."""
        return self.items[0]

    @property
    def tool_outputs(self) -> dict[str, str]:
        """The recorded output of every function call of this turn, by call id."""
        return {item["call_id"]: item["output"] for item in self.items if item.get("type") == "function_call_output"}

    @property
    def responses(self) -> int:
        """How often the model is called in this turn."""
        outputs: list[bool] = [item.get("type") == "function_call_output" for item in self.items]
        return 1 + sum(output and not following for output, following in pairwise(outputs))

    def response_at(self, position: int) -> tuple[Item, ...]:
        """What the model said when ``position`` items had followed the user message.

        Args:
            position: Number of items between the user message and the end of the model's input.

        Returns:
            Assistant messages and function calls; empty if the recording ends there.
        """
        said: list[Item] = []
        for item in self.items[1 + position :]:
            if item.get("type") == "function_call_output":
                break
            said.append(item)
        return tuple(said)


@dataclass(frozen=True)
class Conversation:
    """A recorded conversation under the id that it is stored by.

    Attributes:
        conversation_id: The id; unique within a run.
        turns: The turns in the order in which they were said; never empty.
    """

    conversation_id: str
    turns: tuple[Turn, ...]

    @property
    def items(self) -> list[Item]:
        """Every item, in order."""
        return self.items_before(len(self.turns))

    @property
    def tool_names(self) -> tuple[str, ...]:
        """Names of the functions that are called anywhere in the conversation, sorted."""
        calls = (item for item in self.items if item.get("type") == "function_call")
        return tuple(sorted({item["name"] for item in calls}))

    def items_before(self, turn: int) -> list[Item]:
        """What had been said when turn number ``turn`` (from 0) began."""
        return [item for earlier in self.turns[:turn] for item in earlier.items]


def is_user_message(item: Item) -> bool:
    """Whether an item is something that the user said."""
    return item.get("role") == "user" and item.get("type", "message") == "message"


def split_turns(items: Sequence[Item]) -> tuple[Turn, ...]:
    """Cut a conversation at its user messages.

    Args:
        items: The conversation; its first item must be a user message.

    Returns:
        The turns. Their items, joined, are ``items`` again.

    Raises:
        ConversationError: The conversation is empty, does not begin with a user message, or calls a
            function without recording what it returned within the same turn.
    """
    if not items or not is_user_message(items[0]):
        raise ConversationError("a conversation must begin with a user message")
    starts = [index for index, item in enumerate(items) if is_user_message(item)]
    ends = [*starts[1:], len(items)]
    turns = tuple(Turn(tuple(items[a:b])) for a, b in zip(starts, ends, strict=True))
    for turn in turns:
        _check_turn(turn)
    return turns


def _check_turn(turn: Turn) -> None:
    """Refuse a turn that no agent run can reproduce.

    The agent answers the calls of one response all together and in their order, so the recording
    must have them like that.
    """
    waiting: list[str] = []
    answering = False
    for item in turn.items[1:]:
        kind = item.get("type")
        if kind == "function_call_output":
            if not waiting or waiting.pop(0) != item["call_id"]:
                raise ConversationError(f"the output of {item['call_id']} is not in its place")
            answering = bool(waiting)
        elif kind not in ("message", "function_call") or item.get("role") not in (
            None,
            "assistant",
        ):
            raise ConversationError(f"items of type {kind!r} cannot be replayed")
        elif answering:
            raise ConversationError(f"the output of {waiting[0]} is not in its place")
        elif kind == "function_call":
            waiting.append(item["call_id"])
    if waiting:
        raise ConversationError(f"the output of {waiting[0]} was not recorded")


def distinct_call_ids(items: Sequence[Item]) -> list[Item]:
    """Give every function call of a conversation a call id of its own.

    Recorded models do use a call id twice in a conversation; the SDK refuses to run such a call
    ("Model reused a completed tool call ID"). The second use of ``call_7`` becomes ``call_7.2``, in
    the call and in its output. All other items stay as they are.
    """
    uses: dict[str, int] = {}
    answered: dict[str, int] = {}
    distinct: list[Item] = []
    for item in items:
        kind, call_id = item.get("type"), item.get("call_id")
        if kind in ("function_call", "function_call_output") and call_id is not None:
            counts = uses if kind == "function_call" else answered
            counts[call_id] = counts.get(call_id, 0) + 1
            distinct.append(_numbered(item, counts[call_id]))
        else:
            distinct.append(item)
    return distinct


def _numbered(item: Item, number: int) -> Item:
    if number == 1:
        return item
    fields = (field for field in ("id", "call_id") if item.get(field) is not None)
    return {**item, **{field: f"{item[field]}.{number}" for field in fields}}


def parse_conversations(lines: Iterator[str], source: str) -> list[Conversation]:
    """Read conversations from JSON lines.

    Args:
        lines: Lines of ``{"conversation": id, "items": [...]}``; blank ones are skipped.
        source: What to call them in an error.

    Raises:
        ConversationError: A line is not such an object, or an id occurs twice.
    """
    found: dict[str, Conversation] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, items = str(record["conversation"]), record["items"]
            if name in found:
                raise ConversationError(f"the id {name!r} occurs twice")
            found[name] = Conversation(name, split_turns(distinct_call_ids(items)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversationError(f"{source}, line {number}: {error}") from error
    return list(found.values())


def load_conversations(path: Path | None, limit: int | None = None) -> list[Conversation]:
    """Read a file of conversations, or the packaged ones.

    Args:
        path: A JSON lines file. ``None`` means the packaged conversations, each replayed
            ``PACKAGED_COPIES`` times under ids of its own.
        limit: Greatest number of conversations. ``None`` means all of them.

    Raises:
        ConversationError: The file cannot be read, holds nothing, or holds something else.
    """
    try:
        if path is None:
            text = resources.files(__package__).joinpath(PACKAGED).read_text(encoding="utf-8")
            once = parse_conversations(iter(text.split("\n")), PACKAGED)
            found = [
                Conversation(f"{one.conversation_id}-{copy}", one.turns)
                for copy in range(1, PACKAGED_COPIES + 1)
                for one in once
            ]
        else:
            with path.open(encoding="utf-8") as lines:
                found = parse_conversations(iter(lines), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConversationError(f"cannot read {path}: {error}") from error
    if not found:
        raise ConversationError(f"{path} holds no conversation")
    return found[:limit]


def copies(conversations: Sequence[Conversation], run: str, number: int) -> list[Conversation]:
    """The conversations again and again, under ids that no other run has given out.

    Args:
        conversations: The recordings.
        run: What the ids begin with.
        number: How many of each.
    """
    return [
        Conversation(f"{run}-{copy}-{one.conversation_id}", one.turns)
        for copy in range(1, number + 1)
        for one in conversations
    ]


def write_conversations(path: Path, conversations: Sequence[Conversation]) -> None:
    """Write a file that ``load_conversations`` reads.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("w", encoding="utf-8") as lines:
        for one in conversations:
            record = {"conversation": one.conversation_id, "items": one.items}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
