"""A command on its way: what its attempts share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agents_redis_ha._commands import EarlierAttempts, LogPosition
from agents_redis_ha._connections.request import Request
from tests.support.fake_nodes import FakePool, command, fake_node

POSITION = LogPosition(4, b"digest")


def test_a_request_was_not_sent_before_its_first_attempt() -> None:
    assert not Request(command(), POSITION, lambda node: None).sent


def test_a_position_that_stays_serves_in_place_of_a_log() -> None:
    assert Request(command(), POSITION, lambda node: None).known.position == POSITION


def test_an_attempt_leaves_nothing_else_on_a_request() -> None:
    asked = Request(command(), POSITION, lambda node: None)
    with pytest.raises(AttributeError):
        asked.node = "h:1"  # type: ignore[attr-defined]


def test_a_request_has_no_earlier_attempts_at_first_and_shares_them_with_no_other() -> None:
    first, second = (Request(command(), POSITION, lambda node: None) for _ in range(2))
    assert first.earlier == EarlierAttempts()
    assert first.earlier is not second.earlier


async def test_each_attempt_tells_the_lowest_version_that_was_known_when_one_was_made() -> None:
    # None of the attempts before made this version or an older one: so far back the server looks for their id.
    pool, log = FakePool(), SimpleNamespace(position=POSITION)
    asked = Request(command(), log, lambda node: None)
    for version in (5, 7, 3, 9):
        log.position = LogPosition(version, b"digest")
        await fake_node(pool).execute(asked)
        asked.earlier.may_be_applied = version == 3
    told = [tuple(commands[0][9:11]) for commands in pool.written]
    assert told == [(b"5", b""), (b"5", b""), (b"3", b""), (b"3", b"!digest")]
    assert asked.earlier.since == LogPosition(3, b"digest")


def test_a_request_shows_no_item() -> None:
    assert "item" not in repr(Request(command(), LogPosition(4, b"id"), print))
