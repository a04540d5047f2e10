"""A few servers, real or simulated, behind one face; and what they say of themselves, to be compared."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from agents_redis_ha import lab
from tests.simulation.resp import encode_request
from tests.simulation.wires import Wires

from .replies import parse

__all__ = ["Client", "RealServers", "Recorder", "Servers", "SimulatedServers"]

TOLD = (
    "role",
    "master_link_status",
    "slave_repl_offset",
    "connected_slaves",
    "slave0",
    "slave1",
    "master_replid",
    "master_replid2",
    "master_repl_offset",
    "second_repl_offset",
    "repl_backlog_active",
    "repl_backlog_first_byte_offset",
    "repl_backlog_histlen",
)
SYNCS = ("sync_full", "sync_partial_ok", "sync_partial_err")


class Client(Protocol):
    """One connection."""

    def send(self, *words: bytes | str | int) -> None:
        """Send a command."""

    def reply(self) -> Any:
        """Return the reply."""

    def has_ended(self) -> bool:
        """Whether the server closes the connection, with nothing more said."""


class Servers(Protocol):
    """A few servers."""

    names: list[str]

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        """Return the reply; all questions to one server go over one connection."""

    def client(self, name: str) -> Client:
        """Make another connection."""

    def settle(self, name: str, text: str) -> None:
        """Wait until INFO says this."""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something."""


class _RealClient:
    def __init__(self, name: str) -> None:
        host, _, port = name.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30.0)
        self._left = b""

    def send(self, *words: bytes | str | int) -> None:
        self.socket.sendall(encode_request(*words))

    def reply(self) -> Any:
        while (found := parse(self._left, 1)) is None:
            received = self.socket.recv(1 << 16)
            assert received, "the server closed the connection"
            self._left += received
        (value,), self._left = found
        return value

    def has_ended(self) -> bool:
        return not self._left and not self.socket.recv(1)


class RealServers:
    """Servers of a lab."""

    def __init__(self, nodes: Sequence[lab.Node]) -> None:
        self.names = [f"{node.host}:{node.port}" for node in nodes]
        self._sockets = ExitStack()
        self._clients = {name: self.client(name) for name in self.names}

    def __enter__(self) -> RealServers:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        self._clients[name].send(*words)
        return self._clients[name].reply()

    def client(self, name: str) -> _RealClient:
        client = _RealClient(name)
        self._sockets.enter_context(client.socket)
        return client

    def settle(self, name: str, text: str) -> None:
        self.wait_until(lambda: text in self.ask(name, "INFO", "replication").decode(), f"{name} to say {text}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        lab.wait_until(condition, what)

    def connect(self, name: str) -> None:
        """Connect anew to a server that was started again."""
        self._clients[name] = self.client(name)


class _SimulatedClient:
    def __init__(self, wires: Wires, name: str) -> None:
        self.wires, self._client = wires, wires.client(name)

    def send(self, *words: bytes | str | int) -> None:
        self._client.send(*words)

    def reply(self) -> Any:
        found = parse(self._client.reply(), 1)
        assert found is not None
        self.wires.timers.advance(0.01)  # what it caused arrives
        return found[0][0]

    def has_ended(self) -> bool:
        return self._client.is_closed and not self._client.received


class SimulatedServers:
    """Simulated ones."""

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.names = list(wires.servers)
        self._clients = {name: self.client(name) for name in self.names}

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        self._clients[name].send(*words)
        return self._clients[name].reply()

    def client(self, name: str) -> _SimulatedClient:
        return _SimulatedClient(self.wires, name)

    def settle(self, name: str, text: str) -> None:
        self.wait_until(lambda: text in self.ask(name, "INFO", "replication").decode(), f"{name} to say {text}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        for _ in range(300):
            if condition():
                return
            self.wires.timers.advance(0.1)
        raise AssertionError(f"waited in vain for {what}")

    def connect(self, name: str) -> None:
        """Connect anew to a server that was started again."""
        self._clients[name] = self.client(name)


class Recorder:
    """What the servers say at each point, replication ids by the order in which they are met."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.said: list[Any] = []
        self._ids: dict[str, str] = {"0" * 40: "none"}
        self._ports = {name.rpartition(":")[2]: f"port{at}" for at, name in enumerate(servers.names)}

    def note(self, what: str) -> None:
        """Keep what INFO and ROLE say on all servers."""
        for at in range(len(self.servers.names)):
            self.note_one(what, at)

    def note_one(self, what: str, at: int) -> None:
        """Keep what one says."""
        name = self.servers.names[at]
        info = self.servers.ask(name, "INFO", "replication") + b"\r\n" + self.servers.ask(name, "INFO", "stats")
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        told = {field: self.plain(fields[field]) for field in (*TOLD, *SYNCS) if field in fields}
        role = self.servers.ask(name, "ROLE")
        self.said.append((what, at, told, self.plain(repr(role))))

    def plain(self, text: str) -> str:
        """Return a text without what differs from run to run."""

        def named(found: re.Match[str]) -> str:
            return self._ids.setdefault(found[0], f"id{len(self._ids)}")

        text = re.sub(r"[0-9a-f]{40}", named, text)
        text = re.sub(r",lag=-?\d", "", text)
        return re.sub(r"\d{4,5}", lambda found: self._ports.get(found[0], found[0]), text)
