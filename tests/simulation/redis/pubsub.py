"""Channels: Sentinels tell of themselves over a data server's ``__sentinel__:hello``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.resp import Push

from .connection import BLOCKED
from .registry import Reply, command
from .users import glob

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["PubSub"]


class PubSub:
    """Who listens to what on one server; patterns are kept with ``*`` in front."""

    def __init__(self) -> None:
        self._listeners: dict[bytes, dict[int, Connection]] = {}

    def add(self, client: Connection, channel: bytes) -> None:
        """Have a client listen."""
        client.channels[channel] = None
        self._listeners.setdefault(channel, {})[client.id] = client

    def remove(self, client: Connection, channel: bytes) -> None:
        """Have it listen no more."""
        client.channels.pop(channel, None)
        found = self._listeners.get(channel)
        if found is not None:
            found.pop(client.id, None)
            if not found:
                del self._listeners[channel]

    def leave(self, client: Connection) -> None:
        """Have it listen to nothing."""
        for channel in list(client.channels):
            self.remove(client, channel)

    def publish(self, channel: bytes, message: bytes) -> int:
        """Tell the listeners; return how many there are."""
        count = 0
        for client in list(self._listeners.get(b"=" + channel, {}).values()):
            client.push(Push([b"message", channel, message]))
            count += 1
        for name, clients in list(self._listeners.items()):
            if name[:1] == b"*" and glob(name[1:]).fullmatch(channel):
                for client in list(clients.values()):
                    client.push(Push([b"pmessage", name[1:], channel, message]))
                    count += 1
        return count


_FLAGS = "no_script loading stale"


def _subscribe(kind: bytes, mark: bytes) -> None:
    is_pattern = mark == b"*"

    @command(kind.decode(), -2, _FLAGS, categories="pubsub slow")
    def subscribe(server: Server, client: Connection, argv: list[bytes]) -> Reply:
        for name in argv[1:]:
            server.pubsub.add(client, mark + name)
            client.push(Push([kind, name, len(client.channels)]))
        return BLOCKED

    @command("p" * is_pattern + "unsubscribe", -1, _FLAGS, categories="pubsub slow")
    def unsubscribe(server: Server, client: Connection, argv: list[bytes]) -> Reply:
        named = argv[1:] or [each[1:] for each in client.channels if each[:1] == mark]
        word = b"p" * is_pattern + b"unsubscribe"
        for name in named:
            server.pubsub.remove(client, mark + name)
            client.push(Push([word, name, len(client.channels)]))
        if not named:
            client.push(Push([word, None, len(client.channels)]))
        return BLOCKED


_subscribe(b"subscribe", b"=")
_subscribe(b"psubscribe", b"*")


@command("publish", 3, "loading stale may_replicate", categories="pubsub fast")
def publish(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PUBLISH channel message; replicas get it, too."""
    server.replication.publish(argv)
    return server.pubsub.publish(argv[1], argv[2])
