"""Every state of a session's queue of turns that a server ever had, as its MONITOR tells."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from agents_redis_ha import SessionKeys
from agents_redis_ha.lab import Lab, Node

__all__ = ["Change", "QueueLog", "order_of_arrival", "ticket_of"]

_CHANGE = re.compile(r"(HSET|HDEL) (\S+) (?:queue ?(.*)|format \S+ holder .* (\S+))")  # a turn id without a space


def ticket_of(turn_id: str) -> str:
    """Return by what a turn is named in the queue, as `publication_of` in turning.lua makes it."""
    return hashlib.sha1(b"turn:" + turn_id.encode(), usedforsecurity=False).hexdigest()[:10]


@dataclass(frozen=True)
class Change:
    """A change of who waits, or a grant.

    Attributes:
        waiting: The tickets that wait then, in order; of a grant, those of before.
        granted: The ticket that was granted the session; None for none.
    """

    waiting: tuple[str, ...] = ()
    granted: str | None = None


class QueueLog:
    """Reads along on one server until the end of the block.

    A replica tells what was replicated to it, and goes on when it is promoted: all that it tells is what it had.

    Attributes:
        changes: What it told.
    """

    def __init__(self, servers: Lab, node: Node, keys: SessionKeys) -> None:
        self.changes: list[Change] = [Change()]
        self._client = servers.client(node)
        self._keys = keys.turns.decode(), keys.meta.decode()
        self._monitor: Any = None
        self._reads, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"monitor of {node.name}", daemon=True)

    def __enter__(self) -> QueueLog:
        self._thread.start()
        self._reads.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._monitor.connection.disconnect()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.is_set():
            # A server that is promoted closes the connections of its clients, and one that was killed answers none.
            with (
                contextlib.suppress(RedisError, OSError, ValueError, AttributeError),
                self._client.monitor() as monitor,
            ):
                self._monitor = monitor
                queue: Any = self._client.hget(self._keys[0], "queue")
                self._take("HSET", "", (queue or b"").decode(), None)
                self._reads.set()
                for said in monitor.listen():
                    found = _CHANGE.fullmatch(said["command"])
                    if found and found[2] in self._keys:
                        self._take(*found.groups())
            self._ended.wait(0.01)

    def _take(self, name: str, _: str, queue: str | None, turn_id: str | None) -> None:
        if turn_id:
            self.changes.append(Change(self.changes[-1].waiting, ticket_of(turn_id)))
        else:
            self.changes.append(Change(tuple((queue or "").split()[::2]) if name == "HSET" else ()))


def order_of_arrival(changes: Sequence[Change]) -> tuple[list[str], set[str]]:
    """Return the tickets in the order in which they got their places, and those that lost one without a grant."""
    arrived: dict[str, None] = {}
    lapsed: set[str] = set()
    for before, now, after in zip(changes, changes[1:], [*changes[2:], Change()], strict=False):
        arrived.update(dict.fromkeys(now.waiting))
        lapsed |= {*before.waiting} - {*now.waiting, after.granted}
    return list(arrived), lapsed
