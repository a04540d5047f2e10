"""Whether replicas follow their primary, as both sides tell it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from redis.exceptions import RedisError

from .node import Node


def unlinked_replica(primary: Node, replicas: Iterable[Node]) -> str | None:
    """Say what keeps a replica from following the primary; None if all do and are in sync.

    Raises:
        redis.exceptions.RedisError: One of them does not answer.
    """
    role = primary.ask("ROLE")
    if role[0] != "master":
        return f"{primary.name} to be a primary (it says: {role[0]})"
    acknowledged = {int(port): int(offset) for _, port, offset in role[2]}
    for node in replicas:
        own = node.ask("ROLE")
        if own[0] != "slave" or int(own[2]) != primary.announced_port or own[3] != "connected":
            return f"{node.name} to replicate {primary.name} (it says: {own[:4]})"
        if not acknowledged.get(node.announced_port):
            # A diskless sync counts as online before its first acknowledgement, and is sent no writes until then.
            return f"{node.name} to acknowledge the stream of {primary.name}"
    return None


def has_all_writes(replica: Node, offset: int) -> bool:
    """Return whether a replica has everything up to its primary's offset.

    Raises:
        redis.exceptions.RedisError: It does not answer.
    """
    return int(replica.ask("INFO", "replication")["slave_repl_offset"]) >= offset


def replicated_port(node: Node) -> int | None:
    """Return the port that a replica's primary announces; None for others, and if it does not answer."""
    if not node.up:
        return None
    with contextlib.suppress(RedisError):
        role = node.ask("ROLE")
        return int(role[2]) if role[0] == "slave" else None
    return None
