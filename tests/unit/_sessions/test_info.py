"""What the servers tell of a session, in the user's terms."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from agents_redis_ha import SessionInfo
from agents_redis_ha._commands import NO_POSITION, Description, ReplicationHistory
from agents_redis_ha._sessions.info import session_info

THERE = Description(
    3, 4500, 1_700_000_000_250, 1_700_000_001_000, 7, 2, 0, (), ReplicationHistory("h:1", "1f"), NO_POSITION
)
ABSENT = replace(THERE, length=0, ttl_ms=-2, created_ms=None, updated_ms=None, version=0, generation=0)


def test_a_session_is_described_with_times_in_utc_and_seconds() -> None:
    assert session_info("u", THERE) == SessionInfo(
        session_id="u",
        exists=True,
        item_count=3,
        created_at=datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=timezone.utc),
        updated_at=datetime(2023, 11, 14, 22, 13, 21, tzinfo=timezone.utc),
        version=7,
        generation=2,
        ttl_seconds=4.5,
    )


def test_a_session_that_was_never_begun_does_not_exist() -> None:
    assert session_info("u", ABSENT) == SessionInfo("u", False, 0, None, None, 0, 0, None)


@pytest.mark.parametrize(
    ("told", "exists"),
    [
        ({"length": 0}, True),  # its last item was popped
        ({"length": 0, "created_ms": None}, False),  # cleared: what is left counts versions for a while
        ({"length": 3, "created_ms": None}, True),  # meta expired before the items
    ],
)
def test_a_session_exists_from_its_beginning_until_it_is_cleared(told: dict[str, Any], exists: bool) -> None:
    assert session_info("u", replace(THERE, **told)).exists is exists


@pytest.mark.parametrize(("ttl_ms", "seconds"), [(-1, None), (-2, None), (0, 0.0), (1, 0.001)])
def test_a_lifetime_is_told_where_there_is_one(ttl_ms: int, seconds: float | None) -> None:
    assert session_info("u", replace(THERE, ttl_ms=ttl_ms)).ttl_seconds == seconds


def test_the_lifetime_of_what_a_clear_leaves_behind_is_not_the_sessions() -> None:
    left = session_info("u", replace(ABSENT, ttl_ms=60_000, version=8))
    assert (left.ttl_seconds, left.version) == (None, 8)
