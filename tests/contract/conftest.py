"""What the tests of lost and kept history share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from agents_redis_ha import lab
from tests.support.history import History, Workers


@pytest.fixture
def history(servers: lab.Lab, session_id: str) -> History:
    return History(servers, session_id)


@pytest.fixture
async def workers(servers: lab.Lab, session_id: str) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stores:
        yield Workers(servers, session_id, stores)
