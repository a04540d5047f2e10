"""What the tests of the Sentinel locator share: its clock, and a world that it has found the primary of."""

from __future__ import annotations

from typing import Any

import pytest

from agents_redis_ha import _ambient as ambient
from tests.support.fake_sentinels import Clock, World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ambient, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
async def world(clock: Clock) -> Any:
    world = World(clock)
    assert await world.primary() == "old:1"
    yield world
    await world.locator.aclose()
