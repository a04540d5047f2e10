"""Keys that move to another member: MIGRATE, which holds the source up until the target has answered."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.redis.connection import BLOCKED
from tests.simulation.redis.keyspace import size_of
from tests.simulation.redis.registry import OK, RefusalError, Reply
from tests.simulation.resp import Failure, Simple

from .messages import Migrated, Migration

if TYPE_CHECKING:
    from tests.simulation.redis.connection import Connection
    from tests.simulation.redis.server import Link, Server

__all__ = ["Arrival", "migrate"]

_TIMEOUT = "IOERR error or timeout reading to target instance"


class Arrival:
    """The target's end."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server, self._link = server, link

    def receive(self, message: object) -> None:
        """Take keys."""
        assert isinstance(message, Migration)
        error = self._store(message)
        self._link.send(Migrated(error), 20)

    def _store(self, message: Migration) -> str | None:
        server = self._server
        if server.load.is_loading:
            return "ERR Target instance replied with error: LOADING Redis is loading the dataset in memory"
        if server.replication.primary is not None:
            return "ERR Target instance replied with error: READONLY You can't write against a read only replica."
        for key, (value, expires) in message.keys.items():
            if not message.replaces and server.keyspace.get(key) is not None:
                return "ERR Target instance replied with error: BUSYKEY Target key name already exists."
            server.keyspace.store(key, value if isinstance(value, bytes) else value.copy())
            if expires is not None:
                server.keyspace.expires[key] = expires
                server.expiry_changed(expires)
            payload = marshal.dumps((value, expires))
            server.replication.feed([[b"RESTORE", key, b"%d" % (expires or 0), payload, b"ABSTTL", b"REPLACE"]])
        return None

    def closed(self) -> None:
        """Take notice that the link is gone."""


def migrate(
    server: Server,
    client: Connection,
    address: tuple[str, int],
    keys: Sequence[bytes],
    seconds: float,
    *,
    replaces: bool,
) -> Reply:
    """Answer MIGRATE: the keys leave when the target has them."""
    keyspace = server.keyspace
    found = {key: (value, keyspace.expires.get(key)) for key in keys if (value := keyspace.get(key)) is not None}
    if not found:
        return Simple(b"NOKEY")
    if server.dial is None:
        raise RefusalError("IOERR error or timeout connecting to the client")
    departure = _Departure(server, client, list(found))
    link = server.dial(*address, departure.answered, departure.failed)
    if link is None:
        raise RefusalError("IOERR error or timeout connecting to the client")
    departure.link = link
    link.send(Migration(found, replaces), sum(size_of(key, value) for key, (value, _) in found.items()))
    server.after(seconds, departure.failed)
    client.block()
    server.load.begin_hold()
    return BLOCKED


class _Departure:
    """The source's end."""

    def __init__(self, server: Server, client: Connection, keys: list[bytes]) -> None:
        self._server, self._client, self._keys = server, client, keys
        self._is_over = False
        self.link: Link | None = None

    def answered(self, message: object) -> None:
        """Delete what the target has."""
        assert isinstance(message, Migrated)
        if self._is_over:
            return
        if message.error is None:
            for key in self._keys:
                self._server.keyspace.delete(key)
            self._server.replication.feed([[b"DEL", *self._keys]])
        self._end(OK if message.error is None else Failure(message.error.encode()))

    def failed(self) -> None:
        """Give up: the target may have the keys or not."""
        if not self._is_over:
            self._end(Failure(_TIMEOUT.encode()))

    def _end(self, reply: Reply) -> None:
        self._is_over = True
        if self.link is not None:
            self.link.close()
        unblock = self._client.unblock
        self._server.load.end_hold()
        if unblock is not None:
            unblock(reply)
