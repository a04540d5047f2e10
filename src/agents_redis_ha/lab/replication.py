"""Whether replicas follow their primary, as both sides tell it."""

from __future__ import annotations

from collections.abc import Iterable

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
