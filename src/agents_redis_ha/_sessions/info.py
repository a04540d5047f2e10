"""What Redis keeps about a session besides its items."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from .._commands import Description, LogPosition, TurnInfo, moment
from ..errors import ConfigurationError

__all__ = ["SessionInfo", "SessionVersion", "expected_position", "session_info"]


class SessionVersion(int):
    """The number of a session's newest change, which also tells its history from any other one with that number.

    Versions begin at 1 again where a session expired, or was cleared long ago. So a number that was kept for long may
    meet another conversation. This one does not: it holds a digest of the history too. Where it leaves the process, as
    in an HTTP ETag, send `token`: a bare number is compared as a number alone.

    Attributes:
        digest: What names the history; empty where the session has no change.
    """

    digest: str

    def __new__(cls, number: int, digest: str = "") -> SessionVersion:
        """Return a version."""
        self = super().__new__(cls, number)
        self.digest = digest
        return self

    @property
    def token(self) -> str:
        """Number and digest as text, such as ``7-5f1d0c2b9a3e``: what ``expected_version`` takes too."""
        return f"{int(self)}-{self.digest}"


_TOKEN = re.compile(r"(\d+)-([0-9a-f]*)", re.ASCII)


def expected_position(expected_version: int | str | None) -> LogPosition | None:
    """Return the end of the log that a caller expects; None for any.

    Raises:
        ConfigurationError: It is no version. Nothing was sent.
    """
    if expected_version is None:
        return None
    if isinstance(expected_version, str) and (token := _TOKEN.fullmatch(expected_version)):
        return LogPosition(int(token[1]), token[2].encode())
    if isinstance(expected_version, int) and not isinstance(expected_version, bool) and expected_version >= 0:
        digest = expected_version.digest if isinstance(expected_version, SessionVersion) else ""
        return LogPosition(int(expected_version), digest.encode())
    raise ConfigurationError("expected_version", "must be a session's version, 0 or more, or its token")


@dataclass(frozen=True)
class SessionInfo:
    """What Redis keeps about a session.

    Attributes:
        session_id: The session's id.
        exists: Whether it was begun and neither cleared nor expired; one whose last item was popped still exists.
        item_count: Number of stored elements, corrupt ones included.
        created_at: Time of the first item since the session was new or cleared (UTC, the server's clock), or None.
        updated_at: Time of the last change, or None.
        version: Number of changes so far, counted on for a while after a clear; 0 if there is no session. It also
            tells this history from a later one with that number.
        generation: Number of changes so far that were no appends.
        ttl_seconds: Seconds until it expires, or None if it does not.
        turn: The turn that has it now, for which others wait; None if none has.
    """

    session_id: str
    exists: bool
    item_count: int
    created_at: datetime | None
    updated_at: datetime | None
    version: SessionVersion
    generation: int
    ttl_seconds: float | None
    turn: TurnInfo | None = None


def session_info(session_id: str, found: Description) -> SessionInfo:
    """Return in the user's terms what the servers told."""
    exists = found.length > 0 or found.created_ms is not None
    return SessionInfo(
        session_id=session_id,
        exists=exists,
        item_count=found.length,
        created_at=_moment(found.created_ms),
        updated_at=_moment(found.updated_ms),
        version=SessionVersion(found.version, found.digest.decode()),
        generation=found.generation,
        ttl_seconds=found.ttl_ms / 1000 if found.ttl_ms >= 0 and exists else None,
        turn=found.turn[0] if found.turn else None,
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else moment(milliseconds)
