"""What one Sentinel knows of its service: the primary, the replica that it is just promoting, the other Sentinels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from .. import _ambient as ambient
from .._config import Address

__all__ = ["SentinelState", "ask"]

# Of a failover's states (sentinel.c, sentinelFailoverStateStr) those in which a replica is chosen and not yet promoted.
_PROMOTING = ("send_slaveof_noone", "wait_promotion")
# A Sentinel sends a PING 1 s after the last answer (sentinel.c, SENTINEL_PING_PERIOD), one turn of its timer (0.1 s)
# later at most. An answer that is older than this is overdue.
_PING_PERIOD_SECONDS = 1.2


@dataclass(frozen=True)
class SentinelState:
    """What one Sentinel knows.

    Attributes:
        address: Of the primary.
        epoch: The configuration epoch under which the primary was elected.
        down: Whether this Sentinel considers it down.
        lease_until: Seconds by `time.monotonic`; until then this Sentinel's word for the primary holds.
        quorum: How many Sentinels must consider it down before another one can be elected.
        promoted_replica: The replica that it has chosen and is about to tell, or has told, to become the primary. Only
            the Sentinel that leads the failover knows.
        run_id: The run id of the primary's process; None where it is not known.
        sentinels: How many Sentinels there are by its count, itself among them.
        others: The other Sentinels: their ids and where they are. None where it was not asked, or may not tell.
    """

    address: Address
    epoch: int
    down: bool
    lease_until: float = 0.0
    quorum: int = 1
    promoted_replica: Address | None = None
    run_id: str | None = None
    sentinels: int = 1
    others: Mapping[str, Address] | None = None

    def names(self, other: SentinelState) -> bool:
        """Whether the other Sentinel names the same primary, maybe in another spelling (host name, address)."""
        return self.address == other.address or (self.run_id is not None and self.run_id == other.run_id)


async def ask(sentinel: Redis, service: str, lease_seconds: float, *, list_others: bool = False) -> SentinelState:
    """Return what one Sentinel knows; the state of the failover counts, as in SENTINEL GET-MASTER-ADDR-BY-NAME.

    Args:
        sentinel: A client of it.
        service: The primary's name in its configuration.
        lease_seconds: How long its word holds at most, from the question on.
        list_others: Whether to ask for the other Sentinels, too.
    """
    asked_at = ambient.monotonic()
    # Any: redis-py types both replies as unions with what their other options return.
    reply: Any = await sentinel.sentinel_master(service)
    named_now: Any = await sentinel.sentinel_get_master_addr_by_name(service)
    host, port = named_now or (reply["ip"], reply["port"])
    address = Address(host.decode() if isinstance(host, bytes) else host, int(port))
    # Once a promoted replica is named, the epoch is that of the failover, but the flags are the old primary's.
    before = (reply["ip"], int(reply["port"])) != tuple(address)
    return SentinelState(
        address,
        int(reply["config-epoch"]),
        down=not before and bool(reply["is_sdown"] or reply["is_odown"]),
        lease_until=asked_at + min(_patience_seconds(reply), lease_seconds - _overdue_seconds(reply)),
        quorum=int(reply.get("quorum", 1)),
        promoted_replica=await _promoted_replica(sentinel, service)
        if reply.get("failover-state") in _PROMOTING
        else None,
        run_id=None if before else reply.get("runid") or None,
        sentinels=int(reply.get("num-other-sentinels", 0)) + 1,
        others=await _others(sentinel, service) if list_others else None,
    )


def _patience_seconds(reply: Mapping[str, Any]) -> float:
    """Return how long this Sentinel cannot consider the primary down.

    It does when a PING is unanswered for down-after-milliseconds; last-ping-sent is the age of the PING that is open
    now, 0 if none is. Without a connection, the age of the last answer counts (sentinel.c,
    sentinelCheckSubjectivelyDown).
    """
    silence = "last-ok-ping-reply" if reply.get("is_disconnected") else "last-ping-sent"
    return (int(reply.get("down-after-milliseconds", 0)) - int(reply.get(silence, 0))) / 1000


def _overdue_seconds(reply: Mapping[str, Any]) -> float:
    """Return for how long the primary has owed this Sentinel an answer that it would have given if it were well."""
    return max(0.0, int(reply.get("last-ok-ping-reply", 0)) / 1000 - _PING_PERIOD_SECONDS)


async def _promoted_replica(sentinel: Redis, service: str) -> Address | None:
    try:
        replicas: Any = await sentinel.sentinel_slaves(service)
    except redis_errors.ResponseError:  # its user may not: then the announcement is waited for
        return None
    found = (Address(replica["ip"], int(replica["port"])) for replica in replicas if "promoted" in replica["flags"])
    return next(found, None)


async def _others(sentinel: Redis, service: str) -> Mapping[str, Address] | None:
    try:
        rows: Any = await sentinel.sentinel_sentinels(service)
    except redis_errors.ResponseError:  # its user may not: then the configured ones are all that can be asked
        return None
    return {row["runid"]: Address(row["ip"], int(row["port"])) for row in rows}
