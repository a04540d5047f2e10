"""What of a server outlives its process: snapshots and the append-only file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Disk"]


class Disk:
    """The files of one server.

    Attributes:
        save_fails: Whether the last snapshot could not be written: a primary refuses writes then (MISCONF).
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.save_fails = False

    def save(self) -> None:
        """Write a snapshot."""
