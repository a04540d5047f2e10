"""The directives of a server, as CONFIG GET and CONFIG SET see them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .registry import OK, RefusalError, Reply, command
from .users import glob

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["Settings"]

_DEFAULTS = {
    "appendfsync": "everysec",
    "appendonly": "no",
    "busy-reply-threshold": "5000",
    "cluster-enabled": "no",
    "cluster-node-timeout": "15000",
    "dbfilename": "dump.rdb",
    "maxclients": "10000",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "min-replicas-max-lag": "10",
    "min-replicas-to-write": "0",
    "repl-backlog-size": "1048576",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "5",
    "repl-ping-replica-period": "10",
    "repl-timeout": "60",
    "replica-priority": "100",
    "replica-read-only": "yes",
    "replica-serve-stale-data": "yes",
    "save": "",
    "stop-writes-on-bgsave-error": "yes",
}
_ALIASES = {"lua-time-limit": "busy-reply-threshold"}
_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}


class Settings(dict[str, str]):
    """The directives of one server.

    Attributes:
        least_replicas: ``min-replicas-to-write``, 0 where it does not count.
        appends: Whether there is an append-only file.
    """

    def __init__(self, server: Server, given: Mapping[str, str]) -> None:
        super().__init__(_DEFAULTS)
        self._server = server
        for name, value in given.items():
            self[self._named(name)] = value
        self._written = dict(self)
        self.least_replicas = 0
        self.appends = False

    def _named(self, name: str) -> str:
        name = name.lower().replace("slave", "replica")
        return _ALIASES.get(name, name)

    def seconds(self, name: str) -> float:
        """Return a directive that counts milliseconds, in seconds."""
        return int(self[name]) / 1000

    def bytes(self, name: str) -> int:
        """Return a directive that counts bytes."""
        found = re.fullmatch(r"(\d+)([a-z]*)", self[name].lower())
        if found is None or found[2] not in _UNITS:
            raise RefusalError("ERR argument must be a memory value")
        return int(found[1]) * _UNITS[found[2]]

    def apply(self) -> None:
        """Have the server use what is set."""
        self._derive()
        self._server.memory.configure(self.bytes("maxmemory"), self["maxmemory-policy"])
        if "requirepass" in self:
            self._server.users.require_password(self["requirepass"].encode())

    def _derive(self) -> None:
        most = int(self["min-replicas-max-lag"])
        self.least_replicas = int(self["min-replicas-to-write"]) if most else 0
        self.appends = self["appendonly"] == "yes"

    def write(self) -> None:
        """Keep the directives for the next start (CONFIG REWRITE)."""
        self._written = dict(self)

    def read(self) -> None:
        """Have the directives as they were written, as after a start."""
        self.clear()
        self.update(self._written)

    def change(self, name: str, value: str) -> None:
        """Set a directive (CONFIG SET)."""
        name = self._named(name)
        if name not in self and name not in ("requirepass", "masterauth", "masteruser"):
            raise RefusalError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        self[name] = value
        self._derive()
        if name.startswith("maxmemory"):
            self._server.memory.configure(self.bytes("maxmemory"), self["maxmemory-policy"])
        elif name == "requirepass":
            self._server.users.require_password(value.encode())


@command("config|get", -3, "no_script loading stale", categories="admin dangerous slow")
def config_get(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CONFIG GET pattern …"""
    patterns = [glob(each.lower()) for each in argv[2:]]
    named = {name.encode(): value.encode() for name, value in server.config.items()}
    return {name: value for name, value in named.items() if any(each.fullmatch(name) for each in patterns)}


@command("config|set", -4, "no_script loading stale", categories="admin dangerous slow")
def config_set(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CONFIG SET name value …"""
    for name, value in zip(argv[2::2], argv[3::2], strict=False):
        server.config.change(name.decode(), value.decode())
    return OK


@command("config|resetstat", 2, "no_script loading stale", categories="admin dangerous slow")
def config_resetstat(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CONFIG RESETSTAT"""
    server.stats.clear()
    return OK


@command("config|rewrite", 2, "no_script loading stale", categories="admin dangerous slow")
def config_rewrite(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CONFIG REWRITE"""
    server.config.write()
    return OK
