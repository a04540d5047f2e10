"""After an empty restart the conversations that were used lately come back, also those that are not used again."""

from __future__ import annotations

import asyncio
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
        known, primary = [new_id() for _ in range(CONVERSATIONS)], servers.primary()
        if topology == "cluster":  # all on the server that will be restarted
            known = [id_ for id_ in (new_id() for _ in range(100)) if holds(servers, id_) == primary][:CONVERSATIONS]
        for id_ in known:
            await say(store.session(id_), "one", "two")
        await asyncio.to_thread(servers.restart_empty, primary)
        await asyncio.to_thread(servers.wait_ready)
        used = known[0] if next_use == "one of them" else new_id()
        while next_use == "a new one" and holds(servers, used) != primary:
            used = new_id()
        await store.session(used).add_items([message("three")])

        def length(id_: str) -> int:
            return int(servers.client(holds(servers, id_)).llen(session_keys("agents:ha", id_).items))

        def all_are_back() -> bool:
            return [length(id_) for id_ in known if id_ != used] == [2] * (CONVERSATIONS - (used in known))

        await asyncio.to_thread(lab.wait_until, all_are_back, "all conversations are back", 60)


def holds(servers: lab.Lab, session_id: str) -> lab.Node:
    """Return the primary that holds a session."""
    return servers.primary(session_keys("agents:ha", session_id).items)
