"""Session id → the keys of that session, all in one cluster slot. Pure.

Every key is ``{prefix}:{<tag>}:<part>``, where ``{<tag>}`` is a literal Redis hash tag
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags): only the tag decides the slot.
The tag is the session id with ``%``, ``{`` and ``}`` percent-encoded, so that no id can end its tag early, leave it
empty or spell another session's key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis.crc import key_slot

from ..errors import ConfigurationError

__all__ = ["SessionKeys", "acl_rule", "check_prefix", "session_keys"]

# UTF-8 has no lone surrogates. 'surrogatepass' gives each its own bytes, so that ids that differ in one stay apart.
_ENCODING_ERRORS = "surrogatepass"
# Redis does not take "{}" for a tag: it would hash the whole key. "%" alone is never the encoding of another id.
_EMPTY_TAG = "%"


@dataclass(frozen=True)
class SessionKeys:
    """The keys of one session, as they are sent to Redis.

    Attributes:
        items: LIST, one JSON item an element.
        meta: HASH, the format of all keys, the session's id, times (milliseconds since 1970, the server's clock),
            version, digest and generation.
        ops: LIST, the ids of recent changes, with the digest behind each.
        turns: HASH, the ids of recent turns, with their results and drafts.
        slot: The cluster slot of all of them, 0 to 16383.
    """

    items: bytes
    meta: bytes
    ops: bytes
    turns: bytes
    slot: int


def session_keys(prefix: str, session_id: str) -> SessionKeys:
    """Return the keys of a session.

    Args:
        prefix: Key prefix; no braces.
        session_id: Any string.

    Raises:
        ConfigurationError: The prefix or the id cannot be used. Nothing was sent.
    """
    if not isinstance(session_id, str):
        raise ConfigurationError("session_id", f"must be a string, not {type(session_id).__name__}")
    check_prefix(prefix)
    base = f"{prefix}:{{{_tag(session_id)}}}:".encode("utf-8", _ENCODING_ERRORS)
    return SessionKeys(base + b"items", base + b"meta", base + b"ops", base + b"turns", key_slot(base))


def acl_rule(prefix: str, *, fsync: bool = False) -> tuple[str, ...]:
    """Return the ACL rule that a session's user on the data servers needs, as arguments of ACL SETUSER.

    INFO tells a session that was lost from one that was deleted. `SessionStore.health` needs INFO and ROLE. Sentinel
    needs ROLE too. WAIT is for ``durability``; ASKING and CLUSTER are for clusters.

    Args:
        prefix: The key prefix.
        fsync: Whether ``durability.fsync`` is used, which needs WAITAOF; servers before 7.2 do not know it.
    """
    scripts = ("eval", "evalsha", "asking", "cluster|slots", "cluster|info", "role", "info", "select", "wait")
    lists = ("rpush", "lrange", "lindex", "llen", "lpos", "lset", "lrem", "ltrim")
    hashes = ("hget", "hmget", "hgetall", "hset", "hsetnx", "hdel")
    keys = ("del", "exists", "pexpire", "persist", "pttl", "time")
    names = (*scripts, *(("waitaof",) if fsync else ()), *lists, *hashes, *keys)
    literal = re.sub(r"([\\*?\[\]])", r"\\\1", prefix)
    return (f"~{literal}:*", "-@all", *(f"+{command}" for command in names))


def check_prefix(prefix: str) -> str:
    """Return the prefix, or raise ConfigurationError if a brace in it would move the hash tag."""
    if "{" in prefix or "}" in prefix:
        raise ConfigurationError("key_prefix", "must not contain braces: they would decide the cluster slot")
    return prefix


def _tag(session_id: str) -> str:
    encoded = session_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return encoded or _EMPTY_TAG
