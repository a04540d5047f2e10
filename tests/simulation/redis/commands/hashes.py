"""Hashes (t_hash.c)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ..registry import RefusalError, Reply, command, whole_number

if TYPE_CHECKING:
    from ..connection import Connection
    from ..server import Server

_ONE = (1, 1, 1)
_LONGEST_IN_LISTPACK = 64  # bytes of a field or a value
_MOST_IN_LISTPACK = 512


def _for_change(server: Server, key: bytes) -> dict[bytes, bytes]:
    found = server.keyspace.hash(key)
    if found is None:
        found = {}
        server.keyspace.store(key, found)
    return found


@command("hset", -4, "writes deny_oom", _ONE, "hash fast")
def hset(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HSET key field value …"""
    if len(argv) % 2:
        raise RefusalError("ERR wrong number of arguments for 'hset' command")
    found = _for_change(server, argv[1])
    before = len(found)
    found.update(zip(argv[2::2], argv[3::2], strict=True))
    server.executor.dirty += (len(argv) - 2) // 2
    return len(found) - before


@command("hmset", -4, "writes deny_oom", _ONE, "hash fast")
def hmset(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HMSET key field value …"""
    if len(argv) % 2:
        raise RefusalError("ERR wrong number of arguments for 'hmset' command")
    hset(server, client, argv)
    return "OK"


@command("hsetnx", 4, "writes deny_oom", _ONE, "hash fast")
def hsetnx(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HSETNX key field value"""
    found = _for_change(server, argv[1])
    if argv[2] in found:
        return 0
    found[argv[2]] = argv[3]
    server.executor.dirty += 1
    return 1


@command("hget", 3, "reads", _ONE, "hash fast")
def hget(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HGET key field"""
    return (server.keyspace.hash(argv[1]) or {}).get(argv[2])


@command("hmget", -3, "reads", _ONE, "hash fast")
def hmget(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HMGET key field …"""
    found = server.keyspace.hash(argv[1]) or {}
    return [found.get(field) for field in argv[2:]]


@command("hgetall", 2, "reads", _ONE, "hash slow")
def hgetall(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HGETALL key; a hash that is no listpack any more has another order on each server."""
    found = server.keyspace.hash(argv[1]) or {}
    longest = max((max(len(name), len(value)) for name, value in found.items()), default=0)
    if longest <= _LONGEST_IN_LISTPACK and len(found) <= _MOST_IN_LISTPACK:
        return dict(found)
    return dict(sorted(found.items(), key=lambda field: zlib.crc32(field[0], server.hash_seed)))


@command("hlen", 2, "reads", _ONE, "hash fast")
def hlen(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HLEN key"""
    return len(server.keyspace.hash(argv[1]) or ())


@command("hexists", 3, "reads", _ONE, "hash fast")
def hexists(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HEXISTS key field"""
    return int(argv[2] in (server.keyspace.hash(argv[1]) or ()))


@command("hdel", -3, "writes", _ONE, "hash fast")
def hdel(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HDEL key field …"""
    found = server.keyspace.hash(argv[1])
    if found is None:
        return 0
    gone = sum(found.pop(field, None) is not None for field in argv[2:])
    if gone:
        server.executor.dirty += gone
        if not found:
            server.keyspace.delete(argv[1])
    return gone


@command("hincrby", 4, "writes deny_oom", _ONE, "hash fast")
def hincrby(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HINCRBY key field amount"""
    amount = whole_number(argv[3])
    found = _for_change(server, argv[1])
    total = whole_number(found.get(argv[2], b"0"), "ERR hash value is not an integer") + amount
    found[argv[2]] = b"%d" % total
    server.executor.dirty += 1
    return total
