"""What a server says of a session. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .change import NO_POSITION, LogPosition, OpsRecord, ReplicationHistory

__all__ = ["Description", "Reading", "ServerState", "TurnInfo", "moment", "turn_that_holds"]


@dataclass(frozen=True)
class TurnInfo:
    """A turn that has a session; times by the server's clock (UTC).

    Attributes:
        id: The turn's id.
        attempt: Which attempt of it is running, counted from 1.
        held_since: Since when it has the session. Where a failover dropped that, since it renewed its lease then.
        held_until: Until when others wait for it, unless it renews its lease.
    """

    id: str
    attempt: int
    held_since: datetime
    held_until: datetime


_HOLDER = re.compile(rb"(\S+) (\d+) (\d+) (\d+) (\d+) (.*)", re.DOTALL)


def turn_that_holds(holder: bytes, now_ms: int) -> tuple[TurnInfo, bytes] | None:
    """Return the turn that has the session, with its token, or None: its lease may be over, too.

    A clock that was put back makes no lease longer than it was granted for.

    Args:
        holder: The field of ``meta``.
        now_ms: The server's time.
    """
    found = _HOLDER.fullmatch(holder)
    if found is None:
        return None
    till, lease, since, attempt = map(int, found.groups()[1:5])
    left = min(till - now_ms, lease)
    if left <= 0:
        return None
    turn_id = found[6].decode("utf-8", "surrogatepass")
    return TurnInfo(turn_id, attempt, moment(since), moment(now_ms + left)), found[1]


def moment(milliseconds: int) -> datetime:
    """Return a time that a server told, in milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


@dataclass(frozen=True)
class Description:
    """What a session is; times in milliseconds since 1970 by the server's clock, None where there is no session.

    Attributes:
        length: Number of its elements.
        ttl_ms: Milliseconds until it expires; -1 never, -2 there is none.
        created_ms: When it began.
        updated_ms: When it was changed last.
        version: Its version, 0 if there is none.
        generation: Its generation: changes so far that were no appends.
        digest: What names its history up to the version.
        retention_ms: Milliseconds for which its ids are remembered: the longest that a process asked for; None where
            that is not known.
        log_mismatch: Whether the server's log does not hold the position that was sent, elements were evicted, or
            writes are fenced.
        records: The newest changes, as in ``ops``, the oldest first, back to the position that was sent.
        history: Which server's data that is.
        turn: The turn that has it, with its token; None if none has.
    """

    length: int
    ttl_ms: int
    created_ms: int | None
    updated_ms: int | None
    version: int
    generation: int
    digest: bytes
    retention_ms: int | None
    log_mismatch: bool
    records: tuple[OpsRecord, ...]
    history: ReplicationHistory
    turn: tuple[TurnInfo, bytes] | None = None

    @property
    def position(self) -> LogPosition:
        """The end of its log."""
        return LogPosition(self.version, self.digest)


@dataclass(frozen=True)
class Reading:
    """The newest elements of a session.

    Attributes:
        session: The session that they are of.
        count: Number of elements that were read.
        joined: The elements, with the separator between two of them.
        separator: ``,<number>,`` with a number drawn at random for this reading.
        is_of_version: Whether they are the elements of just that version: no change came in between.
    """

    session: Description
    count: int
    joined: bytes = field(repr=False)
    separator: bytes
    is_of_version: bool = True

    @property
    def version(self) -> int:
        """The session's version, 0 if it does not exist."""
        return self.session.version

    @property
    def length(self) -> int:
        """Number of elements that the session has."""
        return self.session.length

    @property
    def log_mismatch(self) -> bool:
        """Whether the server's log does not hold the position that was sent, or writes are fenced."""
        return self.session.log_mismatch


@dataclass(frozen=True)
class ServerState:
    """What a server has of a session, and what other processes have left there to repair it.

    Attributes:
        version: Its version.
        generation: Its generation.
        digest: What names its history up to the version.
        length: Number of its elements.
        expected_length: Number of the elements that it should have: the server evicted what is missing.
        fence: The highest version that a process misses here, which fences writes; 0 if none does.
        fence_age_seconds: Time since the fence was raised.
        evicted_at: The version with which evicted elements were given up; 0 if none were.
        records: The changes that it remembers, as in ``ops``, the oldest first.
        hints: What other processes know of the changes that are missing, packed.
        history: Which server's data that is.
        before: The position before the oldest of these changes, as far as the server remembers it.
    """

    version: int
    generation: int
    digest: bytes
    length: int
    expected_length: int
    fence: int
    fence_age_seconds: float
    evicted_at: int
    records: tuple[OpsRecord, ...]
    hints: tuple[bytes, ...] = field(repr=False)
    history: ReplicationHistory
    before: LogPosition = NO_POSITION

    @property
    def lacks_elements(self) -> bool:
        """Whether the server evicted elements."""
        return self.length < self.expected_length

    @property
    def lacks_log(self) -> bool:
        """Whether there are elements alone: the server evicted the rest, or they were put there past this library."""
        return not self.version and self.length > 0

    @property
    def ids(self) -> dict[int, bytes]:
        """The ids of the changes that it remembers, by version."""
        return {record.version: record.id for record in self.records if record.id}

    @property
    def digests(self) -> dict[int, bytes]:
        """The digests that it remembers, by version."""
        known = dict([self.before]) if self.before.digest else {}
        known.update((record.version, record.digest) for record in self.records if record.digest)
        return {**known, self.version: self.digest} if self.digest else known

    @property
    def position(self) -> LogPosition:
        """The end of its log."""
        return LogPosition(self.version, self.digest)
