"""The SDK's Session protocol, and what makes sessions and owns their connections. It knows no topology."""

from .factory import ha_session
from .info import SessionInfo, SessionVersion
from .session import RedisHASession
from .shared_connections import close_shared_connections
from .store import SessionStore

__all__ = [
    "RedisHASession",
    "SessionInfo",
    "SessionStore",
    "SessionVersion",
    "close_shared_connections",
    "ha_session",
]
