"""What is stored, read from the servers themselves and past the library's read path."""

from __future__ import annotations

import json
from collections.abc import Iterable

from agents_redis_ha import session_keys
from agents_redis_ha.lab import Lab
from tests.failover.campaign.marks import Mark, find_mark


def read_stored(servers: Lab, prefix: str, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
    """Return each session's items, oldest first; None for an element without a mark of that session."""
    stored: dict[str, list[Mark | None]] = {}
    for name in sessions:
        key = session_keys(prefix, name).items
        with servers.client(servers.primary(key)) as client:
            elements = client.lrange(key, 0, -1)
        stored[name] = [_mark_of(element, name) for element in elements]
    return stored


def _mark_of(element: bytes, session: str) -> Mark | None:
    try:
        return find_mark(json.loads(element), session)
    except ValueError:
        return None
