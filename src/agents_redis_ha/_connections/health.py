"""Whether the servers can take writes now, told by their roles, and how far the replicas are behind."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .. import _ambient as ambient
from .._asyncio import timeout_at
from .._config import Topology
from .failures import AttemptError
from .locator import Locator
from .node import Node

__all__ = ["Health", "PrimaryHealth", "ReplicaHealth", "check_health"]


_UNGUARDED = (
    "goes on taking writes when it is cut off from its replicas: "
    "min-replicas-to-write and min-replicas-max-lag are not both set"
)

_EVICTS = "would evict conversations, or what keeps them whole: maxmemory-policy is {}, not noeviction"


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
        warnings: What works now but would not keep the data in a failure, in words.
    """

    ok: bool
    topology: Topology
    primaries: tuple[PrimaryHealth, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


async def check_health(locator: Locator, timeout_seconds: float) -> Health:
    """Return how the servers are; never raises for what is wrong with them.

    Args:
        locator: Knows the primaries.
        timeout_seconds: After this, a node that has not answered counts as not answering.
    """
    try:
        async with _within(timeout_seconds):
            nodes = await locator.primaries()
    except asyncio.TimeoutError:
        return Health(False, locator.topology, (), (f"no primary found within {timeout_seconds:g} s",))
    except AttemptError as error:
        return Health(False, locator.topology, (), (str(error),))
    found = await asyncio.gather(*(_look_at(node, timeout_seconds) for node in nodes))
    problems = [problem for look in found for problem in look.problems]
    problems += await locator.problems()
    warnings = tuple(warning for look in found for warning in look.warnings)
    return Health(not problems, locator.topology, tuple(look.primary for look in found), tuple(problems), warnings)


@dataclass(frozen=True)
class _Look:
    """What was found at one node."""

    primary: PrimaryHealth
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def _look_at(node: Node, timeout_seconds: float) -> _Look:
    since = ambient.perf_counter()
    try:
        async with _within(timeout_seconds):
            (role,) = await node.call(("ROLE",))
    except (AttemptError, asyncio.TimeoutError) as error:
        reason = str(error) or f"no answer within {timeout_seconds:g} s"
        return _Look(PrimaryHealth(node.name, "unknown", None), (f"{node.name} does not answer: {reason}",))
    round_trip = ambient.perf_counter() - since
    name = bytes(role[0]).decode()
    if name != "master":
        return _Look(PrimaryHealth(node.name, name, round_trip), (f"{node.name} is a replica, not a primary",))
    info = await _info(node, timeout_seconds)
    replicas = _replicas(info)
    problems = tuple(f"replica {r.address} of {node.name} is not linked" for r in replicas if not r.online)
    # The line is there only if both settings are (replication.c, INFO's section on replication).
    unguarded = bool(replicas) and "min_slaves_good_slaves" not in info
    policy = info.get("maxmemory_policy", "noeviction")
    found = {_UNGUARDED: unguarded, _EVICTS.format(policy): policy != "noeviction"}
    warnings = tuple(f"{node.name} {words}" for words, applies in found.items() if applies)
    return _Look(PrimaryHealth(node.name, name, round_trip, replicas), problems, warnings)


async def _info(node: Node, timeout_seconds: float) -> dict[str, str]:
    try:
        async with _within(timeout_seconds):
            sections = await node.call(("INFO", "replication"), ("INFO", "memory"))
    except (AttemptError, asyncio.TimeoutError):
        return {}
    # Managed services may not permit it; the role is what counts.
    lines = [line for section in sections if isinstance(section, bytes) for line in section.decode().splitlines()]
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _within(seconds: float) -> AbstractAsyncContextManager[object]:
    return timeout_at(asyncio.get_running_loop().time() + seconds)


def _replicas(lines: dict[str, str]) -> tuple[ReplicaHealth, ...]:
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
