"""The end of a link that another server opened: its first message says what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .links import Psync

if TYPE_CHECKING:
    from .connection import Connection
    from .registry import Command, Reply
    from .server import Link, Server

__all__ = ["ClusterNode", "FarEnd", "LinkUser"]


class LinkUser(Protocol):
    """What takes the messages of a link."""

    def receive(self, message: object) -> None:
        """Take a message."""

    def closed(self) -> None:
        """Take notice that the link is gone."""


class ClusterNode(Protocol):
    """A server's part in a cluster (tests/simulation/bus.py)."""

    def check(self, client: Connection, found: Command, argv: Sequence[bytes]) -> None:
        """Raise the redirection for a request that is another node's."""

    def refusal_within_script(self, client: Connection, found: Command, argv: Sequence[bytes]) -> str | None:
        """Say why a script may not touch a key here."""

    def accept(self, peer: str, link: Link, message: Any) -> LinkUser | None:
        """Take a link that another node opened."""

    def answer(self, argv: list[bytes]) -> Reply:
        """Answer CLUSTER …"""

    def migrate(
        self, client: Connection, address: tuple[str, int], keys: Sequence[bytes], seconds: float, *, replaces: bool
    ) -> Reply:
        """Answer MIGRATE."""

    def close(self) -> None:
        """End with the process."""

    def restarted(self) -> None:
        """Begin again with a new process."""


class FarEnd:
    """A link that another server opened."""

    def __init__(self, server: Server, peer: str, link: Link) -> None:
        self._server, self._peer, self._link = server, peer, link
        self._user: LinkUser | None = None
        self._is_open = True

    def cut(self) -> None:
        """Close the link, since the process has ended."""
        if self._is_open:
            self._is_open = False
            self._link.close()

    def receive(self, message: object) -> None:
        """Take a message."""
        if not self._server.load.later(self._take, message):
            self._take(message)

    def _take(self, message: object) -> None:
        if not self._is_open or not self._server.is_up:
            return
        if self._user is not None:
            self._user.receive(message)
        elif isinstance(message, Psync):
            self._user = self._server.replication.replicas.accept(self._peer, self._link, message)
        elif self._server.cluster is not None:
            self._user = self._server.cluster.accept(self._peer, self._link, message)

    def closed(self) -> None:
        """Take notice that the link is gone."""
        if not self._server.load.later(self._end, None):
            self._end(None)

    def _end(self, _: object) -> None:
        self._is_open = False
        self._server.ends.pop(self, None)
        if self._user is not None:
            self._user.closed()
