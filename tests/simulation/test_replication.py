"""Replication of simulated servers: what INFO and ROLE say around promotions and syncs is what real servers say."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from agents_redis_ha import lab
from tests.simulation.fidelity.replies import parse
from tests.simulation.wires import Wires

CONFIG = {"repl-ping-replica-period": "3600", "repl-diskless-sync-delay": "0", "appendonly": "no", "save": '""'}
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


class Servers(Protocol):
    """Three servers, real or simulated."""

    names: list[str]

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        """Return the reply."""

    def settle(self, name: str, text: str) -> None:
        """Wait until INFO says this."""


class RealServers:
    def __init__(self, labs: list[lab.Lab]) -> None:
        self._clients = {f"{each.primary().host}:{each.primary().port}": each.client(each.primary()) for each in labs}
        self.names = list(self._clients)

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        client = self._clients[name]
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command(*words)
            return connection.read_response(disable_decoding=True)
        finally:
            client.connection_pool.release(connection)

    def settle(self, name: str, text: str) -> None:
        lab.wait_until(lambda: text in self.ask(name, "INFO", "replication").decode(), f"{name} to say {text}")


class SimulatedServers:
    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self.names = list(wires.servers)

    def ask(self, name: str, *words: bytes | str | int) -> Any:
        found = parse(self._wires.ask(name, *words), 1)
        assert found is not None
        self._wires.timers.advance(0.01)  # what it caused arrives
        return found[0][0]

    def settle(self, name: str, text: str) -> None:
        for _ in range(100):
            if text in self.ask(name, "INFO", "replication").decode():
                return
            self._wires.timers.advance(0.1)
        raise AssertionError(f"{name} does not say {text}: {self.ask(name, 'INFO', 'replication').decode()}")


class Recorder:
    """What the servers say at each point, replication ids by the order in which they are met."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.said: list[Any] = []
        self._ids: dict[str, str] = {"0" * 40: "none"}
        self._ports = {name.rpartition(":")[2]: f"port{at}" for at, name in enumerate(servers.names)}

    def note(self, what: str) -> None:
        for at, name in enumerate(self.servers.names):
            info = self.servers.ask(name, "INFO", "replication") + b"\r\n" + self.servers.ask(name, "INFO", "stats")
            fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
            told = {field: self._plain(fields[field]) for field in (*TOLD, *SYNCS) if field in fields}
            role = self.servers.ask(name, "ROLE")
            self.said.append((what, at, told, self._plain(repr(role))))

    def _plain(self, text: str) -> str:
        def named(found: re.Match[str]) -> str:
            return self._ids.setdefault(found[0], f"id{len(self._ids)}")

        text = re.sub(r"[0-9a-f]{40}", named, text)
        text = re.sub(r",lag=-?\d", "", text)
        return re.sub(r"\d{4,5}", lambda found: self._ports.get(found[0], found[0]), text)


def promote_and_follow(servers: Servers, *, diverge: bool) -> list[Any]:
    """A replica is promoted, the primary follows it, a third server changes sides."""
    one, two, three = servers.names
    recorder = Recorder(servers)
    host, port = one.split(":")
    recorder.note("alone")
    servers.ask(one, "SET", "before", "1")
    for replica in (two, three):
        servers.ask(replica, "REPLICAOF", host, port)
        servers.settle(replica, "master_link_status:up")
        servers.settle(one, f"port={replica.split(':')[1]},state=online,offset=0")
    recorder.note("two replicas")
    servers.ask(one, "SET", "key", "1")
    servers.ask(one, "EVAL", "redis.call('SET', 'a', 1) return redis.call('RPUSH', 'b', 1, 2)", 0)
    servers.ask(one, "PEXPIRE", "key", 100_000)
    offset = servers.ask(one, "ROLE")[1]
    for replica in (two, three):
        servers.settle(replica, f"slave_repl_offset:{offset}")
        servers.settle(one, f"port={replica.split(':')[1]},state=online,offset={offset}")
    recorder.note("after writes")
    servers.ask(two, "REPLICAOF", "NO", "ONE")
    recorder.note("promoted")
    servers.ask(two, "SET", "new", "1")
    if diverge:
        servers.ask(one, "SET", "lost", "1")
    host, port = two.split(":")
    for replica in (one, three):
        servers.ask(replica, "REPLICAOF", host, port)
        servers.settle(replica, "master_link_status:up")
        if replica == one:  # whose own replica is sent away with the id of before, and comes back
            servers.settle(one, f"port={three.split(':')[1]},state=online")
            servers.settle(three, "master_link_status:up")
    servers.ask(two, "SET", "newer", "1")
    offset = servers.ask(two, "ROLE")[1]
    for replica in (one, three):
        servers.settle(replica, f"slave_repl_offset:{offset}")
        servers.settle(two, f"port={replica.split(':')[1]},state=online,offset={offset}")
    recorder.note("followed")
    recorder.said += [servers.ask(name, "MGET", "before", "key", "a", "new", "lost", "newer") for name in servers.names]
    return recorder.said


@pytest.mark.parametrize("diverge", [False, True], ids=["partial", "full"])
def test_roles_ids_and_offsets_around_a_promotion_are_those_of_real_servers(diverge: bool) -> None:
    with ExitStack() as stack:
        labs = [stack.enter_context(lab.start("standalone", config=CONFIG, persist=False)) for _ in range(3)]
        theirs = RealServers(labs)
        ours = SimulatedServers(Wires(theirs.names, CONFIG | {"save": ""}))
        real, simulated = promote_and_follow(theirs, diverge=diverge), promote_and_follow(ours, diverge=diverge)
    for ours_said, said in zip(simulated, real, strict=True):
        assert ours_said == said
