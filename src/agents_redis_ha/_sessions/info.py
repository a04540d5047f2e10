"""What Redis keeps about a session besides its items."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from .._commands import Description

__all__ = ["SessionInfo", "session_info"]


@dataclass(frozen=True)
class SessionInfo:
    """What Redis keeps about a session.

    Attributes:
        session_id: The session's id.
        exists: Whether it was begun and neither cleared nor expired; one whose last item was popped still exists.
        item_count: Number of stored elements, corrupt ones included.
        created_at: Time of the first item since the session was new or cleared (UTC, the server's clock), or None.
        updated_at: Time of the last change, or None.
        version: Number of changes so far, counted on for a while after a clear; 0 if there is no session.
        generation: Number of changes so far that were no appends.
        ttl_seconds: Seconds until it expires, or None if it does not.
    """

    session_id: str
    exists: bool
    item_count: int
    created_at: datetime | None
    updated_at: datetime | None
    version: int
    generation: int
    ttl_seconds: float | None


def session_info(session_id: str, found: Description) -> SessionInfo:
    """Return in the user's terms what the servers told."""
    exists = found.length > 0 or found.created_ms is not None
    return SessionInfo(
        session_id=session_id,
        exists=exists,
        item_count=found.length,
        created_at=_moment(found.created_ms),
        updated_at=_moment(found.updated_ms),
        version=found.version,
        generation=found.generation,
        ttl_seconds=found.ttl_ms / 1000 if found.ttl_ms >= 0 and exists else None,
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
