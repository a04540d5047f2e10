"""What the tests of the Sentinel locator share: its clock, and a world that it has found the primary of."""

from __future__ import annotations

from typing import Any

import pytest

from agents_redis_ha._connections import sentinel, sentinel_state
from tests.support.fake_sentinels import Clock, World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (sentinel, sentinel_state):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def world(clock: Clock) -> Any:
    world = World(clock)
    assert await world.primary() == "old:1"
    yield world
    await world.locator.aclose()
