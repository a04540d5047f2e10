"""What servers send to each other: replication's messages.

The handshake (PING, AUTH, REPLCONF, PSYNC) is one message and its answer here.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.resp import wire_size

from .keyspace import Data

__all__ = ["Ack", "Batch", "Continue", "FullSync", "Psync", "Refused", "Snapshot", "Stream", "batch_of"]

_MULTI_AND_EXEC = 15 + 14  # bytes


class Batch(NamedTuple):
    """Commands that a replica runs together or not at all.

    Attributes:
        commands: Each with its arguments.
        size: Bytes of the replication stream, MULTI and EXEC among them.
    """

    commands: list[list[bytes]]
    size: int


def batch_of(commands: list[list[bytes]], *, in_multi: bool) -> Batch:
    """Return a batch with its size."""
    return Batch(commands, sum(map(wire_size, commands)) + (_MULTI_AND_EXEC if in_multi else 0))


class Psync(NamedTuple):
    """A replica asks for the stream.

    Attributes:
        replid: The replication id that it has; ``?`` for a full sync.
        offset: The first byte that it misses.
        port: Where it listens.
        user: Whose password follows.
        password: What it signs in with; empty for none.
    """

    replid: str
    offset: int
    port: int
    user: bytes
    password: bytes


class Refused(NamedTuple):
    """The primary does not sync now; the error reply."""

    text: str


class Continue(NamedTuple):
    """The stream goes on where the replica is, under this replication id."""

    replid: str


class FullSync(NamedTuple):
    """A snapshot follows, taken at this offset."""

    replid: str
    offset: int


class Snapshot(NamedTuple):
    """The snapshot; before 7.0 it carries the scripts, too."""

    data: Data
    scripts: dict[bytes, bytes]


class Stream(NamedTuple):
    """A part of the stream, and the offset behind it."""

    batch: Batch
    end: int


class Ack(NamedTuple):
    """A replica tells how far it is, in memory and on its disk."""

    offset: int
    fsynced: int
