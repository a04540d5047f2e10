"""The chat service without Docker: its code in this process, on a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from agents import set_tracing_disabled
from fleet.chat import recorded_model

from agents_redis_ha import SessionStore
from agents_redis_ha.demo.conversations import Item

os.environ.pop("RECORDINGS", None)  # the packaged recordings, whatever a fleet on this machine talks about
LONGEST = max(recorded_model().said, key=lambda messages: len(recorded_model().turns_of(messages)[0]))
"""The recorded conversation with the longest first turn: it calls functions several times."""


@pytest.fixture(autouse=True)
def not_traced() -> None:
    set_tracing_disabled(True)


@pytest.fixture
async def store(labs) -> AsyncIterator[SessionStore]:
    async with SessionStore(labs.get("standalone").config()) as opened:
        yield opened


@pytest.fixture
def conversation() -> str:
    return f"secret-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def stored(store: SessionStore, conversation: str) -> Callable[[], object]:
    """Reads the conversation."""
    return store.session(conversation).get_items


def expected(messages: list[str]) -> list[Item]:
    return [item for turn in recorded_model().turns_of(messages) for item in turn]
