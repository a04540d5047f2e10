"""A simulated cluster: redirections, failovers and slots that move."""

from __future__ import annotations

import pytest

from tests.simulation.bus import Member, form
from tests.simulation.bus.routing import slot_of
from tests.simulation.wires import Client, Wires

NAMES = [f"10.0.0.{at}:6379" for at in range(1, 7)]
CONFIG = {"cluster-node-timeout": "1000", "repl-diskless-sync-delay": "0", "cluster-replica-validity-factor": "0"}


class Cluster:
    """Three shards of two; the first three servers are the primaries."""

    def __init__(self) -> None:
        self.wires = Wires(NAMES, CONFIG)
        servers = [self.wires.servers[name] for name in NAMES]
        formed = form([[servers[at], servers[at + 3]] for at in range(3)])
        self.members = sorted(formed, key=lambda member: NAMES.index(member.server.name))
        self.clients = [self.wires.client(name) for name in NAMES]
        self.wires.timers.advance(3.0)

    def owner(self, key: str) -> int:
        """Which member owns a key, by its own view."""
        slot = slot_of(key.encode())
        return next(
            at for at, each in enumerate(self.members) if each.slots.owners[slot] == each.id and each.server.is_up
        )

    def owner_elsewhere(self, key: str, but: int) -> bool:
        """Whether another member owns a key, by its own view."""
        slot = slot_of(key.encode())
        return any(each.slots.owners[slot] == each.id for at, each in enumerate(self.members) if at != but)

    def advance_until(self, condition: object, seconds: float = 30.0) -> None:
        assert callable(condition)
        for _ in range(int(seconds * 10)):
            if condition():
                return
            self.wires.timers.advance(0.1)
        raise AssertionError("it does not happen")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def views(members: list[Member]) -> set[tuple[str | None, ...]]:
    return {tuple(each.slots.owners) for each in members if each.server.is_up}


def test_a_request_is_led_to_the_owner_of_its_slot(cluster: Cluster) -> None:
    owner = cluster.owner("key")
    replies = [client.ask("SET", "key", "1") for client in cluster.clients]
    moved = f"-MOVED {slot_of(b'key')} {NAMES[owner]}\r\n".encode()
    assert replies == [b"+OK\r\n" if at == owner else moved for at in range(6)]
    assert cluster.clients[owner].ask("MGET", "a", "b").startswith(b"-CROSSSLOT")


def test_a_replica_takes_over_from_a_primary_that_is_dead(cluster: Cluster) -> None:
    owner = cluster.owner("key")
    cluster.clients[owner].ask("SET", "key", "1")
    cluster.wires.timers.advance(0.1)
    cluster.members[owner].server.crash()
    cluster.advance_until(lambda: len(views(cluster.members)) == 1 and cluster.owner_elsewhere("key", owner))
    assert cluster.clients[owner + 3].ask("GET", "key") == b"$1\r\n1\r\n"
    assert cluster.members[owner + 3].me.config_epoch == 7
    cluster.members[owner].server.restart("all")
    cluster.advance_until(lambda: cluster.members[owner].me.primary == cluster.members[owner + 3].id)
    back = cluster.wires.client(NAMES[owner])
    cluster.advance_until(lambda: b"master_link_status:up" in back.ask("INFO", "replication"))


def test_a_primary_in_the_minority_stops_and_follows_its_successor(cluster: Cluster) -> None:
    owner = cluster.owner("key")
    cluster.wires.cut_off.add(NAMES[owner])
    cluster.advance_until(lambda: cluster.clients[owner].ask("SET", "key", "1").startswith(b"-CLUSTERDOWN"))
    cluster.advance_until(lambda: cluster.owner_elsewhere("key", owner))
    cluster.wires.cut_off.clear()
    cluster.advance_until(lambda: cluster.members[owner].me.primary is not None)
    assert cluster.clients[owner].ask("SET", "key", "1").startswith(b"-MOVED")


def test_a_failover_by_hand_loses_nothing_and_lets_writes_wait(cluster: Cluster) -> None:
    owner = cluster.owner("key")
    old = cluster.clients[owner]
    assert cluster.clients[owner + 3].ask("CLUSTER", "FAILOVER") == b"+OK\r\n"
    cluster.wires.timers.advance(0.0015)
    old.send("SET", "key", "waits")
    assert old.received == b""
    cluster.advance_until(lambda: old.received != b"")
    assert old.received == f"-MOVED {slot_of(b'key')} {NAMES[owner + 3]}\r\n".encode()
    assert cluster.owner("key") == owner + 3
    assert b"sync_full:1" in cluster.wires.client(NAMES[owner]).ask("INFO", "stats")


def test_a_slot_moves_key_by_key(cluster: Cluster) -> None:
    slot = slot_of(b"{t}a")
    source = cluster.owner("{t}a")
    target = (source + 1) % 3
    one, other = cluster.clients[source], cluster.clients[target]
    one.ask("MSET", "{t}a", "1", "{t}b", "2")
    assert other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.members[source].id) == b"+OK\r\n"
    assert one.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.members[target].id) == b"+OK\r\n"
    assert one.ask("GET", "{t}a") == b"$1\r\n1\r\n"
    assert one.ask("GET", "{t}new") == f"-ASK {slot} {NAMES[target]}\r\n".encode()
    assert one.ask("MGET", "{t}a", "{t}new").startswith(b"-TRYAGAIN")
    host, port = NAMES[target].split(":")
    assert one.ask("MIGRATE", host, port, "", 0, 1000, "KEYS", "{t}a") == b"+OK\r\n"
    assert one.ask("GET", "{t}a").startswith(b"-ASK")
    assert other.ask("GET", "{t}a").startswith(b"-MOVED")
    assert ask_asking(other, "GET", "{t}a") == b"$1\r\n1\r\n"
    assert other.ask("GET", "{t}a").startswith(b"-MOVED")
    assert ask_asking(other, "MGET", "{t}a", "{t}b").startswith(b"-TRYAGAIN")
    assert ask_asking(other, "SET", "{t}new", "3") == b"+OK\r\n"
    assert one.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.members[target].id).startswith(b"-ERR Can't assign")
    assert one.ask("MIGRATE", host, port, "", 0, 1000, "KEYS", "{t}b", "{t}none") == b"+OK\r\n"
    for client in (other, one):
        assert client.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.members[target].id) == b"+OK\r\n"
    cluster.advance_until(lambda: len(views(cluster.members)) == 1)
    assert other.ask("MGET", "{t}a", "{t}b", "{t}new") == b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"
    replica = cluster.clients[target + 3]
    replica.ask("READONLY")
    assert replica.ask("MGET", "{t}a", "{t}b") == b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"


def ask_asking(client: Client, *words: str) -> bytes:
    client.ask("ASKING")
    return client.ask(*words)


def test_a_primary_that_loads_for_long_is_replaced(cluster: Cluster) -> None:
    owner = cluster.owner("key")
    cluster.members[owner].server.crash()
    cluster.members[owner].server.restart("all", loading=10.0)
    client = cluster.wires.client(NAMES[owner])
    assert client.ask("SET", "key", "1").startswith(b"-CLUSTERDOWN")
    assert client.ask("PING").startswith(b"-LOADING")
    cluster.advance_until(lambda: cluster.owner_elsewhere("key", owner), 9.0)
    cluster.advance_until(lambda: cluster.members[owner].me.primary == cluster.members[owner + 3].id)
