"""A command on its way: what its attempts share."""

from __future__ import annotations

import pytest

from agents_redis_ha._commands import LogPosition
from agents_redis_ha._connections.request import Request
from tests.support.fake_nodes import command


def test_a_request_was_not_sent_before_its_first_attempt() -> None:
    assert not Request(command(), LogPosition(4, b"id"), lambda node: None).sent


def test_a_position_that_stays_serves_in_place_of_a_log() -> None:
    assert Request(command(), LogPosition(4, b"id"), lambda node: None).known.position == (4, b"id")


def test_an_attempt_leaves_nothing_else_on_a_request() -> None:
    asked = Request(command(), LogPosition(4, b"id"), lambda node: None)
    with pytest.raises(AttributeError):
        asked.node = "h:1"  # type: ignore[attr-defined]
