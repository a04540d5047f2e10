"""Strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import OK, RefusalError, Reply, command, invalid_expiry, whole_number

if TYPE_CHECKING:
    from ..connection import Connection
    from ..server import Server

_ONE = (1, 1, 1)


@command("get", 2, "reads", _ONE, "string fast")
def get(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """GET key"""
    return server.keyspace.string(argv[1])


def _options(server: Server, argv: list[bytes]) -> tuple[set[bytes], int | None]:
    """Return the words of SET's options, and when the key expires."""
    words, expires, at = set[bytes](), None, 3
    while at < len(argv):
        word = argv[at].upper()
        if word in (b"EX", b"PX", b"EXAT", b"PXAT") and at + 1 < len(argv) and expires is None:
            amount = whole_number(argv[at + 1]) * (1000 if word[:1] == b"E" else 1)
            if amount <= 0:
                raise RefusalError(invalid_expiry(server, "set"))
            expires = amount if word[-2:] == b"AT" else server.now_ms() + amount
            at += 1
        elif word in (b"NX", b"XX", b"KEEPTTL", b"GET"):
            words.add(word)
        else:
            raise RefusalError("ERR syntax error")
        at += 1
    if {b"NX", b"XX"} <= words or (b"KEEPTTL" in words and expires is not None):
        raise RefusalError("ERR syntax error")
    return words, expires


@command("set", -3, "writes deny_oom", _ONE, "string slow")
def set_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]"""
    key, value, keyspace = argv[1], argv[2], server.keyspace
    words, expires = _options(server, argv) if len(argv) > 3 else (set(), None)
    before = keyspace.string(key) if b"GET" in words else None
    if words and (keyspace.get(key) is not None) != (b"XX" in words) and words & {b"NX", b"XX"}:
        return before
    keyspace.store(key, value, keep_ttl=b"KEEPTTL" in words)
    server.executor.dirty += 1
    if expires is not None:
        keyspace.expires[key] = expires
        server.expiry_changed(expires)
        server.executor.rewritten = [b"SET", key, value, b"PXAT", b"%d" % expires]
    return before if b"GET" in words else OK


@command("setnx", 3, "writes deny_oom", _ONE, "string fast")
def setnx(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SETNX key value"""
    if server.keyspace.get(argv[1]) is not None:
        return 0
    server.keyspace.store(argv[1], argv[2])
    server.executor.dirty += 1
    return 1


@command("mget", -2, "reads", (1, -1, 1), "string fast")
def mget(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """MGET key …"""
    found = [server.keyspace.get(key) for key in argv[1:]]
    return [each if type(each) is bytes else None for each in found]


@command("mset", -3, "writes deny_oom", (1, -1, 2), "string slow")
def mset(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """MSET key value …"""
    if len(argv) % 2 == 0:
        raise RefusalError("ERR wrong number of arguments for 'mset' command")
    for key, value in zip(argv[1::2], argv[2::2], strict=True):
        server.keyspace.store(key, value)
        server.executor.dirty += 1
    return OK


def _add(server: Server, key: bytes, amount: int) -> int:
    before = server.keyspace.string(key)
    total = whole_number(before if before is not None else b"0") + amount
    if not -(2**63) <= total < 2**63:
        raise RefusalError("ERR increment or decrement would overflow")
    server.keyspace.store(key, b"%d" % total, keep_ttl=True)
    server.executor.dirty += 1
    return total


@command("incr", 2, "writes deny_oom", _ONE, "string fast")
def incr(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """INCR key"""
    return _add(server, argv[1], 1)


@command("incrby", 3, "writes deny_oom", _ONE, "string fast")
def incrby(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """INCRBY key amount"""
    return _add(server, argv[1], whole_number(argv[2]))


@command("append", 3, "writes deny_oom", _ONE, "string fast")
def append(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """APPEND key value"""
    value = (server.keyspace.string(argv[1]) or b"") + argv[2]
    server.keyspace.store(argv[1], value, keep_ttl=True)
    server.executor.dirty += 1
    return len(value)


@command("strlen", 2, "reads", _ONE, "string fast")
def strlen(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """STRLEN key"""
    return len(server.keyspace.string(argv[1]) or b"")
