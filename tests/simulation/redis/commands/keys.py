"""Keys of any type: deletion, expiry, listing; transactions are in `clients`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.resp import Simple

from ..keyspace import size_of, type_name
from ..registry import OK, RefusalError, Reply, command, invalid_expiry, whole_number
from ..users import glob

if TYPE_CHECKING:
    from ..connection import Connection
    from ..server import Server

_ONE, _ALL = (1, 1, 1), (1, -1, 1)


def _delete(server: Server, keys: list[bytes]) -> int:
    gone = sum(server.keyspace.get(key) is not None and server.keyspace.delete(key) for key in keys)
    server.executor.dirty += gone
    return gone


@command("del", -2, "writes", _ALL, "keyspace slow")
def del_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """DEL key …"""
    return _delete(server, argv[1:])


@command("unlink", -2, "writes", _ALL, "keyspace fast")
def unlink(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """UNLINK key …"""
    return _delete(server, argv[1:])


@command("exists", -2, "reads", _ALL, "keyspace fast")
def exists(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EXISTS key …"""
    return sum(server.keyspace.get(key) is not None for key in argv[1:])


@command("type", 2, "reads", _ONE, "keyspace fast")
def type_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """TYPE key"""
    return Simple(type_name(server.keyspace.get(argv[1])).encode())


def _expire(server: Server, client: Connection, argv: list[bytes], unit: int, *, absolute: bool) -> Reply:
    name = argv[0].decode().lower()
    amount = whole_number(argv[2])
    if not -(2**63) // unit <= amount < 2**63 // unit:
        raise RefusalError(invalid_expiry(server, name))
    now = server.now_ms()
    at = amount * unit if absolute else now + amount * unit
    key, keyspace = argv[1], server.keyspace
    if keyspace.get(key) is None:
        return 0
    conditions = {each.upper() for each in argv[3:]}
    if conditions and not _may_expire(conditions, keyspace.expires.get(key), at):
        return 0
    server.executor.dirty += 1
    if at <= now and not client.is_primary:
        keyspace.delete(key)
        server.executor.rewritten = [b"DEL", key]
        return 1
    keyspace.expires[key] = at
    server.expiry_changed(at)
    if server.version >= (7, 0):
        server.executor.rewritten = [b"PEXPIREAT", key, b"%d" % at]
    return 1


def _may_expire(conditions: set[bytes], current: int | None, at: int) -> bool:
    if conditions - {b"NX", b"XX", b"GT", b"LT"}:
        raise RefusalError(f"ERR Unsupported option {sorted(conditions)[0].decode()}")
    if b"NX" in conditions:
        return current is None
    if current is None:
        return b"XX" not in conditions and b"GT" not in conditions
    return not (b"GT" in conditions and at <= current) and not (b"LT" in conditions and at >= current)


@command("expire", -3, "writes", _ONE, "keyspace fast")
def expire(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EXPIRE key seconds"""
    return _expire(server, client, argv, 1000, absolute=False)


@command("pexpire", -3, "writes", _ONE, "keyspace fast")
def pexpire(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PEXPIRE key milliseconds"""
    return _expire(server, client, argv, 1, absolute=False)


@command("expireat", -3, "writes", _ONE, "keyspace fast")
def expireat(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EXPIREAT key seconds since 1970"""
    return _expire(server, client, argv, 1000, absolute=True)


@command("pexpireat", -3, "writes", _ONE, "keyspace fast")
def pexpireat(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PEXPIREAT key milliseconds since 1970"""
    return _expire(server, client, argv, 1, absolute=True)


@command("persist", 2, "writes", _ONE, "keyspace fast")
def persist(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PERSIST key"""
    if server.keyspace.get(argv[1]) is None or server.keyspace.expires.pop(argv[1], None) is None:
        return 0
    server.executor.dirty += 1
    return 1


def _ttl(server: Server, key: bytes) -> int:
    if server.keyspace.get(key) is None:
        return -2
    at = server.keyspace.expires.get(key)
    return -1 if at is None else max(0, at - server.now_ms())


@command("pttl", 2, "reads", _ONE, "keyspace fast")
def pttl(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PTTL key"""
    return _ttl(server, argv[1])


@command("ttl", 2, "reads", _ONE, "keyspace fast")
def ttl(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """TTL key"""
    left = _ttl(server, argv[1])
    return left if left < 0 else (left + 500) // 1000


@command("keys", 2, "reads", categories="keyspace dangerous slow")
def keys(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """KEYS pattern"""
    pattern = glob(argv[1])
    return [key for key in server.keyspace.alive() if pattern.fullmatch(key)]


@command("scan", -2, "reads", categories="keyspace slow")
def scan(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]: all keys at once."""
    options = {name.upper(): value for name, value in zip(argv[2::2], argv[3::2], strict=True)}
    pattern = glob(options.get(b"MATCH", b"*"))
    kind = options.get(b"TYPE", b"").decode()
    found = [key for key in server.keyspace.alive() if pattern.fullmatch(key)]
    return [b"0", [key for key in found if not kind or type_name(server.keyspace.values[key]) == kind]]


@command("dbsize", 1, "reads", categories="keyspace fast")
def dbsize(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """DBSIZE"""
    return len(server.keyspace.values)


def _flush(server: Server) -> Reply:
    server.keyspace.clear()
    server.executor.dirty += 1
    return OK


@command("flushall", -1, "writes", categories="keyspace dangerous slow")
def flushall(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """FLUSHALL"""
    return _flush(server)


@command("flushdb", -1, "writes", categories="keyspace dangerous slow")
def flushdb(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """FLUSHDB"""
    return _flush(server)


@command("memory|usage", -3, "reads", (2, 2, 1), "slow")
def memory_usage(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """MEMORY USAGE key, roughly"""
    value = server.keyspace.get(argv[2])
    return None if value is None else size_of(argv[2], value)
