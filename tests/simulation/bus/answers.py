"""What a member answers to CLUSTER …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from tests.simulation.redis.registry import OK, RefusalError, Reply, whole_number
from tests.simulation.resp import Raw, encode

from .peer import Peer
from .routing import slot_of
from .slots import SLOTS

if TYPE_CHECKING:
    from .member import Member

__all__ = ["answer"]


def answer(member: Member, argv: list[bytes]) -> Reply:
    """Return the reply to CLUSTER with these words."""
    return _ANSWERS[argv[1].lower()](member, argv)


@lru_cache(maxsize=1024)
def _ranges(slots: frozenset[int]) -> tuple[tuple[int, int], ...]:
    return tuple(_each_range(slots))


def _each_range(slots: frozenset[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for slot in sorted(slots):
        if last is not None and slot == last + 1:
            last = slot
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = slot
    if first is not None and last is not None:
        yield first, last


def _replicas(member: Member, primary: Peer) -> list[Peer]:
    return [peer for peer in member.peers.values() if peer.primary == primary.id]


def _named(id: str, host: str, port: int) -> list[Reply]:
    return [host.encode(), port, id.encode(), []]


def _slots(member: Member, argv: list[bytes]) -> Reply:
    """CLUSTER SLOTS: a replica counts that does not fail and has told an offset."""
    peers = member.peers.values()
    return _rows(
        tuple((each.id, each.host, each.port, each.primary, each.slots) for each in peers),
        tuple(not each.fails and (each.offset > 0 or each is member.me) for each in peers),
    )


@lru_cache(maxsize=1024)
def _rows(peers: tuple[tuple[str, str, int, str | None, frozenset[int]], ...], are_shown: tuple[bool, ...]) -> Raw:
    """Return the reply as it goes over the wire: the same for all who ask until something changes."""
    rows: list[list[Reply]] = []
    for own, host, port, _, slots in peers:
        known = zip(peers, are_shown, strict=True)
        replicas = [_named(*each[:3]) for each, is_shown in known if is_shown and each[3] == own]
        rows += [[first, last, _named(own, host, port), *replicas] for first, last in _ranges(slots)]
    return Raw(encode(sorted(rows, key=lambda row: int(row[0]))))


def _shards(member: Member, argv: list[bytes]) -> Reply:
    return [
        {
            b"slots": [bound for both in _ranges(peer.slots) for bound in both],
            b"nodes": [_shard_node(each) for each in (peer, *_replicas(member, peer))],
        }
        for peer in member.peers.values()
        if peer.is_primary
    ]


def _shard_node(peer: Peer) -> Reply:
    return {
        b"id": peer.id.encode(),
        b"port": peer.port,
        b"ip": peer.host.encode(),
        b"endpoint": peer.host.encode(),
        b"role": b"master" if peer.is_primary else b"replica",
        b"replication-offset": peer.offset,
        b"health": b"fail" if peer.fails else b"online",
    }


def _nodes(member: Member, argv: list[bytes]) -> Reply:
    return "".join(_line(member, peer) + "\n" for peer in member.peers.values()).encode()


def _line(member: Member, peer: Peer) -> str:
    flags = ["myself"] if peer is member.me else []
    flags.append("master" if peer.is_primary else "slave")
    flags += (["fail?"] if peer.may_fail else []) + (["fail"] if peer.fails else [])
    epoch = member.peers[peer.primary].config_epoch if peer.primary in member.peers else peer.config_epoch
    words = [
        peer.id,
        f"{peer.host}:{peer.port}@{peer.port + 10000}",
        ",".join(flags),
        peer.primary or "-",
        str(int(peer.ping_sent * 1000)),
        str(int(peer.pong_received * 1000)),
        str(epoch),
        "connected" if peer is member.me or peer.link is not None else "disconnected",
        *(str(first) if first == last else f"{first}-{last}" for first, last in _ranges(peer.slots)),
    ]
    if peer is member.me:
        words += [f"[{slot}->-{target}]" for slot, target in sorted(member.slots.migrating.items())]
        words += [f"[{slot}-<-{source}]" for slot, source in sorted(member.slots.importing.items())]
    return " ".join(words)


def _info(member: Member, argv: list[bytes]) -> Reply:
    owners = [peer for peer in member.peers.values() if peer.slots]
    fields = {
        "cluster_state": "ok" if member.is_ok else "fail",
        "cluster_slots_assigned": sum(len(peer.slots) for peer in owners),
        "cluster_slots_ok": sum(len(peer.slots) for peer in owners if not peer.fails and not peer.may_fail),
        "cluster_slots_pfail": sum(len(peer.slots) for peer in owners if peer.may_fail),
        "cluster_slots_fail": sum(len(peer.slots) for peer in owners if peer.fails),
        "cluster_known_nodes": len(member.peers),
        "cluster_size": member.size,
        "cluster_current_epoch": member.current_epoch,
        "cluster_my_epoch": member.peers.get(member.me.primary or "", member.me).config_epoch,
    }
    return "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()


def _myid(member: Member, argv: list[bytes]) -> Reply:
    return member.id.encode()


def _slot(text: bytes) -> int:
    slot = whole_number(text, "ERR Invalid or out of range slot")
    if not 0 <= slot < SLOTS:
        raise RefusalError("ERR Invalid or out of range slot")
    return slot


def _keyslot(member: Member, argv: list[bytes]) -> Reply:
    return slot_of(argv[2])


def _count(member: Member, argv: list[bytes]) -> Reply:
    return len(member.slots.keys_in(_slot(argv[2])))


def _keys(member: Member, argv: list[bytes]) -> Reply:
    return member.slots.keys_in(_slot(argv[2]))[: whole_number(argv[3])]


def _primary(member: Member, id: bytes, unknown: str) -> Peer:
    found = member.peers.get(id.decode())
    if found is None:
        raise RefusalError(f"ERR {unknown} {id.decode()}")
    if not found.is_primary:
        raise RefusalError("ERR Target node is not a master")
    return found


def _setslot(member: Member, argv: list[bytes]) -> Reply:
    """CLUSTER SETSLOT slot IMPORTING id | MIGRATING id | STABLE | NODE id"""
    if member.me.primary is not None:
        raise RefusalError("ERR Please use SETSLOT only with masters.")
    slot, action = _slot(argv[2]), argv[3].lower()
    if action == b"stable" and len(argv) == 4:
        member.slots.migrating.pop(slot, None)
        member.slots.importing.pop(slot, None)
    elif action == b"migrating" and len(argv) == 5:
        if member.slots.owners[slot] != member.id:
            raise RefusalError(f"ERR I'm not the owner of hash slot {slot}")
        member.slots.migrating[slot] = _primary(member, argv[4], "I don't know about node").id
    elif action == b"importing" and len(argv) == 5:
        if member.slots.owners[slot] == member.id:
            raise RefusalError(f"ERR I'm already the owner of hash slot {slot}")
        member.slots.importing[slot] = _primary(member, argv[4], "I don't know about node").id
    elif action == b"node" and len(argv) == 5:
        _give(member, slot, _primary(member, argv[4], "Unknown node"))
    else:
        raise RefusalError("ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP")
    return OK


def _give(member: Member, slot: int, to: Peer) -> None:
    was_mine, is_empty = member.slots.owners[slot] == member.id, not member.slots.keys_in(slot)
    if was_mine and to is not member.me and not is_empty:
        raise RefusalError(
            f"ERR Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
        )
    if is_empty:
        member.slots.migrating.pop(slot, None)
    member.slots.assign(frozenset((slot,)), to)
    if was_mine and to is not member.me and not member.me.slots:
        member.follow(to)
    if to is member.me and member.slots.importing.pop(slot, None) is not None:
        member.bump_epoch()
        member.broadcast("pong")


def _failover(member: Member, argv: list[bytes]) -> Reply:
    how = argv[2].decode().lower() if len(argv) == 3 else ""
    if how not in ("", "force", "takeover"):
        raise RefusalError("ERR syntax error")
    return member.elections.begin_by_hand(how)


_ANSWERS: dict[bytes, Callable[[Member, list[bytes]], Reply]] = {
    b"slots": _slots,
    b"shards": _shards,
    b"nodes": _nodes,
    b"info": _info,
    b"myid": _myid,
    b"keyslot": _keyslot,
    b"countkeysinslot": _count,
    b"getkeysinslot": _keys,
    b"setslot": _setslot,
    b"failover": _failover,
}
