"""What a server says of a session. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .change import OPERATION_ID_BYTES, LogPosition, ReplicationHistory

__all__ = ["Description", "Member", "Reading", "ServerState"]

Member = tuple[int, bytes]
"""A member of ``ops`` behind its score: a version and the id that made it, or that id with its result."""


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
        fence: The highest version that a process misses here, which fences writes; 0 if none does.
        members: The newest changes, as in ``ops``, back to the position that was sent; empty if nothing is new.
        history: Which server's data that is.
        sent_position: The log position that was sent along.
    """

    length: int
    ttl_ms: int
    created_ms: int | None
    updated_ms: int | None
    version: int
    generation: int
    fence: int
    members: tuple[Member, ...]
    history: ReplicationHistory
    sent_position: LogPosition

    @property
    def log_mismatch(self) -> bool:
        """Whether the server's log does not hold the position that was sent, or writes are fenced."""
        version, id_ = self.sent_position
        if self.fence or self.version < version:
            return True
        there = [member for at, member in self.members if at == version and len(member) == OPERATION_ID_BYTES]
        return bool(id_ and there and id_ not in there)


@dataclass(frozen=True)
class Reading:
    """The newest elements of a session.

    Attributes:
        session: The session that they are of.
        count: Number of elements that were read.
        joined: The elements, with the separator between two of them.
        separator: ``,<number>,`` with a number drawn at random for this reading.
    """

    session: Description
    count: int
    joined: bytes
    separator: bytes

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
        length: Number of its elements.
        fence: The highest version that a process misses here, which fences writes; 0 if none does.
        fence_age_seconds: Time since the fence was raised.
        members: The newest changes, as in ``ops``.
        hints: What other processes know of the changes that are missing, packed.
        history: Which server's data that is.
    """

    version: int
    generation: int
    length: int
    fence: int
    fence_age_seconds: float
    members: tuple[Member, ...]
    hints: tuple[bytes, ...]
    history: ReplicationHistory

    @property
    def ids(self) -> dict[int, bytes]:
        """The ids of the changes that it remembers, by version."""
        return {version: id_ for version, id_ in self.members if len(id_) == OPERATION_ID_BYTES}

    @property
    def position(self) -> LogPosition:
        """The end of its log."""
        return LogPosition(self.version, self.ids.get(self.version, b""))
