"""What of a server outlives its process: snapshots, and the append-only file, of which a power cut takes the end.

Left out: snapshots by the clock (the ``save`` directive), the time that writing takes, and rewrites of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .connection import Connection
from .keyspace import Data
from .registry import RefusalError, find

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Disk", "Saved"]

_AT_ONCE = 0.002  # seconds that a flush takes where the last one was more than a second ago


class Saved(NamedTuple):
    """A snapshot, and which history it is of."""

    data: Data
    replid: str
    offset: int


_EMPTY: Data = ({}, {})


class Disk:
    """The files of one server.

    Attributes:
        save_fails: Whether the last snapshot could not be written: a primary refuses writes then (MISCONF).
        snapshot: The last one; None if there is none.
        log: The batches since the append-only file was begun.
        flushed: How many of them are on the disk for certain.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.save_fails = False
        self.snapshot: Saved | None = None
        self._base: Data = _EMPTY
        self.log: list[list[list[bytes]]] = []
        self.flushed = 0
        self._offset = 0
        self._flushes = False
        self._is_recent = False

    @property
    def fsynced_offset(self) -> int:
        """The replication offset up to which all is on the disk."""
        config = self._server.config
        if config["appendonly"] != "yes":
            return 0
        return self._server.replication.offset if config["appendfsync"] == "always" else self._offset

    def note(self, effects: list[list[bytes]]) -> None:
        """Append a batch to the append-only file."""
        config = self._server.config
        if not config.appends:
            return
        self.log.append(effects)
        if config["appendfsync"] == "always":
            self.flushed = len(self.log)
        elif not self._flushes and config["appendfsync"] == "everysec":
            self._flushes = True
            if not self._is_recent:
                self._server.after(_AT_ONCE, self._flush)

    def _flush(self) -> None:
        self._flushes = False
        self.flushed = len(self.log)
        self._offset = self._server.replication.offset
        self._is_recent = True
        self._server.after(1.0, self._next)
        self._server.replication.waiting.look()

    def _next(self) -> None:
        self._is_recent = False
        if self._flushes:
            self._flush()

    def save(self) -> None:
        """Write a snapshot."""
        if self.save_fails:
            raise RefusalError("ERR")
        replication = self._server.replication
        self.snapshot = Saved(self._server.keyspace.copy_data(), replication.id, replication.offset)

    def rewrite(self) -> None:
        """Begin the append-only file anew with the data as it is, as after a full sync."""
        self._base, self.log = self._server.keyspace.copy_data(), []
        self.flushed, self._offset = 0, self._server.replication.offset

    def load(self, batches: int) -> None:
        """Fill the empty server from so many batches of the append-only file; the rest of it is gone."""
        server = self._server
        server.keyspace.load_data(self._base)
        del self.log[batches:]
        self.flushed = len(self.log)
        client = Connection(server, "file", 0, lambda data: None, lambda: None)
        client.is_primary, client.user = True, server.users.everything
        server.keyspace.ignores_expiry = True
        for effects in self.log:
            for argv in effects:
                found = find(argv)
                if found is not None:
                    server.executor.call(client, found, argv)
        server.keyspace.ignores_expiry = False
        server.executor.effects = []

    def process_ended(self) -> None:
        """Forget what only the process knew."""
        self._flushes = self._is_recent = False
        self._offset = 0
