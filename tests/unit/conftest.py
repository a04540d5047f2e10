"""No servers: what stands in for them is in tests/support/fakes.py."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("unit", deadline=None)  # a slow machine is no counterexample
settings.load_profile("unit")


@pytest.fixture(scope="session")
def labs() -> None:
    """Take the place of the fixture that starts servers, also for those that are made of it."""
    pytest.fail("a unit test starts no servers: it belongs into another folder", pytrace=False)


@pytest.fixture(autouse=True)
def _one_way_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fakes answer the same whether or not hiredis is installed; the contract tests run on both."""
    monkeypatch.setattr("agents_redis_ha._commands.commands.HIREDIS_AVAILABLE", False)
