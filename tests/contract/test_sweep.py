"""After an empty restart the conversations that were used lately come back, also those that are not used again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from agents_redis_ha import SessionStore, lab, session_keys
from tests.support.history import PATIENT, message, say

CONVERSATIONS = 20


@pytest.mark.parametrize("next_use", ["one of them", "a new one"])
async def test_after_an_empty_restart_all_conversations_come_back_with_the_next_operation(
    topology: str, servers: lab.Lab, new_id: Callable[[], str], next_use: str
) -> None:
    durability = "primary" if topology in ("standalone", "tls") else "replicas=1"
    async with SessionStore(servers.config(durability=durability, retry=PATIENT, op_retention_seconds=300)) as store:
        primary = servers.primary()
        on_primary = (id_ for id_ in iter(new_id, None) if topology != "cluster" or holds(servers, id_) == primary)
        known = list(itertools.islice(on_primary, CONVERSATIONS))
        for id_ in known:
            await say(store.session(id_), "one", "two")
        await asyncio.to_thread(servers.restart_empty, primary)
        await asyncio.to_thread(servers.wait_ready)
        used = known[0] if next_use == "one of them" else next(on_primary)
        await store.session(used).add_items([message("three")])

        def length(id_: str) -> int:
            return int(servers.client(holds(servers, id_)).llen(session_keys("agents:ha", id_).items))

        def missing() -> list[str]:
            return [id_ for id_ in known if id_ != used and length(id_) != 2]

        await asyncio.to_thread(lab.wait_until, lambda: not missing(), lambda: f"these to come back: {missing()}")


def holds(servers: lab.Lab, session_id: str) -> lab.Node:
    """Return the primary that holds a session."""
    return servers.primary(session_keys("agents:ha", session_id).items)
