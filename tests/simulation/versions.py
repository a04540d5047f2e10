"""Which version each batch was confirmed with, as the replies said on their way: no caller is told."""

from __future__ import annotations

import re
from collections import defaultdict

from agents_redis_ha._commands import load_script
from tests.simulation.flows import Flow

_WRITES = tuple(
    text for name in ("append", "replace", "turn_finish") for text in (load_script(name).sha, load_script(name).source)
)
_SESSION = re.compile(rb"\{([^}]+)\}:items")
_BATCH = re.compile(rb'"campaign":\s*"([^":]+):(\d+):')
_MADE = re.compile(rb"\*[34]\r\n:[01]\r\n:(\d+)\r\n\$12\r\n")


class Versions:
    """Watches requests that write a batch, and their replies.

    Attributes:
        made: The versions, by session and batch.
        by: The server that told the last of them.
    """

    def __init__(self) -> None:
        self.made: dict[tuple[str, tuple[str, int]], set[int]] = defaultdict(set)
        self.by: dict[tuple[str, tuple[str, int]], str] = {}
        self._under_way: dict[Flow, tuple[str, tuple[str, int]]] = {}

    def asked(self, flow: Flow, data: bytes) -> None:
        """Note a request."""
        self._under_way.pop(flow, None)
        if b'"campaign"' in data and any(text in data for text in _WRITES):
            session, batch = _SESSION.search(data), _BATCH.search(data)
            if session and batch:
                self._under_way[flow] = session[1].decode(), (batch[1].decode(), int(batch[2]))

    def answered(self, flow: Flow, data: bytes) -> None:
        """Note a reply."""
        which = self._under_way.get(flow)
        if which is not None and (made := _MADE.search(data)):
            self.made[which].add(int(made[1]))
            self.by[which] = flow.server
            del self._under_way[flow]
