"""Clients that wait for replicas or disks: WAIT and WAITAOF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.resp import Failure

from .connection import BLOCKED
from .registry import Reply

if TYPE_CHECKING:
    from .connection import Connection
    from .replication import Replication
    from .server import Server, Timer

__all__ = ["Waiting"]


class _Wait:
    """One client that waits."""

    __slots__ = ("client", "local", "offset", "replicas", "timer")

    def __init__(self, client: Connection, offset: int, replicas: int, local: int | None) -> None:
        self.client, self.offset, self.replicas, self.local = client, offset, replicas, local
        self.timer: Timer | None = None


class Waiting:
    """The clients of one server that wait."""

    def __init__(self, server: Server, replication: Replication) -> None:
        self._server, self._replication = server, replication
        self._all: list[_Wait] = []

    def wait(self, client: Connection, replicas: int, local: int | None, seconds: float) -> Reply:
        """Answer at once, or when enough have the client's last change, or after a time (0: never)."""
        wait = _Wait(client, client.write_offset, replicas, local)
        if self._suffices(wait) or self._server.executor.in_exec:
            return self._answer(wait)
        self._all.append(wait)
        client.block()
        if seconds:
            wait.timer = self._server.after(seconds, lambda: self._later(wait))
        self._server.executor.asks_for_acks = True
        return BLOCKED

    def _answer(self, wait: _Wait) -> Reply:
        replicas = self._replication.replicas
        if wait.local is None:
            return replicas.count(wait.offset)
        return [int(self._server.disk.fsynced_offset >= wait.offset), replicas.count_fsynced(wait.offset)]

    def _suffices(self, wait: _Wait) -> bool:
        found = self._answer(wait)
        if wait.local is None:
            return bool(found >= wait.replicas)
        return bool(found[0] >= wait.local and found[1] >= wait.replicas)

    def look(self) -> None:
        """Answer those who have waited long enough for replicas and disks."""
        for wait in [each for each in self._all if self._suffices(each)]:
            self._end(wait, self._answer(wait))

    def _later(self, wait: _Wait) -> None:
        if not self._server.load.later(self._time_out, wait):
            self._time_out(wait)

    def _time_out(self, wait: _Wait) -> None:
        if wait in self._all:
            self._end(wait, self._answer(wait))

    def _end(self, wait: _Wait, reply: Reply) -> None:
        self._all.remove(wait)
        if wait.timer is not None:
            wait.timer.cancel()
        if wait.client.unblock is not None:
            wait.client.unblock(reply)

    def give_up(self, client: Connection) -> None:
        """Answer a client now."""
        for wait in [each for each in self._all if each.client is client]:
            self._end(wait, self._answer(wait))

    def end_all(self, error: str) -> None:
        """Answer all with an error and close their connections: the server is no primary any more."""
        for wait in list(self._all):
            wait.client.end_after_reply()
            self._end(wait, Failure(error.encode()))
