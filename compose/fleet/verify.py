"""Compare what is stored with what was said: ``python -m fleet.verify FILE``, in a process of its own.

It asks the primary for the lists themselves, without the library that wrote them.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Sentinel

from agents_redis_ha.lab.conversations import Item, shapes

from .chat import Answer, recorded_model

__all__ = ["Said", "Verdict", "verdict"]

SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Said:
    """What a user said and heard in a conversation.

    Attributes:
        conversation: The conversation's id.
        messages: What the user said.
        answers: What the user heard, one answer to each message.
    """

    conversation: str
    messages: list[str]
    answers: list[Answer]


@dataclass
class Verdict:
    """What is wrong with what is stored, in items, of all conversations together.

    Attributes:
        conversations: Conversations that were compared.
        items: Items that should be stored.
        lost: Of them, those that are not.
        duplicated: Items that are stored more often than they were said.
        out_of_order: Conversations that hold the right items in another order.
        misheard: Answers that are not the ones that are stored, or named another position.
    """

    conversations: int = 0
    items: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    misheard: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.out_of_order or self.misheard)

    def add(self, said: Said, expected: Sequence[Sequence[Item]], stored: Sequence[Item]) -> None:
        """Compare one conversation.

        Args:
            said: What its user said and heard.
            expected: The items of each of its turns.
            stored: What is stored of it.
        """
        wanted = [shape for turn in expected for shape in shapes(turn)]
        found = shapes(stored)
        lost, more = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        self.conversations += 1
        self.items += len(wanted)
        self.lost += lost.total()
        self.duplicated += more.total()
        self.out_of_order += not lost and not more and wanted != found
        position = 0
        for turn, heard in zip(expected, said.answers, strict=True):
            position += len(turn)
            text = "".join(part["text"] for part in turn[-1]["content"])
            self.misheard += heard != Answer(text=text, position=position)


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
        fields = json.loads(line)
        answers = [Answer.model_validate(heard) for heard in fields["answers"]]
        said = Said(fields["conversation"], fields["messages"], answers)
        stored = primary.lrange(f"agents:ha:{{{said.conversation}}}:items", 0, -1)
        result.add(said, recorded_model().turns_of(said.messages), [json.loads(item) for item in stored])
    return result


if __name__ == "__main__":
    found = verdict(Path(sys.argv[1]))
    print(json.dumps(vars(found)))
    sys.exit(not found.is_whole)
