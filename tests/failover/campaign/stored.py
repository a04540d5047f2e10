"""What is stored, read from the servers themselves and past the library's read path."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agents_redis_ha import session_keys
from agents_redis_ha.lab import Lab
from tests.failover.campaign.history import BatchId
from tests.failover.campaign.marks import Mark, find_mark, is_turn


def read_stored(
    servers: Lab, prefix: str, sessions: Iterable[str]
) -> tuple[dict[str, list[Mark | None]], dict[tuple[str, BatchId], str]]:
    """Return each session's items, oldest first, and the answer of each turn.

    None stands for an element without a mark of that session. The answer is the text of a turn's last item.
    """
    stored: dict[str, list[Mark | None]] = {}
    answers: dict[tuple[str, BatchId], str] = {}
    for name in sessions:
        key = session_keys(prefix, name).items
        with servers.client(servers.primary(key)) as client:
            items = [_item_of(element) for element in client.lrange(key, 0, -1)]
        stored[name] = [find_mark(item, name) for item in items]
        for item, mark in zip(items, stored[name], strict=True):
            if mark is not None and is_turn(mark) and mark.place == mark.size - 1:
                answers[name, mark.batch] = item["content"]
    return stored, answers


def _item_of(element: bytes) -> Any:
    try:
        return json.loads(element)
    except ValueError:
        return None
