"""The log of a session: its positions, its entries, and what one change of it did. Pure.

The words are Raft's (https://raft.github.io/raft.pdf, section 5.3): each change is an entry of the session's log, its
version is the entry's index, and its digest stands for the term. A digest is made of the digest before it and of the
change's id. So equal positions mean equal histories, whatever was lost, repeated or begun anew. A client sends the
position that it knows along, as Raft's leader sends prevLogIndex and prevLogTerm; a server whose log does not match
refuses the change.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .. import _ambient as ambient

__all__ = [
    "KEEP_ALL",
    "MOST_TURNS",
    "NO_POSITION",
    "PUBLICATION_LENGTH",
    "WIPED",
    "Change",
    "ListEdit",
    "LogEntry",
    "LogPosition",
    "OpsRecord",
    "Positioned",
    "PublishedTurn",
    "ReplicationHistory",
    "Status",
    "chain",
    "publication_of",
    "published_unseen",
]

KEEP_ALL = (0, None)
MOST_TURNS = 1024
"""That a session remembers."""
PUBLICATION_LENGTH = 10
"""Of what tells in the id of a change which turn it published (`publication_of`)."""

# A drawn id begins like the id of a publication once in 2^20: that leaves a field that no turn asks for.
_PUBLICATION = re.compile(rb"[0-9a-f]{%d}" % PUBLICATION_LENGTH)

_DIGEST_BYTES = 12  # 48 bits: two histories are compared at one version at a time, so chance needs no more


def chain(digest: bytes, id_: bytes) -> bytes:
    """Return the digest behind a change, as prelude.lua makes it.

    Args:
        digest: The digest before the change; empty before the first one.
        id_: The change's id.
    """
    return hashlib.sha1(digest + id_, usedforsecurity=False).hexdigest()[:_DIGEST_BYTES].encode()


class Status(enum.IntEnum):
    """What a changing script did: the first element of its reply (prelude.lua)."""

    REPEAT = 0
    """The change was there already, from an earlier attempt; nothing was changed."""
    APPLIED = 1
    """The change was made."""
    CONFLICT = 2
    """The session is not as the caller saw it; nothing was changed."""
    UNSURE = 3
    """The newest element does not look like an item; nothing was changed."""
    LOG_MISMATCH = 4
    """The server's log does not hold the position that the caller knows; nothing was changed."""
    UNCHANGED = 5
    """There was nothing to change."""
    UNTOLD = 6
    """The server evicted what would tell whether an earlier attempt was applied; nothing was changed."""
    BUSY = 7
    """A turn has the session, and the change is none of its; nothing was changed."""


class LogPosition(NamedTuple):
    """A position in a session's log.

    Attributes:
        version: Number of the newest change; 0 is before the first one.
        digest: What names the history up to this version; empty before the first change, and where it is not known.
    """

    version: int
    digest: bytes

    @property
    def position(self) -> LogPosition:
        """The position itself: a fixed position can stand where a log is expected."""
        return self


class Positioned(Protocol):
    """What a command's log position is read from, anew for each attempt."""

    @property
    def position(self) -> LogPosition:
        """The latest position that is known."""


class OpsRecord(NamedTuple):
    """What ``ops`` holds of a change.

    Attributes:
        version: The version that it made.
        id: Its id; empty where it is not known.
        digest: The digest behind it; empty where it is not known.
    """

    version: int
    id: bytes
    digest: bytes


NO_POSITION = LogPosition(0, b"")
"""Before the first change, or: nothing is known."""


class ReplicationHistory(NamedTuple):
    """Which data a server answered from (https://redis.io/docs/latest/operate/oss_and_stack/management/replication/).

    Redis draws a new replication id whenever a server starts or is promoted. While node and id stay the same, the
    server has lost nothing.

    Attributes:
        node: ``host:port``, or the Unix socket's path.
        replication_id: Its id; None where it is not told.
    """

    node: str
    replication_id: str | None


