"""A simulated cluster beside a real one: what is answered while slots move, and what is told around failovers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import pytest

from agents_redis_ha import lab
from tests.simulation.bus import form
from tests.simulation.bus.routing import slot_of
from tests.simulation.fidelity.servers import RealServers, Recorder, Servers, SimulatedServers
from tests.simulation.wires import Wires

CONFIG = {
    "repl-ping-replica-period": "1",
    "repl-diskless-sync-delay": "0",
    "cluster-replica-validity-factor": "0",
    "cluster-node-timeout": "1000",
    "appendonly": "no",
}


class Place(NamedTuple):
    """Where keys with a tag are: their slot, the number of its owner and of the next primary."""

    tag: str
    slot: int
    source: int
    target: int


def place(tag: str) -> Place:
    slot = slot_of(tag.encode())
    source = next(at for at in range(3) if slot < 16384 * (at + 1) // 3)
    return Place(tag, slot, source, (source + 1) % 3)


class RealCluster(RealServers):
    """The real one, and what strikes it."""

    def __init__(self, cluster: lab.Lab) -> None:
        super().__init__(cluster.nodes)
        self._cluster = cluster

    def kill(self, name: str) -> None:
        self._cluster.kill(self._cluster.nodes[self.names.index(name)])

    def restart(self, name: str) -> None:
        self._cluster.restart(self._cluster.nodes[self.names.index(name)])
        self.connect(name)


class SimulatedCluster(SimulatedServers):
    """The simulated one."""

    def kill(self, name: str) -> None:
        self.wires.servers[name].crash()

    def restart(self, name: str) -> None:
        self.wires.servers[name].restart("nothing")
        self.connect(name)
        self.wires.timers.advance(0.5)


Cluster = RealCluster | SimulatedCluster


def told(servers: Servers, recorder: Recorder, what: str, but: str = "") -> None:
    """Keep what each member says of the cluster."""
    for at, name in enumerate(servers.names):
        if name != but:
            info = dict(
                line.split(":") for line in servers.ask(name, "CLUSTER", "INFO").decode().split() if ":" in line
            )
            fields = ("state", "slots_assigned", "slots_ok", "slots_fail", "size", "current_epoch", "my_epoch")
            slots = recorder.plain(repr([row[:3] for row in servers.ask(name, "CLUSTER", "SLOTS")]))
            recorder.said.append((what, at, {field: info[f"cluster_{field}"] for field in fields}, slots))


def owner_is(servers: Servers, slot: int, name: str, asked: str) -> Callable[[], bool]:
    """Return whether a member takes another one for the owner of the slot."""

    def find() -> bool:
        rows = servers.ask(asked, "CLUSTER", "SLOTS")
        owners = [f"{row[2][0].decode()}:{row[2][1]}" for row in rows if row[0] <= slot <= row[1]]
        return owners == [name]

    return find


def is_well(servers: Servers, name: str) -> bool:
    """Whether a member takes the cluster for well."""
    return b"state:ok" in servers.ask(name, "CLUSTER", "INFO")


def replication_told(servers: Servers, recorder: Recorder, at: int) -> None:
    """Keep a member's role and the ids of its history; the offsets count PINGs."""
    name = servers.names[at]
    info = dict(line.split(":", 1) for line in servers.ask(name, "INFO", "replication").decode().split() if ":" in line)
    fields = ("role", "master_link_status", "connected_slaves", "master_replid", "master_replid2")
    recorder.said.append((at, {field: recorder.plain(info[field]) for field in fields if field in info}))


def move_a_slot(servers: Cluster, at: Place) -> list[Any]:
    """Requests with one key and more, to both ends, at each step of a migration."""
    one, other = servers.names[at.source], servers.names[at.target]
    ids = {name: servers.ask(name, "CLUSTER", "MYID").decode() for name in (one, other)}
    recorder = Recorder(servers)
    said = recorder.said
    touch = f"redis.call('HSET', KEYS[1], 'f', ARGV[1]) return redis.call('EXISTS', KEYS[1], '{at.tag}items')"
    items, meta, ops = (f"{at.tag}{part}" for part in ("items", "meta", "ops"))

    def requests(step: str) -> None:
        for name in (one, other):
            for asking in (False, True):
                for words in (
                    ("EXISTS", items),
                    ("LLEN", ops),
                    ("MGET", items, meta),
                    ("DEL", f"{at.tag}x", f"{at.tag}y"),
                    ("EVAL", touch, 1, meta, step),
                    ("EVAL", touch, 3, meta, items, ops, step),
                    ("EVAL", "return redis.call('GET', '{elsewhere}')", 1, meta),
                ):
                    if asking:
                        servers.ask(name, "ASKING")
                    reply = servers.ask(name, *words)
                    said.append((step, name == one, asking, words[0], recorder.plain(repr(reply))))

    def setslot(name: str, *words: str) -> None:
        said.append(recorder.plain(repr(servers.ask(name, "CLUSTER", "SETSLOT", at.slot, *words))))

    servers.ask(one, "RPUSH", items, "1")
    requests("before")
    setslot(one, "IMPORTING", ids[other])
    setslot(other, "MIGRATING", ids[one])
    setslot(other, "IMPORTING", ids[one])
    requests("importing")
    setslot(one, "MIGRATING", ids[other])
    requests("migrating")
    host, port = other.split(":")
    for keys in ((meta,), (f"{at.tag}none",), (items, ops)):
        said.append(servers.ask(one, "MIGRATE", host, port, "", 0, 5000, "KEYS", *keys))
        requests(f"moved {keys}")
    setslot(one, "NODE", ids[other])
    left = servers.ask(one, "CLUSTER", "GETKEYSINSLOT", at.slot, 10)
    said.append(sorted(left))
    if left:
        said.append(servers.ask(one, "MIGRATE", host, port, "", 0, 5000, "KEYS", *left))
        said.append(servers.ask(one, "MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS", *left))
    requests("all moved")
    setslot(other, "NODE", ids[other])
    setslot(one, "NODE", ids[other])
    for name in servers.names:
        servers.wait_until(owner_is(servers, at.slot, other, name), "all members to know the owner")
    requests("done")
    told(servers, recorder, "done")
    return said


