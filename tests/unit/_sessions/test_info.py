"""What the servers tell of a session, in the user's terms."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from agents_redis_ha import ConfigurationError, SessionInfo, SessionVersion
from agents_redis_ha._commands import Description, LogPosition, ReplicationHistory
from agents_redis_ha._commands.state import turn_that_holds
from agents_redis_ha._sessions.info import expected_position, session_info

DIGEST = b"0123456789ab"
THERE = Description(
    3, 4500, 1_700_000_000_250, 1_700_000_001_000, 7, 2, DIGEST, None, False, (), ReplicationHistory("h:1", "1f")
)
NOTHING: dict[str, Any] = {"length": 0, "created_ms": None, "updated_ms": None}
ABSENT = replace(THERE, ttl_ms=-2, version=0, generation=0, digest=b"", **NOTHING)


def test_a_session_is_described_with_times_in_utc_and_seconds() -> None:
    assert session_info("u", THERE) == SessionInfo(
        session_id="u",
        exists=True,
        item_count=3,
        created_at=datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=timezone.utc),
        updated_at=datetime(2023, 11, 14, 22, 13, 21, tzinfo=timezone.utc),
        version=SessionVersion(7, "0123456789ab"),
        generation=2,
        ttl_seconds=4.5,
    )


def test_a_session_that_was_never_begun_does_not_exist() -> None:
    assert session_info("u", ABSENT) == SessionInfo("u", False, 0, None, None, SessionVersion(0), 0, None)


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


GRANTED_MS, LEASE_MS = 1_700_000_000_000, 30_000
HOLDER = b"token %d 30000 %d 2 a turn \xed\xa0\x80" % (GRANTED_MS + LEASE_MS, GRANTED_MS - 5000)


def seconds(moment: datetime) -> float:
    return moment.timestamp() - GRANTED_MS / 1000


@pytest.mark.parametrize(
    ("now_ms", "until"),
    [
        (GRANTED_MS, 30),
        (GRANTED_MS + 29_999, 30),
        (GRANTED_MS - 60_000, -30),  # the clock was put back: no lease is longer than it was granted for
    ],
)
def test_a_turn_has_the_session_until_its_lease_is_over(now_ms: int, until: int) -> None:
    found = turn_that_holds(HOLDER, now_ms)
    assert found is not None
    turn, token = found
    assert (turn.id, turn.attempt, token) == ("a turn \ud800", 2, b"token")
    assert (seconds(turn.held_since), seconds(turn.held_until)) == (-5, until)
    assert session_info("u", replace(THERE, turn=found)).turn == turn


@pytest.mark.parametrize("holder", [HOLDER, b"token 0 0 0 0 t1", b"", b"token 99999999999999 t1"])
def test_no_turn_has_the_session_once_its_lease_is_over_or_it_was_given_back(holder: bytes) -> None:
    assert turn_that_holds(holder, GRANTED_MS + LEASE_MS) is None


@pytest.mark.parametrize(("ttl_ms", "seconds"), [(-1, None), (-2, None), (0, 0.0), (1, 0.001)])
def test_a_lifetime_is_told_where_there_is_one(ttl_ms: int, seconds: float | None) -> None:
    assert session_info("u", replace(THERE, ttl_ms=ttl_ms)).ttl_seconds == seconds


def test_the_lifetime_of_what_a_clear_leaves_behind_is_not_the_sessions() -> None:
    left = session_info("u", replace(ABSENT, ttl_ms=60_000, version=8))
    assert (left.ttl_seconds, left.version) == (None, 8)


VERSION = SessionVersion(7, "0123456789ab")


def test_a_version_is_a_number_that_also_tells_its_history() -> None:
    told = session_info("u", THERE).version
    assert (told, told.digest, told.token) == (7, "0123456789ab", "7-0123456789ab")
    assert isinstance(told, int)
    assert (json.dumps(told), f"{told}", told + 1) == ("7", "7", 8)
    assert session_info("u", ABSENT).version.token == "0-"


@pytest.mark.parametrize("made_again", [copy.copy, copy.deepcopy, lambda version: pickle.loads(pickle.dumps(version))])
def test_a_copy_of_a_version_tells_the_same_history(made_again: Callable[[SessionVersion], SessionVersion]) -> None:
    again = made_again(VERSION)
    assert (type(again), again, again.digest, again.token) == (SessionVersion, 7, VERSION.digest, VERSION.token)


@pytest.mark.parametrize(
    ("expected", "position"),
    [
        (None, None),  # any
        (VERSION, (7, b"0123456789ab")),
        (VERSION.token, (7, b"0123456789ab")),
        (7, (7, b"")),  # a bare number is compared as a number alone
        (0, (0, b"")),
        (SessionVersion(0), (0, b"")),
        ("0-", (0, b"")),
    ],
)
def test_an_expected_version_is_the_end_of_a_log(expected: int | str | None, position: LogPosition | None) -> None:
    assert expected_position(expected) == position


@pytest.mark.parametrize(
    "expected",
    [
        *(True, False, -1, 7.0, b"7-0123456789ab", SessionVersion(-1)),
        *("x", "", "7", "-", "-0123456789ab", "7-0123456789AB", "7-0123456789ab ", "7-0123456789ab\n", "\u0667-0123"),
    ],
)
def test_what_is_no_version_is_refused(expected: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected_version"):
        expected_position(expected)
