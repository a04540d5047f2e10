"""Sessions of the OpenAI Agents SDK in Redis or Valkey that stay whole through failovers."""

from .config import HAConfig
from .connections import create_client
from .entry import ha_session
from .errors import (
    AgentsRedisError,
    AuthenticationFailedError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    ConnectionsClosedError,
    DeadlineExceededError,
    HistoryLostError,
    InvalidItemError,
    NotPrimaryError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    PrimaryNotFoundError,
    ServerRefusedError,
    TLSError,
    UnconfirmedError,
    WrongKeyTypeError,
    WrongTopologyError,
)
from .health import Health, PrimaryHealth, ReplicaHealth
from .info import SessionInfo
from .session import RedisHASession
from .settings import Address, DurabilityConfig, PoolConfig, RepairConfig, RetryConfig, SentinelConfig, TLSConfig
from .sharing import close_shared_connections
from .store import SessionStore

__all__ = [
    "Address",
    "AgentsRedisError",
    "AuthenticationFailedError",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionsClosedError",
    "DeadlineExceededError",
    "DurabilityConfig",
    "HAConfig",
    "Health",
    "HistoryLostError",
    "InvalidItemError",
    "NotPrimaryError",
    "OperationError",
    "Outcome",
    "PermissionDeniedError",
    "PoolConfig",
    "PrimaryHealth",
    "PrimaryNotFoundError",
    "RedisHASession",
    "RepairConfig",
    "ReplicaHealth",
    "RetryConfig",
    "SentinelConfig",
    "ServerRefusedError",
    "SessionInfo",
    "SessionStore",
    "TLSConfig",
    "TLSError",
    "UnconfirmedError",
    "WrongKeyTypeError",
    "WrongTopologyError",
    "close_shared_connections",
    "create_client",
    "ha_session",
]
