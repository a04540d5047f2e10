"""Real servers, cut off from each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from agents_redis_ha import ha_session, lab

TOPOLOGIES = ["sentinel", "cluster"]
PATIENCE = 10.0  # where an answer comes
MOMENT = 0.3  # where none will ever come


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Iterator[lab.Lab]:
    with lab.start(request.param, links=True) as started:
        yield started


def dial(address: Any, timeout: float) -> redis.Redis:
    host, _, port = str(address).rpartition(":")
    return redis.Redis(
        host=host, port=int(port), socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=True
    )


def connect(node: lab.Node) -> socket.socket:
    """Return a connection to the server's announced address, on which it has answered once."""
    connection = socket.create_connection((node.host, node.announced_port), PATIENCE)
    connection.sendall(b"PING\r\n")
    assert connection.recv(100) == b"+PONG\r\n"
    return connection


def reaches(config: Any, node: lab.Node, timeout: float = PATIENCE) -> bool:
    """Whether a client with this configuration gets an answer of the server, by its announced address."""
    mapped = {str(announced): str(dialled) for announced, dialled in config.address_map}
    with dial(mapped.get(node.announced_address, node.announced_address), timeout) as client:
        try:
            return bool(client.info("server")["process_id"] == node.pid)
        except redis.RedisError:
            return False


def value(node: lab.Node, key: str) -> str | None:
    if node.role() != "replica":
        return str(node.ask("GET", key))
    with node.client(decode_responses=True) as client:
        if node.ask("INFO", "cluster")["cluster_enabled"]:
            client.readonly()
        found = client.get(key)
        return None if found is None else str(found)


def leave_a_replica_behind(topology: lab.Lab) -> tuple[lab.Node, lab.Node]:
    """Return a primary and that of its replicas which is cut off with the old value of a key that is new by now."""
    primary = topology.primary("key")
    replica = topology.replicas_of(primary)[0]
    primary.ask("SET", "key", "old")
    assert primary.ask("WAIT", len(topology.replicas_of(primary)), 1000)
    topology.links.cut_replication(replica)
    primary.ask("SET", "key", "new")
    return primary, replica


def test_a_replica_whose_replication_is_cut_stays_up_and_is_promoted_with_old_data(topology: lab.Lab) -> None:
    primary, replica = leave_a_replica_behind(topology)
    assert primary.ask("WAIT", 3, 300) == len(topology.replicas_of(primary)) - 1
    with pytest.raises(lab.LabError, match=f"{replica.name} to have all writes of {primary.name}"):
        topology.wait_replicated(primary, 0.1)
    topology.wait_ready()
    assert replica.ask("ROLE")[0] == "slave"
    assert value(replica, "key") == "old"

    topology.links.mend_replication(replica)
    lab.wait_until(lambda: value(replica, "key") == "new", "the replica to catch up")

    topology.links.cut_replication(replica)
    primary.ask("SET", "key", "newer")
    topology.kill(primary)
    if topology.topology == "sentinel":  # which would choose the replica that has more
        topology.kill(next(node for node in topology.nodes if node.up and node is not replica))
    assert topology.wait_for_new_primary(primary) is replica
    assert value(replica, "key") == "new"


def test_a_replica_is_promoted_over_its_living_primary_without_the_latest_data(topology: lab.Lab) -> None:
    primary, replica = leave_a_replica_behind(topology)
    topology.promote(replica)
    assert topology.primary("key") is replica
    assert value(replica, "key") == "old"
    assert value(primary, "key") == "old"  # it follows now, and has lost the write