@dataclass(slots=True)  # not frozen, as all that each append makes: that would cost it 2.4 µs
class ListEdit:
    """What a change did to the list of elements: ``elements[keep[0]:keep[1]] + push``."""

    keep: tuple[int, int | None] = KEEP_ALL
    push: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes of its elements."""
        return sum(map(len, self.push))

    def apply(self, elements: list[bytes]) -> list[bytes]:
        """Return what it makes of a whole list."""
        return [*elements[slice(*self.keep)], *self.push]


def _now() -> float:
    return ambient.monotonic()  # looked up at each call, not at import: another clock may stand in for it


class PublishedTurn(NamedTuple):
    """What is kept of a turn that a change has published.

    Attributes:
        id: The turn's id.
        attempt: Which of its attempts it was, counted from 1.
        message_digest: What tells its message from others.
        token: Of the grant that published it.
        payload: Its result.
        retention_ms: Milliseconds for which it is remembered.
        most: How many turns of the session are.
    """

    id: bytes
    attempt: int
    message_digest: bytes
    token: bytes
    payload: bytes
    retention_ms: int
    most: int


WIPED = PublishedTurn(b"", 0, b"", b"", b"", 0, 0)
"""Stands among published turns for a clear: what turns hold from before it is dropped."""


def publication_of(turn_id: bytes) -> bytes:
    """Return with what the id of the change begins that publishes a turn, as turning.lua makes it.

    Args:
        turn_id: The turn's id.
    """
    return hashlib.sha1(b"turn:" + turn_id, usedforsecurity=False).hexdigest()[:PUBLICATION_LENGTH].encode()


def published_unseen(
    records: Iterable[OpsRecord], turns: Iterable[PublishedTurn], retention_ms: int
) -> Iterator[PublishedTurn]:
    """Yield the turns of which no more is known than the id of the change that published them.

    None is the id of a turn: that is UTF-8.

    Args:
        records: The changes.
        turns: What is known of the turns that were published with them.
        retention_ms: Milliseconds for which turns are remembered.
    """
    seen = {publication_of(turn.id) for turn in turns}
    for record in records:
        begins = _PUBLICATION.match(record.id)
        if begins and begins[0] not in seen:
            yield PublishedTurn(b"\xff" + begins[0], 1, b"-", b"-", b"", retention_ms, MOST_TURNS)


@dataclass(slots=True)
class LogEntry:
    """One change, with all that is needed to make it again.

    Attributes:
        version: The version that it made.
        id: Its id.
        digest: The digest behind it.
        edit: What it did to the list; None if that cannot be repeated.
        result: What its repeat returns; None for nothing.
        turn: The turn that it published, if it did.
        made_at: When it was confirmed, by `ambient.monotonic` (seconds); it does not count when entries are compared.
    """

    version: int
    id: bytes
    digest: bytes
    edit: ListEdit | None = field(repr=False)
    result: bytes | None = field(default=None, repr=False)
    turn: PublishedTurn | None = field(default=None, repr=False)
    made_at: float = field(default_factory=_now, compare=False)

    @property
    def size(self) -> int:
        """Bytes of elements that it keeps, put in and taken out."""
        payload = len(self.turn.id) + len(self.turn.payload) if self.turn else 0
        return (self.edit.size if self.edit else 0) + len(self.result or b"") + payload

    @property
    def appends(self) -> bool:
        """Whether it only adds elements to the end."""
        return self.edit is not None and self.edit.keep == KEEP_ALL

    @property
    def clears(self) -> bool:
        """Whether it removes all elements, and what turns hold."""
        return self.edit is not None and self.edit.keep == (0, 0) and not self.edit.push and self.result is not None

    @property
    def record(self) -> OpsRecord:
        """What stands in ``ops`` for it."""
        return OpsRecord(self.version, self.id, self.digest)


@dataclass(slots=True)
class Change:
    """What a changing command did.

    Attributes:
        status: Whether the change is there, and why not.
        version: The version that it made, or the one that the session has.
        digest: Its digest, where it is told.
        history: Which server's data that is.
        entry: The change as it can be made again; None if nothing was changed.
        result_lost: Whether the server should tell a result and has it no more.
        holder: The token of the turn that has the session, where the change was refused for it.
        lost_to: To what the turn is lost that the change would have published, in a word.
    """

    status: Status
    version: int
    digest: bytes
    history: ReplicationHistory
    entry: LogEntry | None = None
    result_lost: bool = False
    holder: bytes = b""
    lost_to: str = ""

    @property
    def result(self) -> bytes | None:
        """What the change returned."""
        return self.entry.result if self.entry else None

    @property
    def position(self) -> LogPosition:
        """The position of that version."""
        return LogPosition(self.version, self.digest)

    @property
    def log_mismatch(self) -> bool:
        """Whether it was not made, since the server's log does not hold the position that was sent along."""
        return self.status is Status.LOG_MISMATCH
