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
    "CLAIM_SPAN",
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
    "PUBLISHED_EVENT",
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
    "TAKEN_OVER_EVENT",
    "TOPOLOGY",
    "TURNS",
    "TURN_ATTEMPT",
    "TURN_COUNT",
    "TURN_DURATION",
    "TURN_HOLD",
    "TURN_ID",
    "TURN_LOST_EVENT",
    "TURN_LOST_TO",
    "TURN_PLACE",
    "TURN_RESUMED",
    "TURN_SPAN",
    "TURN_STATE",
    "TURN_STATUS",
    "TURN_TAKEN_FROM",
    "TURN_WAIT",
    "TURN_WAIT_TIME",
    "UNCONFIRMED",
    "UNCONFIRMED_EVENT",
    "VERSIONS",
    "WAITING_EVENT",
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

TURN_SPAN: Final = "ha_turn"
CLAIM_SPAN: Final = "claim_turn"
TURN_ID: Final = "agents_redis_ha.turn.id"
TURN_STATUS: Final = "agents_redis_ha.turn.status"
TURN_ATTEMPT: Final = "agents_redis_ha.turn.attempt"
TURN_RESUMED: Final = "agents_redis_ha.turn.resumed"
TURN_WAIT: Final = "agents_redis_ha.turn.wait"
TURN_HOLD: Final = "agents_redis_ha.turn.hold"

WAITING_EVENT: Final = "agents_redis_ha.turn_waiting"
TURN_PLACE: Final = "agents_redis_ha.turn.place"
TAKEN_OVER_EVENT: Final = "agents_redis_ha.turn_taken_over"
TURN_TAKEN_FROM: Final = "agents_redis_ha.turn.taken_from"
TURN_LOST_EVENT: Final = "agents_redis_ha.turn_lost"
TURN_LOST_TO: Final = "agents_redis_ha.turn.lost_to"
PUBLISHED_EVENT: Final = "agents_redis_ha.turn_published"

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
TURNS: Final = "agents_redis_ha.turns_ended"
TURN_COUNT: Final = "agents_redis_ha.turn.count"
TURN_STATE: Final = "agents_redis_ha.turn.state"
TURN_DURATION: Final = "agents_redis_ha.turn.duration"
TURN_WAIT_TIME: Final = "agents_redis_ha.turn.wait_time"


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
