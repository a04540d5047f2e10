"""Real local servers for one run, and what is in them at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from .. import RetryConfig, create_client, lab
from .sessions import (
    LEASE_SECONDS,
    SessionKind,
    SessionPlan,
    items_key,
    open_source,
)

DemoTopology = Literal["standalone", "sentinel", "cluster", "tls"]
FaultName = Literal["none", "kill", "stall", "move-slot"]

TOPOLOGIES: tuple[DemoTopology, ...] = ("standalone", "sentinel", "cluster", "tls")
FAULTS: tuple[FaultName, ...] = ("none", "kill", "stall", "move-slot")

DETECTION_MS = 1000
"""How long a primary may be silent until the servers count it as down."""


def has_successor(topology: DemoTopology) -> bool:
    """Whether another server takes over when the primary is gone."""
    return topology in ("sentinel", "cluster")


@contextmanager
def start_servers(topology: DemoTopology) -> Iterator[lab.Lab]:
    """Start the servers of a topology, and end them afterwards.

    A server that has no successor comes back with what is in its file, so it is told to sync each
    write to disk before it answers. With the default, ``everysec``, a power cut takes up to a
    second of acknowledged turns along.
    """
    durable = {} if has_successor(topology) else {"appendfsync": "always"}
    with lab.start(
        "standalone" if topology == "tls" else topology,
        tls=topology == "tls",
        persist=True,
        config=durable,
        down_after_ms=DETECTION_MS,
        node_timeout_ms=DETECTION_MS,
    ) as servers:
        yield servers


def read_stored(plan: SessionPlan, conversation_ids: Sequence[str]) -> list[list[Any]]:
    """Read the items of conversations straight from the servers that hold them, with redis-py's own client.

    Returns:
        Of each conversation the elements of its list, in order; one that is not JSON as its text.
    """

    async def read() -> list[list[Any]]:
        client: Any = create_client(plan.config)  # Any: redis-py types replies as maybe awaitable
        try:
            keys = (items_key(plan.kind, plan.config, one) for one in conversation_ids)
            return [[_decode(element) for element in await client.lrange(key.decode(), 0, -1)] for key in keys]
        finally:
            await client.aclose()

    return asyncio.run(read())


def _decode(element: bytes | str) -> Any:
    try:
        return json.loads(element)
    except ValueError:
        return repr(element)


def read_through_sessions(plan: SessionPlan, conversation_ids: Sequence[str]) -> list[list[Any] | None]:
    """Read the same through the sessions, as a next turn would; ``None`` where that fails."""

    async def read() -> list[list[Any] | None]:
        source = open_source(plan)
        found: list[list[Any] | None] = []
        try:
            for conversation_id in conversation_ids:
                try:
                    async with source.session(conversation_id) as session:
                        found.append(list(await session.get_items()))
                except Exception:  # noqa: BLE001 (whatever a session raises: the report counts it)
                    found.append(None)
        finally:
            await source.close()
        return found

    return asyncio.run(read())


def plan_for(kind: SessionKind, servers: lab.Lab) -> SessionPlan:
    """How workers reach these servers."""
    return SessionPlan(kind, servers.config(retry=RetryConfig(deadline_seconds=LEASE_SECONDS)))
