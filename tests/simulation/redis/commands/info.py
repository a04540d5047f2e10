"""What a server tells of itself: INFO, ROLE, TIME; and what is done to it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import OK, RefusalError, Reply, command, whole_number

if TYPE_CHECKING:
    from ..connection import Connection
    from ..server import Server

_ALWAYS = "loading stale"
_ADMIN = "no_script loading stale"


def _server(server: Server) -> dict[str, object]:
    return {
        "redis_version": server.full_version,
        "redis_mode": "standalone" if server.cluster is None else "cluster",
        "os": "Simulated",
        "process_id": 1,
        "run_id": server.run_id,
        "tcp_port": server.port,
        "server_time_usec": int(server.clock() * 1e6),
        "uptime_in_seconds": int(server.uptime),
    }


def _clients(server: Server) -> dict[str, object]:
    blocked = sum(each.unblock is not None for each in server.connections.values())
    return {
        "connected_clients": len(server.connections),
        "cluster_connections": 0,
        "maxclients": server.config["maxclients"],
        "blocked_clients": blocked,
    }


def _memory(server: Server) -> dict[str, object]:
    return {
        "used_memory": server.memory.used,
        "maxmemory": server.memory.limit,
        "maxmemory_policy": server.memory.policy,
    }


def _persistence(server: Server) -> dict[str, object]:
    return {
        "loading": int(server.load.is_loading),
        "async_loading": 0,
        "rdb_changes_since_last_save": server.executor.dirty,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_bgsave_status": "err" if server.disk.save_fails else "ok",
        "aof_enabled": int(server.config["appendonly"] == "yes"),
        "aof_last_write_status": "ok",
    }


def _stats(server: Server) -> dict[str, object]:
    names = (
        "total_connections_received",
        "total_commands_processed",
        "rejected_connections",
        "sync_full",
        "sync_partial_ok",
        "sync_partial_err",
        "expired_keys",
        "evicted_keys",
    )
    return {name: server.stats[name] for name in names}


def _replication(server: Server) -> dict[str, object]:
    return server.replication.described()


def _cluster(server: Server) -> dict[str, object]:
    return {"cluster_enabled": int(server.cluster is not None)}


def _keyspace(server: Server) -> dict[str, object]:
    keyspace = server.keyspace
    if not keyspace.values:
        return {}
    return {"db0": f"keys={len(keyspace.values)},expires={len(keyspace.expires)},avg_ttl=0"}


_SECTIONS = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "cluster": _cluster,
    "keyspace": _keyspace,
}


@command("info", -1, _ALWAYS, categories="dangerous slow")
def info(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """INFO [section …]"""
    wanted = {each.decode().lower() for each in argv[1:]}
    if not wanted or wanted & {"all", "default", "everything"}:
        wanted = set(_SECTIONS)
    parts = []
    for name, describe in _SECTIONS.items():
        if name in wanted:
            lines = "".join([f"{field}:{value}\r\n" for field, value in describe(server).items()])
            parts.append(f"# {name.capitalize()}\r\n{lines}")
    return "\r\n".join(parts).encode()


@command("role", 1, _ADMIN, categories="admin dangerous fast")
def role(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ROLE"""
    return server.replication.role()


@command("time", 1, _ALWAYS, categories="fast")
def time(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """TIME"""
    microseconds = int(server.clock() * 1_000_000)
    return [b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)]


@command("replicaof", 3, "no_script stale", categories="admin dangerous slow")
def replicaof(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """REPLICAOF host port | NO ONE"""
    if server.cluster is not None:
        raise RefusalError("ERR REPLICAOF not allowed in cluster mode.")
    if argv[1].lower() == b"no" and argv[2].lower() == b"one":
        server.replication.promote()
        return OK
    error = "ERR Invalid master port" if server.version >= (7, 0) else "ERR value is not an integer or out of range"
    return server.replication.follow(argv[1].decode(), whole_number(argv[2], error))


@command("slaveof", 3, "no_script stale", categories="admin dangerous slow")
def slaveof(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SLAVEOF, as Sentinels send it"""
    return replicaof(server, client, argv)


@command("wait", 3, "no_script", categories="slow connection blocking")
def wait(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """WAIT replicas milliseconds"""
    server.replication.check_may_wait("WAIT")
    return server.replication.waiting.wait(client, whole_number(argv[1]), None, _timeout(argv[2]))


@command("waitaof", 4, "no_script", categories="slow connection blocking", since=(7, 2))
def waitaof(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """WAITAOF local replicas milliseconds"""
    local = whole_number(argv[1], "ERR value is out of range, value must between 0 and 1")
    if local not in (0, 1):
        raise RefusalError("ERR value is out of range, value must between 0 and 1")
    replicas, seconds = whole_number(argv[2], "ERR value is out of range, must be positive"), _timeout(argv[3])
    server.replication.check_may_wait("WAITAOF")
    if local and not server.config.appends:
        raise RefusalError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    return server.replication.waiting.wait(client, replicas, local, seconds)


def _timeout(text: bytes) -> float:
    milliseconds = whole_number(text, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise RefusalError("ERR timeout is negative")
    return milliseconds / 1000


@command("debug|sleep", 3, "no_script loading stale", categories="admin dangerous slow")
def debug_sleep(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """DEBUG SLEEP seconds: the server stands still."""
    server.load.hold_up(float(argv[2]))
    return OK


@command("save", 1, "no_script", categories="admin dangerous slow")
def save(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SAVE"""
    server.disk.save()
    return OK


@command("bgsave", -1, "no_script", categories="admin dangerous slow")
def bgsave(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """BGSAVE: done at once."""
    server.disk.save()
    return "Background saving started"


@command("shutdown", -1, "no_script loading stale allow_busy", categories="admin dangerous slow")
def shutdown(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SHUTDOWN [NOSAVE | SAVE]"""
    server.shut_down()
    return OK
