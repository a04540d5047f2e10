"""Clusters, as a server answers for its member of one; a server without cluster support says so."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING

from ..registry import OK, RefusalError, Reply, command, whole_number

if TYPE_CHECKING:
    from ..connection import Connection
    from ..far_end import ClusterNode
    from ..server import Server

DISABLED = "ERR This instance has cluster support disabled"


def _member(server: Server) -> ClusterNode:
    if server.cluster is None:
        raise RefusalError(DISABLED)
    return server.cluster


def _told(name: str, arity: int, categories: str = "slow") -> None:
    @command(f"cluster|{name}", arity, "stale", categories=categories)
    def tell(server: Server, client: Connection, argv: list[bytes]) -> Reply:
        return _member(server).answer(argv)


for _name, _arity in (("slots", 2), ("info", 2), ("nodes", 2), ("myid", 2), ("shards", 2), ("keyslot", 3)):
    _told(_name, _arity)
_told("countkeysinslot", 3)
_told("getkeysinslot", 4)
_told("setslot", -4, "admin dangerous slow")
_told("failover", -2, "admin dangerous slow")


@command("asking", 1, categories="fast connection")
def asking(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ASKING"""
    _member(server)
    client.asking = True
    return OK


@command("readonly", 1, "loading stale", categories="fast connection")
def readonly(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """READONLY"""
    if not server.is_valkey:
        _member(server)
    client.read_only = True
    return OK


@command("readwrite", 1, "loading stale", categories="fast connection")
def readwrite(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """READWRITE"""
    if not server.is_valkey and server.version >= (7, 0):
        _member(server)
    client.read_only = False
    return OK


def _migrated_keys(argv: list[bytes]) -> list[bytes]:
    words = [word.upper() for word in argv]
    if b"KEYS" in words[6:]:
        return argv[words.index(b"KEYS", 6) + 1 :]
    return argv[3:4]


@command("migrate", -6, "writes", lambda argv: _migrated_keys(list(argv)), "keyspace dangerous slow")
def migrate(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """MIGRATE host port key | "" database milliseconds [REPLACE] [AUTH password] [KEYS key …]"""
    address, seconds = (argv[1].decode(), whole_number(argv[2])), whole_number(argv[5]) / 1000
    keys = _migrated_keys(argv)
    replaces = b"REPLACE" in [word.upper() for word in argv[6 : len(argv) - len(keys)]]
    return _member(server).migrate(client, address, keys, seconds, replaces=replaces)


def _restore(server: Server, argv: list[bytes]) -> Reply:
    """Store what MIGRATE or DUMP gave out; in this simulation's own form."""
    words = {word.upper() for word in argv[4:]}
    if b"REPLACE" not in words and server.keyspace.get(argv[1]) is not None:
        raise RefusalError("BUSYKEY Target key name already exists.")
    value, _ = marshal.loads(argv[3])
    expires = whole_number(argv[2])
    server.keyspace.store(argv[1], value)
    if expires:
        server.keyspace.expires[argv[1]] = expires if b"ABSTTL" in words else server.now_ms() + expires
        server.expiry_changed(server.keyspace.expires[argv[1]])
    server.executor.dirty += 1
    return OK


@command("restore", -4, "writes deny_oom", (1, 1, 1), "keyspace dangerous slow")
def restore(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RESTORE key milliseconds payload [REPLACE] [ABSTTL]"""
    return _restore(server, argv)


@command("restore-asking", -4, "writes deny_oom", (1, 1, 1), "keyspace dangerous slow")
def restore_asking(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RESTORE-ASKING, as MIGRATE sends it"""
    return _restore(server, argv)


@command("dump", 2, "reads", (1, 1, 1), "keyspace slow")
def dump(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """DUMP key"""
    value = server.keyspace.get(argv[1])
    return None if value is None else marshal.dumps((value, None))
