"""When a session counts as removed by its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents_redis_ha import session_keys
from agents_redis_ha.lab import Node
from tests.failover.campaign.evictions import Evictions
from tests.failover.campaign.history import Op

KEYS = session_keys("p", "s")
PARTS = [key.decode() for key in (KEYS.items, KEYS.meta, KEYS.ops)]


@pytest.fixture
def evictions(tmp_path: Path) -> Evictions:
    found = Evictions(Node("data-1", 1, tmp_path, (), {}), "p")
    for key in PARTS:
        found.take("found", key)
    return found


def test_a_session_is_removed_when_its_last_key_is_evicted(evictions: Evictions) -> None:
    for key in PARTS[:2]:
        evictions.take("evicted", key)
    assert evictions.removals == []
    evictions.take("evicted", PARTS[2])
    assert [(removal.session, removal.op) for removal in evictions.removals] == [("s", Op.CLEAR)]
    assert evictions.keys == 3


def test_a_key_that_is_written_again_is_there(evictions: Evictions) -> None:
    evictions.take("evicted", PARTS[0])
    evictions.take("rpush", PARTS[0])
    for key in PARTS[1:]:
        evictions.take("evicted", key)
    assert evictions.removals == []


def test_a_session_of_which_a_fence_alone_is_left_is_removed(evictions: Evictions) -> None:
    evictions.take("evicted", PARTS[1])
    evictions.take("rpush", PARTS[0])
    evictions.take("hset", PARTS[1])  # a process misses it
    evictions.take("evicted", PARTS[0])
    assert evictions.removals == []
    evictions.take("evicted", PARTS[2])
    assert len(evictions.removals) == 1
    evictions.take("hset", PARTS[1])  # by another process
    evictions.take("evicted", PARTS[1])
    assert len(evictions.removals) == 1


def test_a_change_makes_all_keys_anew(evictions: Evictions) -> None:
    evictions.take("evicted", PARTS[1])
    evictions.take("rpush", PARTS[0])
    evictions.take("rpush", PARTS[2])
    evictions.take("hset", PARTS[1])
    for key in (PARTS[0], PARTS[2]):
        evictions.take("evicted", key)
    assert evictions.removals == []


def test_a_session_that_was_cleared_is_not_removed_by_the_server(evictions: Evictions) -> None:
    for key in PARTS[1:]:
        evictions.take("evicted", key)
    evictions.take("del", PARTS[0])
    assert evictions.removals == []


def test_other_keys_on_the_server_do_not_count(evictions: Evictions) -> None:
    evictions.take("evicted", "other:1")
    assert evictions.keys == 0