def fail_over_by_hand(servers: Cluster, at: Place) -> list[Any]:
    """A replica is told to take over; nothing is lost."""
    primary, replica = servers.names[at.source], servers.names[at.source + 3]
    recorder = Recorder(servers)
    told(servers, recorder, "before")
    servers.ask(primary, "SET", at.tag, "1")
    said = [servers.ask(primary, "WAIT", 1, 5000), servers.ask(primary, "CLUSTER", "FAILOVER")]
    said.append(servers.ask(replica, "CLUSTER", "FAILOVER"))
    for name in servers.names:
        servers.wait_until(owner_is(servers, at.slot, replica, name), "all members to know the new primary")
    servers.settle(primary, "master_link_status:up")
    servers.settle(replica, "state=online")
    said.append(servers.ask(replica, "SET", at.tag, "2"))
    said.append(servers.ask(replica, "WAIT", 1, 5000))
    said.append(recorder.plain(repr(servers.ask(primary, "SET", at.tag, "3"))))
    told(servers, recorder, "after")
    for number in (at.source, at.source + 3):
        replication_told(servers, recorder, number)
    return [*said, *recorder.said]


def kill_a_primary(servers: Cluster, at: Place) -> list[Any]:
    """A primary dies, its replica is elected, it comes back empty."""
    primary, replica = servers.names[at.source], servers.names[at.source + 3]
    recorder = Recorder(servers)
    servers.ask(primary, "SET", at.tag, "1")
    said = [servers.ask(primary, "WAIT", 1, 5000)]
    servers.kill(primary)
    others = [name for name in servers.names if name != primary]
    for name in others:
        servers.wait_until(owner_is(servers, at.slot, replica, name), "all members to know the new primary")
        servers.wait_until(partial(is_well, servers, name), "the cluster to be well")
    told(servers, recorder, "replaced", but=primary)
    said += [servers.ask(replica, "GET", at.tag), servers.ask(replica, "SET", at.tag, "2")]
    servers.restart(primary)
    servers.settle(primary, "master_link_status:up")
    servers.wait_until(owner_is(servers, at.slot, replica, primary), "the old primary to know the new one")
    servers.settle(replica, "state=online")
    said += [servers.ask(replica, "SET", at.tag, "3"), servers.ask(replica, "WAIT", 1, 5000)]
    told(servers, recorder, "back")
    for number in (at.source, at.source + 3):
        replication_told(servers, recorder, number)
    return [*said, *recorder.said]


SCENARIOS = (move_a_slot, fail_over_by_hand, kill_a_primary)


def compare(scenario: Callable[[Cluster, Place], list[Any]], at: Place) -> None:
    """Run a scenario on a real and on a simulated cluster, and compare what was said."""
    with ExitStack() as stack:
        cluster = stack.enter_context(lab.start("cluster", config=CONFIG, persist=False))
        theirs = RealCluster(cluster)
        stack.enter_context(theirs)
        wires = Wires(theirs.names, CONFIG)
        servers = [wires.servers[name] for name in theirs.names]
        order = [number for shard in range(3) for number in (shard, shard + 3)]
        ids = [theirs.ask(theirs.names[number], "CLUSTER", "MYID").decode() for number in order]
        form([[servers[number], servers[number + 3]] for number in range(3)], ids)
        wires.timers.advance(3.0)
        simulated, real = scenario(SimulatedCluster(wires), at), scenario(theirs, at)
    for ours, said in zip(simulated, real, strict=True):
        assert ours == said


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_simulated_cluster_says_what_a_real_one_says(scenario: Callable[[Cluster, Place], list[Any]]) -> None:
    compare(scenario, place("{s7}"))


@pytest.mark.faults
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_twenty_failovers_and_ten_moves_are_those_of_a_real_cluster(
    scenario: Callable[[Cluster, Place], list[Any]], number: int
) -> None:
    compare(scenario, place(f"{{t{number}}}"))
