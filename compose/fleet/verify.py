"""Compare the turns that are stored with what was said: ``python -m fleet.verify FILE``, in a process of its own.

It asks the primary for the lists themselves, without the library that wrote them. A turn is what stands from one
message of the user to the next: it has to be there once, whole, and in its place.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Sentinel

from agents_redis_ha.lab.conversations import Item, is_user_message, shapes

from .chat import recorded_model
from .recorded import NUDGE

__all__ = ["Said", "Verdict", "verdict"]

SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Said:
    """What a user said and heard in a conversation.

    Attributes:
        conversation: The conversation's id.
        messages: What the user said, in the order in which it was said; a nudge may be stored at any place.
        answers: What the user heard, one answer to each message.
    """

    conversation: str
    messages: list[str]
    answers: list[str]


@dataclass
class Verdict:
    """What is wrong with what is stored, in turns, of all conversations together.

    Attributes:
        conversations: Conversations that were compared.
        turns: Turns that should be stored.
        items: Their items.
        lost: Of the turns, those that are not stored whole.
        duplicated: Turns that are stored more often than they were said.
        torn: Pieces between two messages of the user that are no whole turn: a part of one, or of two.
        out_of_order: Conversations that hold the right turns in another order.
        misheard: Answers that are not the ones that are stored.
    """

    conversations: int = 0
    turns: int = 0
    items: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    out_of_order: int = 0
    misheard: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.torn or self.out_of_order or self.misheard)

    def add(self, said: Said, expected: Sequence[Sequence[Item]], stored: Sequence[Item]) -> None:
        """Compare one conversation.

        Args:
            said: What its user said and heard.
            expected: The items of each of its turns.
            stored: What is stored of it.
        """
        wanted, found = [tuple(shapes(turn)) for turn in expected], _turns(stored)
        lost, more = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        nudges = {turn for turn, message in zip(wanted, said.messages, strict=True) if message == NUDGE}
        self.conversations += 1
        self.turns += len(wanted)
        self.items += sum(map(len, wanted))
        self.lost += lost.total()
        self.duplicated += sum(count for turn, count in more.items() if turn in wanted)
        self.torn += sum(count for turn, count in more.items() if turn not in wanted)
        in_order = [turn for turn in wanted if turn not in nudges] == [turn for turn in found if turn not in nudges]
        self.out_of_order += not lost and not more and not in_order
        for turn, heard in zip(expected, said.answers, strict=True):
            self.misheard += heard != "".join(part["text"] for part in turn[-1]["content"])


def _turns(items: Sequence[Item]) -> list[tuple[str, ...]]:
    """Return the pieces of a history, cut before each message of the user."""
    starts = [0, *(number for number, item in enumerate(items) if number and is_user_message(item)), len(items)]
    return [tuple(shapes(items[start:end])) for start, end in pairwise(starts) if start < end]


def verdict(file: Path) -> Verdict:
    """Return what is wrong with the conversations of a file.

    Args:
        file: JSON lines, a `Said` each.
    """
    parts = urlsplit(os.environ["AGENTS_REDIS_HA_URL"])
    sentinels = [(host, SENTINEL_PORT) for host in parts.netloc.split(",")]
    # redis-py's Sentinel has no types
    sentinel: Any = Sentinel(sentinels, socket_timeout=5)  # type: ignore[no-untyped-call]
    primary = sentinel.master_for(parts.path.strip("/"), decode_responses=True)
    result = Verdict()
    for line in file.read_text(encoding="utf-8").splitlines():
        said = Said(**json.loads(line))
        stored = primary.lrange(f"agents:ha:{{{said.conversation}}}:items", 0, -1)
        result.add(said, recorded_model().turns_of(said.messages), [json.loads(item) for item in stored])
    return result


if __name__ == "__main__":
    found = verdict(Path(sys.argv[1]))
    print(json.dumps(vars(found)))
    sys.exit(not found.is_whole)
