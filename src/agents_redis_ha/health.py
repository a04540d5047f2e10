"""Whether the servers can take writes now, told by their roles, and how far the replicas are behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from .config import Topology
from .connections import Locator
from .connections.node import Node
from .verdicts import AttemptError

__all__ = ["Health", "PrimaryHealth", "ReplicaHealth", "check_health"]


@dataclass(frozen=True)
class ReplicaHealth:
    """A replica as its primary sees it.

    Attributes:
        address: ``host:port``.
        online: Whether the replication link is up.
        lag_bytes: Bytes of the replication stream that it has not acknowledged.
        lag_seconds: Seconds since its last acknowledgement (whole seconds; one a second is normal).
    """

    address: str
    online: bool
    lag_bytes: int
    lag_seconds: int | None


@dataclass(frozen=True)
class PrimaryHealth:
    """A node that should take writes.

    Attributes:
        address: ``host:port``.
        role: What it says of itself: ``master``, ``slave``, or ``unknown`` where it does not answer or may not say.
        round_trip_seconds: Time of one small request, or None without an answer.
        replicas: Its replicas; empty also where INFO is not permitted.
    """

    address: str
    role: str
    round_trip_seconds: float | None
    replicas: tuple[ReplicaHealth, ...] = ()


@dataclass(frozen=True)
class Health:
    """What `SessionStore.health` found.

    Attributes:
        ok: Whether every primary answers as one and nothing else is wrong.
        topology: ``standalone``, ``sentinel`` or ``cluster``.
        primaries: The nodes that should take writes.
        problems: What is wrong, in words; empty if ``ok``.
    """

    ok: bool
    topology: Topology
    primaries: tuple[PrimaryHealth, ...]
    problems: tuple[str, ...]


async def check_health(locator: Locator, timeout_seconds: float) -> Health:
    """Return how the servers are; never raises for what is wrong with them.

    Args:
        locator: Knows the primaries.
        timeout_seconds: After this, whoever has not answered counts as not answering.
    """
    try:
        nodes = await asyncio.wait_for(locator.primaries(), timeout_seconds)
    except asyncio.TimeoutError:
        return Health(False, locator.topology, (), (f"no primary found within {timeout_seconds:g} s",))
    except AttemptError as error:
        return Health(False, locator.topology, (), (str(error.cause),))
    found = await asyncio.gather(*(_look_at(node, timeout_seconds) for node in nodes))
    problems = [problem for _, its_problems in found for problem in its_problems]
    problems += await locator.problems()
    return Health(not problems, locator.topology, tuple(primary for primary, _ in found), tuple(problems))


async def _look_at(node: Node, timeout_seconds: float) -> tuple[PrimaryHealth, list[str]]:
    since = time.perf_counter()
    try:
        (role,) = await asyncio.wait_for(node.call(("ROLE",)), timeout_seconds)
    except (AttemptError, asyncio.TimeoutError) as error:
        reason = str(error) or f"no answer within {timeout_seconds:g} s"
        return PrimaryHealth(node.name, "unknown", None), [f"{node.name} does not answer: {reason}"]
    round_trip = time.perf_counter() - since
    name = bytes(role[0]).decode()
    if name != "master":
        return PrimaryHealth(node.name, name, round_trip), [f"{node.name} is a replica, not a primary"]
    replicas = await _replicas(node, timeout_seconds)
    problems = [f"replica {r.address} of {node.name} is not linked" for r in replicas if not r.online]
    return PrimaryHealth(node.name, name, round_trip, replicas), problems


async def _replicas(node: Node, timeout_seconds: float) -> tuple[ReplicaHealth, ...]:
    try:
        (info,) = await asyncio.wait_for(node.call(("INFO", "replication")), timeout_seconds)
    except (AttemptError, asyncio.TimeoutError):
        return ()  # managed services may not permit it; the role is what counts
    lines = dict(line.split(":", 1) for line in bytes(info).decode().splitlines() if ":" in line)
    offset = int(lines.get("master_repl_offset", 0))
    return tuple(_replica(value, offset) for key, value in lines.items() if key[:5] == "slave" and key[5:].isdigit())


def _replica(line: str, offset: int) -> ReplicaHealth:
    """Read ``ip=…,port=…,state=online,offset=…,lag=…``."""
    fields = dict(part.split("=", 1) for part in line.split(","))
    lag = fields.get("lag")
    return ReplicaHealth(
        address=f"{fields['ip']}:{fields['port']}",
        online=fields.get("state") == "online",
        lag_bytes=max(0, offset - int(fields.get("offset", 0))),
        lag_seconds=None if lag is None else int(lag),
    )
