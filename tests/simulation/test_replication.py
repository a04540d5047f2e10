"""Replication of simulated servers: what INFO and ROLE say around promotions and syncs is what real servers say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from agents_redis_ha import lab
from tests.simulation.fidelity.servers import RealServers, Recorder, Servers, SimulatedServers
from tests.simulation.wires import Wires

CONFIG = {"repl-ping-replica-period": "3600", "repl-diskless-sync-delay": "0", "appendonly": "no", "save": '""'}


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


def follow(servers: Servers, replica: str, primary: str) -> None:
    host, port = primary.split(":")
    assert servers.ask(replica, "REPLICAOF", host, port) == b"OK"
    servers.settle(replica, "master_link_status:up")
    servers.settle(primary, f"port={replica.split(':')[1]},state=online")


def wait_and_demote(servers: Servers) -> list[Any]:
    """WAIT is answered, runs out of time, and ends with the primary's role."""
    one, two, _ = servers.names
    follow(servers, two, one)
    said = [servers.ask(one, "WAIT", 1, 0), servers.ask(one, "SET", "a", 1), servers.ask(one, "WAIT", 1, 0)]
    said += [servers.ask(one, "WAIT", 2, 50), servers.ask(two, "WAIT", 0, 0), servers.ask(two, "SET", "a", 2)]
    said += [servers.ask(one, *words) for words in (("MULTI",), ("SET", "b", 1), ("WAIT", 5, 0), ("EXEC",))]
    client = servers.client(one)
    client.send("SET", "c", 1)
    said.append(client.reply())
    client.send("WAIT", 3, 0)
    servers.ask(two, "REPLICAOF", "NO", "ONE")
    host, port = two.split(":")
    said.append(servers.ask(one, "REPLICAOF", host, port))
    return [*said, client.reply(), client.has_ended()]


def expire_on_a_replica(servers: Servers) -> list[Any]:
    """A replica does not show what is expired, and has it no more when its primary says so."""
    one, two, _ = servers.names
    follow(servers, two, one)
    said = [servers.ask(one, "SET", "long", 1, "PX", 100_000), servers.ask(one, "SET", "short", 1, "PX", 150)]
    said += [
        servers.ask(one, "RPUSH", "list", 1),
        servers.ask(one, "PEXPIRE", "list", 150),
        servers.ask(one, "WAIT", 1, 0),
    ]
    servers.ask(one, "DEBUG", "SLEEP", "0.3")
    said += [servers.ask(two, "GET", "short"), servers.ask(two, "LLEN", "list"), servers.ask(two, "EXISTS", "long")]
    said += [servers.ask(one, "GET", "short"), servers.ask(one, "LLEN", "list"), servers.ask(one, "WAIT", 1, 0)]
    return [*said, servers.ask(two, "DBSIZE"), servers.ask(one, "DBSIZE")]


def run_a_script_after_a_promotion(servers: Servers) -> list[Any]:
    """A promoted replica does not know the scripts that its primary ran."""
    one, two, _ = servers.names
    follow(servers, two, one)
    source = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('RPUSH', KEYS[2], 'x')"
    sha = servers.ask(one, "SCRIPT", "LOAD", source)
    said = [servers.ask(one, "EVALSHA", sha, 2, "k", "l", "v"), servers.ask(one, "WAIT", 1, 0)]
    said += [servers.ask(two, "EVALSHA", sha, 2, "k", "l", "v"), servers.ask(two, "EVAL", source, 2, "k", "l", "v")]
    servers.ask(two, "REPLICAOF", "NO", "ONE")
    return [*said, servers.ask(two, "EVALSHA", sha, 2, "k", "l", "w"), servers.ask(two, "GET", "k")]


def lack_replicas(servers: Servers) -> list[Any]:
    """A primary refuses writes while too few replicas are well."""
    one, two, _ = servers.names
    said = [servers.ask(one, "CONFIG", "SET", "min-replicas-to-write", 1), servers.ask(one, "SET", "a", 1)]
    said += [servers.ask(one, "EVAL", "return redis.call('SET', 'a', 1)", 0), servers.ask(one, "GET", "a")]
    follow(servers, two, one)
    servers.settle(one, "min_slaves_good_slaves:1")
    said += [servers.ask(one, "SET", "a", 1)]
    servers.ask(two, "REPLICAOF", "NO", "ONE")
    servers.settle(one, "min_slaves_good_slaves:0")
    return [*said, servers.ask(one, "SET", "a", 1)]


def follow_in_a_chain(servers: Servers) -> list[Any]:
    """A replica's replica has the same history; it may go on from the promoted one in the middle."""
    one, two, three = servers.names
    recorder = Recorder(servers)
    follow(servers, two, one)
    follow(servers, three, two)
    servers.ask(one, "SET", "a", 1)
    for name in (two, three):
        servers.settle(name, f"slave_repl_offset:{servers.ask(one, 'ROLE')[1]}")
    servers.settle(two, f"state=online,offset={servers.ask(one, 'ROLE')[1]}")
    servers.settle(one, f"state=online,offset={servers.ask(one, 'ROLE')[1]}")
    recorder.note("chain")
    servers.ask(two, "REPLICAOF", "NO", "ONE")
    servers.settle(two, f"port={three.split(':')[1]},state=online")
    servers.settle(three, "master_link_status:up")
    servers.ask(two, "SET", "b", 1)
    for name in (two, three):
        servers.settle(name, f"_repl_offset:{servers.ask(two, 'ROLE')[1]}")
    servers.settle(two, f"state=online,offset={servers.ask(two, 'ROLE')[1]}")
    recorder.note("promoted")
    return recorder.said


SCENARIOS = (wait_and_demote, expire_on_a_replica, run_a_script_after_a_promotion, lack_replicas, follow_in_a_chain)


def both(scenario: Callable[[Servers], list[Any]]) -> tuple[list[Any], list[Any]]:
    config = CONFIG | {"enable-debug-command": "yes"}
    with ExitStack() as stack:
        labs = [stack.enter_context(lab.start("standalone", config=config, persist=False)) for _ in range(3)]
        theirs = stack.enter_context(RealServers([each.primary() for each in labs]))
        ours = SimulatedServers(Wires(theirs.names, CONFIG | {"save": ""}))
        return scenario(ours), scenario(theirs)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_simulated_servers_say_what_real_ones_say(scenario: Callable[[Servers], list[Any]]) -> None:
    simulated, real = both(scenario)
    for ours, theirs in zip(simulated, real, strict=True):
        assert ours == theirs


@pytest.mark.parametrize("diverge", [False, True], ids=["partial", "full"])
def test_roles_ids_and_offsets_around_a_promotion_are_those_of_real_servers(diverge: bool) -> None:
    simulated, real = both(partial(promote_and_follow, diverge=diverge))
    for ours, theirs in zip(simulated, real, strict=True):
        assert ours == theirs
