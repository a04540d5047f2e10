"""Replication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.simulation.resp import wire_size

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["Replication"]


class Replication:
    """One server's part in replication.

    Attributes:
        primary: Whose replica it is; None for a primary.
        offset: Bytes of the replication stream so far.
        is_read_only: Whether a replica refuses writes.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.primary: Any = None
        self.offset = 0
        self.is_read_only = True
        self.id = f"{server.random.getrandbits(160):040x}"

    @property
    def is_stale(self) -> bool:
        """Whether it is a replica that lost its primary and may not serve what it has."""
        return False

    @property
    def has_enough_replicas(self) -> bool:
        """Whether as many replicas are well as ``min-replicas-to-write`` asks for."""
        return True

    def feed(self, effects: Sequence[list[bytes]], *, in_multi: bool = False) -> None:
        """Send one batch to the replicas."""
        self.offset += sum(map(wire_size, effects))

    def publish(self, argv: list[bytes]) -> None:
        """Send a message on a channel to the replicas."""

    def described(self) -> dict[str, object]:
        """Return what INFO says."""
        return {"role": "master", "connected_slaves": 0, "master_replid": self.id, "master_repl_offset": self.offset}

    def role(self) -> Any:
        """Return what ROLE says."""
        return [b"master", self.offset, []]

    def promote(self) -> None:
        """Become a primary (REPLICAOF NO ONE)."""

    def follow(self, host: str, port: int) -> Any:
        """Become a replica."""
        raise NotImplementedError

    def wait(self, client: Connection, replicas: int, seconds: float) -> Any:
        """Answer WAIT."""
        return 0

    def wait_for_disks(self, client: Connection, local: int, replicas: int, seconds: float) -> Any:
        """Answer WAITAOF."""
        return [local, 0]

    def drop_replicas(self) -> int:
        """Close the links of all replicas; return their number."""
        return 0

    def give_up_waiting(self, client: Connection) -> None:
        """End a WAIT now (CLIENT UNBLOCK)."""
