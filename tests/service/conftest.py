"""The chat service without Docker: its code in this process, on a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from agents import set_tracing_disabled

from agents_redis_ha import SessionStore

os.environ.pop("RECORDINGS", None)  # the packaged recordings, whatever a fleet on this machine talks about


@pytest.fixture(autouse=True)
def not_traced() -> None:
    set_tracing_disabled(True)


@pytest.fixture
async def store(labs: Any) -> AsyncIterator[SessionStore]:
    async with SessionStore(labs.get("standalone").config()) as opened:
        yield opened


@pytest.fixture
def conversation() -> str:
    return f"secret-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def stored(store: SessionStore, conversation: str) -> Callable[[], object]:
    """Reads the conversation."""
    return store.session(conversation).get_items
