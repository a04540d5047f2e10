"""The names of spans' attributes, of events and of metrics.

They follow the semantic conventions for databases (https://opentelemetry.io/docs/specs/semconv/database/) and, for the
conversation's id, for generative AI. What these do not name starts with ``agents_redis_ha``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = [
    "ATTEMPT",
    "ATTEMPTS",
    "ATTEMPT_SPAN",
    "CONNECTIONS",
    "CONNECTION_STATE",
    "CONVERSATION_ID",
    "CORRUPT",
    "DB_OPERATION_BATCH_SIZE",
    "DB_OPERATION_NAME",
    "DB_SYSTEM_NAME",
    "DURATION",
    "ERROR_TYPE",
    "FAILOVERS",
    "LOST",
    "LOST_EVENT",
    "MOST_CONNECTIONS",
    "OUTCOME",
    "PENDING_REQUESTS",
    "POOL_NAME",
    "REPEATED",
    "REPEATS",
    "RESTORED",
    "RESTORED_EVENT",
    "RETRIES",
    "RETRY_REASON",
    "RETRY_WAIT",
    "SCOPE",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "SHORTFALL",
    "TOPOLOGY",
    "UNCONFIRMED",
    "UNCONFIRMED_EVENT",
    "VERSIONS",
    "operation_on",
    "server",
]

SCOPE: Final = "agents_redis_ha"

DB_SYSTEM_NAME: Final = "db.system.name"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_OPERATION_BATCH_SIZE: Final = "db.operation.batch.size"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
POOL_NAME: Final = "db.client.connection.pool.name"
CONNECTION_STATE: Final = "db.client.connection.state"
TOPOLOGY: Final = "agents_redis_ha.topology"
ATTEMPTS: Final = "agents_redis_ha.attempts"
OUTCOME: Final = "agents_redis_ha.outcome"
REPEATED: Final = "agents_redis_ha.repeat_suppressed"
RETRY_REASON: Final = "agents_redis_ha.retry.reason"
RETRY_WAIT: Final = "agents_redis_ha.retry.wait"

ATTEMPT_SPAN: Final = "attempt"
ATTEMPT: Final = "agents_redis_ha.attempt"

UNCONFIRMED_EVENT: Final = "agents_redis_ha.unconfirmed"
SHORTFALL: Final = "agents_redis_ha.shortfall"
RESTORED_EVENT: Final = "agents_redis_ha.history_restored"
LOST_EVENT: Final = "agents_redis_ha.history_lost"
VERSIONS: Final = "agents_redis_ha.versions"

DURATION: Final = "db.client.operation.duration"
CONNECTIONS: Final = "db.client.connection.count"
MOST_CONNECTIONS: Final = "db.client.connection.max"
PENDING_REQUESTS: Final = "db.client.connection.pending_requests"
RETRIES: Final = "agents_redis_ha.retries"
REPEATS: Final = "agents_redis_ha.repeats_suppressed"
FAILOVERS: Final = "agents_redis_ha.failovers"
UNCONFIRMED: Final = "agents_redis_ha.unconfirmed"
RESTORED: Final = "agents_redis_ha.changes_restored"
LOST: Final = "agents_redis_ha.changes_lost"
CORRUPT: Final = "agents_redis_ha.corrupt_items"


@lru_cache(maxsize=256)
def server(node: str | None) -> dict[str, str | int]:
    """Return the attributes that name a node; not to be changed.

    Args:
        node: ``host:port``, a Unix socket's path, or None where no node was found.
    """
    if node is None:
        return {}
    host, _, port = node.rpartition(":")
    if not port.isdigit() or "/" in host:  # a Unix socket's path may hold a colon too
        return {SERVER_ADDRESS: node}
    return {SERVER_ADDRESS: host.strip("[]"), SERVER_PORT: int(port)}


@lru_cache(maxsize=1024)
def operation_on(node: str | None, operation: str, topology: str) -> dict[str, str | int]:
    """Return the attributes that an operation on a node has in its span and its duration; not to be changed."""
    return {DB_SYSTEM_NAME: "redis", DB_OPERATION_NAME: operation, TOPOLOGY: topology, **server(node)}
