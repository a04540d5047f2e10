"""Whether a member serves a request, or who does (cluster.c, getNodeByQuery)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from redis.crc import key_slot

from tests.simulation.redis.registry import Command, RefusalError

if TYPE_CHECKING:
    from tests.simulation.redis.connection import Connection

    from .member import Member

__all__ = ["check", "refusal_within_script", "slot_of"]

slot_of = lru_cache(maxsize=65536)(key_slot)

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"
TRY_AGAIN = "TRYAGAIN Multiple keys request during rehashing of slot"
DOWN = "CLUSTERDOWN The cluster is down"
NOT_SERVED = "CLUSTERDOWN Hash slot not served"


class _Refused(NamedTuple):
    """Why a request is not served here."""

    text: str


def check(member: Member, client: Connection, found: Command, argv: Sequence[bytes]) -> None:
    """Raise the redirection for a request that is not served here."""
    refused = _refused(member, client, found, argv)
    if refused is not None:
        raise RefusalError(refused.text)


def refusal_within_script(member: Member, client: Connection, found: Command, argv: Sequence[bytes]) -> str | None:
    """Say why a script may not touch a key here."""
    refused = _refused(member, client, found, argv)
    if refused is None:
        return None
    who = "Script" if member.server.version >= (7, 0) else "Lua script"
    if refused.text == DOWN:
        return f"ERR {who} attempted to execute a command while the cluster is down"
    return f"ERR {who} attempted to access a non local key in a cluster node"


def _keys(client: Connection, found: Command, argv: Sequence[bytes]) -> list[bytes]:
    if found.name != "exec":
        return found.keys_of(argv)
    return [key for each, words in client.queue or () for key in each.keys_of(words)]


def _refused(member: Member, client: Connection, found: Command, argv: Sequence[bytes]) -> _Refused | None:
    keys = _keys(client, found, argv)
    if not keys:
        return None
    slot = slot_of(keys[0])
    if any(slot_of(key) != slot for key in keys[1:]):
        return _Refused(CROSS_SLOT)
    owner = member.slots.owners[slot]
    if owner is None:
        return _Refused(NOT_SERVED)
    if not member.is_ok:
        return _Refused(DOWN)
    target = member.slots.migrating.get(slot) if owner == member.id else None
    is_importing = slot in member.slots.importing
    if target is not None or is_importing:
        if found.name == "migrate":
            return None
        missing = sum(not member.has_key(key) for key in keys)
        if target is not None and missing:
            return _Refused(TRY_AGAIN) if missing < len(keys) else _redirected("ASK", member, slot, target)
        if is_importing and (client.asking or found.name == "restore-asking"):
            return _Refused(TRY_AGAIN) if missing and len(set(keys)) > 1 else None
    if client.read_only and not _writes(client, found) and member.me.primary == owner:
        return None
    return None if owner == member.id else _redirected("MOVED", member, slot, owner)


def _writes(client: Connection, found: Command) -> bool:
    return found.writes or (found.name == "exec" and client.queue_writes)


def _redirected(word: str, member: Member, slot: int, to: str) -> _Refused:
    peer = member.peers[to]
    return _Refused(f"{word} {slot} {peer.host}:{peer.port}")
