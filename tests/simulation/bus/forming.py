"""A cluster that has formed: shards, slots and epochs as redis-cli leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tests.simulation.redis.server import Server

from .member import Member
from .peer import Peer
from .slots import SLOTS, interned

__all__ = ["form"]


@lru_cache
def _span(first: int, end: int) -> frozenset[int]:
    return interned(frozenset(range(first, end)))


def form(shards: Sequence[Sequence[Server]], ids: Sequence[str] = ()) -> list[Member]:
    """Return the members that servers become, shard by shard; each replica follows its primary from now on.

    Args:
        shards: Of each its servers, the primary first. The slots are divided evenly.
        ids: The ids of all, in this order; drawn from the servers' randomness if there are none.
    """
    servers = [server for shard in shards for server in shard]
    drawn = list(ids) or [f"{server.random.getrandbits(160):040x}" for server in servers]
    id_of = dict(zip((server.name for server in servers), drawn, strict=True))
    bounds = [SLOTS * at // len(shards) for at in range(len(shards) + 1)]

    none = interned(frozenset())
    owners: list[str | None] = []
    for at, (primary, *_) in enumerate(shards):
        owners += [id_of[primary.name]] * (bounds[at + 1] - bounds[at])

    def peers() -> list[Peer]:
        found = []
        for at, (primary, *replicas) in enumerate(shards):
            slots = _span(bounds[at], bounds[at + 1])
            primary_id = id_of[primary.name]
            found.append(Peer(primary_id, primary.host, primary.port, None, slots, at + 1))
            found += [Peer(id_of[each.name], each.host, each.port, primary_id, none, 0) for each in replicas]
        return found

    members = [Member(server, id_of[server.name], peers(), owners, len(servers)) for server in servers]
    for primary, *replicas in shards:
        for each in replicas:
            each.replication.follow(primary.host, primary.port)
    return members