def test_an_isolated_primary_goes_on_for_its_side_and_is_replaced_on_the_other(topology: lab.Lab) -> None:
    old = topology.primary("key")
    inside, outside, everywhere = topology.links.config_inside(old), topology.links.config_outside(), topology.config()
    all_nodes = [*topology.nodes, *topology.sentinels]
    others = [node for node in all_nodes if node is not old]
    assert all(reaches(config, node) for config in (inside, outside, everywhere) for node in all_nodes)

    topology.links.partition(old)
    assert reaches(inside, old)
    assert reaches(outside, others[0])
    assert not reaches(outside, old, MOMENT)
    assert not any(reaches(inside, node, MOMENT) for node in others)
    assert all(reaches(everywhere, node) for node in all_nodes)
    new = topology.wait_for_new_primary(old)
    topology.wait_ready()
    assert topology.primary("key") is new
    assert {old.role(), new.role()} == {"primary"}
    if topology.topology == "sentinel":
        old.ask("SET", "key", "lost")
    new.ask("SET", "key", "kept")

    topology.links.heal()
    assert reaches(outside, old)
    topology.wait_ready()
    assert old in topology.replicas_of(new)
    assert value(old, "key") == "kept"
    assert all(reaches(config, node) for config in (inside, outside, everywhere) for node in all_nodes)


def test_a_connection_stalls_in_a_partition_and_is_reset_when_healed(topology: lab.Lab) -> None:
    old = topology.primary("key")
    with connect(old) as used, connect(old) as idle:
        topology.links.partition(old)
        with socket.create_connection((old.host, old.announced_port), PATIENCE) as fresh:
            for connection in (used, fresh):
                connection.sendall(b"SET key late\r\n")
                connection.settimeout(MOMENT)
                with pytest.raises(TimeoutError):
                    connection.recv(100)
            topology.links.heal()
            for connection in (used, fresh):
                connection.settimeout(PATIENCE)
                with pytest.raises(ConnectionResetError):
                    connection.recv(100)
        idle.sendall(b"PING\r\n")
        assert idle.recv(100) == b"+PONG\r\n"
    assert value(old, "key") in ("None", None)  # what was sent has vanished: it does not arrive late


async def test_sessions_work_on_the_side_of_their_servers(topology: lab.Lab) -> None:
    old = topology.primary()
    here = ha_session(topology.links.config_inside(old), "here")
    there = ha_session(topology.links.config_outside(), "there")
    everywhere = ha_session(topology.config(), "everywhere")
    for session in (here, there, everywhere):
        await session.add_items([{"role": "user", "content": "before"}])
    await asyncio.to_thread(topology.wait_replicated, old)  # what is under way is lost, as in a real partition
    await asyncio.to_thread(topology.links.partition, old)
    await asyncio.to_thread(topology.wait_for_new_primary, old)
    await there.add_items([{"role": "user", "content": "within"}])
    await asyncio.to_thread(topology.links.heal)
    await asyncio.to_thread(topology.wait_ready)
    for session in (here, there, everywhere):
        await session.add_items([{"role": "user", "content": "after"}])
        said = [item["content"] for item in await session.get_items()]  # type: ignore[typeddict-item]
        assert said == (["before", "within", "after"] if session is there else ["before", "after"])
        await session.close()


def test_a_sentinel_on_the_side_of_the_old_primary_goes_on_naming_it() -> None:
    with lab.start("sentinel", links=True, proxies=True, password="secret", sentinel_password="other") as topology:
        old, minority = topology.primary(), topology.sentinels[0]
        topology.links.partition(old, minority)
        new = topology.wait_for_new_primary(old)
        named = minority.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        assert int(named[1]) == old.announced_port
        assert topology.primary() is new
        topology.links.heal()
        topology.wait_ready()
        assert topology.replicas_of(new).count(old) == 1


@pytest.mark.skipif(not lab.find_server().native_tls, reason="the server on this machine was built without TLS")
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_servers_that_speak_tls_are_cut_off_too(name: lab.Topology) -> None:
    with lab.start(name, links=True, proxies=True, tls=True) as topology:
        old = topology.primary()
        topology.links.partition(old)
        new = topology.wait_for_new_primary(old)
        topology.links.heal()
        topology.wait_ready()
        assert topology.replicas_of(new).count(old) == 1


def test_servers_without_a_source_address_are_a_clear_error(server_without_tls: Path) -> None:
    with pytest.raises(lab.LabError, match=r"links=True needs servers of 7\.0 or newer.*this is 6\.2"):
        lab.start("sentinel", links=True, server=server_without_tls)


def test_a_lab_without_links_cannot_be_partitioned() -> None:
    with lab.start("standalone") as topology, pytest.raises(lab.LabError, match="start it with links=True"):
        topology.links.partition(topology.primary())
