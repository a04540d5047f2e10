"""What one Sentinel knows of its service: the primary, and the replica that it is just promoting."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from .._config import Address

__all__ = ["SentinelState", "ask"]

# Of a failover's states (sentinel.c, sentinelFailoverStateStr) those in which a replica is chosen and not yet promoted.
_PROMOTING = ("send_slaveof_noone", "wait_promotion")


@dataclass(frozen=True)
class SentinelState:
    """What one Sentinel knows.

    Attributes:
        address: Of the primary.
        epoch: The configuration epoch under which the primary was elected.
        down: Whether this Sentinel considers it down.
        lease_until: Seconds by `time.monotonic`; before that, this Sentinel cannot consider the primary down.
        quorum: How many Sentinels must consider it down before another one can be elected.
        promoted_replica: The replica that it has chosen and is about to tell, or has told, to become the primary. Only
            the Sentinel that leads the failover knows.
    """

    address: Address
    epoch: int
    down: bool
    lease_until: float = 0.0
    quorum: int = 1
    promoted_replica: Address | None = None


async def ask(sentinel: Redis, service: str) -> SentinelState:
    """Return what one Sentinel knows; the state of the failover counts, as in SENTINEL GET-MASTER-ADDR-BY-NAME."""
    asked_at = time.monotonic()
    # Any: redis-py types both replies as unions with what their other options return.
    reply: Any = await sentinel.sentinel_master(service)
    named_now: Any = await sentinel.sentinel_get_master_addr_by_name(service)
    host, port = named_now or (reply["ip"], reply["port"])
    address = Address(host.decode() if isinstance(host, bytes) else host, int(port))
    # Once a promoted replica is named, the epoch is that of the failover, but the flags are the old primary's.
    before = (reply["ip"], int(reply["port"])) != tuple(address)
    down = not before and bool(reply["is_sdown"] or reply["is_odown"])
    promoted = await _promoted_replica(sentinel, service) if reply.get("failover-state") in _PROMOTING else None
    # A Sentinel considers a primary down when a PING is unanswered for down-after-milliseconds; last-ping-sent is
    # the age of the PING that is open now, 0 if none is (sentinel.c, sentinelCheckSubjectivelyDown).
    patience_ms = int(reply.get("down-after-milliseconds", 0)) - int(reply.get("last-ping-sent", 0))
    lease_until = asked_at + patience_ms / 1000
    return SentinelState(address, int(reply["config-epoch"]), down, lease_until, int(reply.get("quorum", 1)), promoted)


async def _promoted_replica(sentinel: Redis, service: str) -> Address | None:
    try:
        replicas: Any = await sentinel.sentinel_slaves(service)
    except redis_errors.ResponseError:  # its user may not: then the announcement is waited for
        return None
    found = (Address(replica["ip"], int(replica["port"])) for replica in replicas if "promoted" in replica["flags"])
    return next(found, None)
