"""Servers that come back under another address."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from agents_redis_ha import lab

pytestmark = pytest.mark.faults

CASES = [("sentinel", False), ("sentinel", True), ("cluster", False), ("cluster", True)]


@pytest.mark.parametrize(("name", "links"), CASES)
def test_a_replica_and_then_its_primary_come_back_under_another_address(name: lab.Topology, links: bool) -> None:
    with lab.start(name, links=links, proxies=links) as topology:
        primary = topology.primary("key")
        replica = topology.replicas_of(primary)[0]
        primary.ask("SET", "key", "1")
        for node in (replica, primary):
            before = {node.address, node.announced_address}
            topology.move_address(node)
            assert not before & {node.address, node.announced_address}
            # A cluster's members name a replica to clients only once they have heard of its offset, by a later ping.
            wanted = {other.announced_port for other in topology.nodes}
            lab.wait_until(
                lambda wanted=wanted: named(topology) >= wanted,  # type: ignore[misc]
                "all new addresses to be named",
            )
            assert topology.primary("key").ask("GET", "key") == "1"
        if node.proxy:
            assert dialled(topology.config())[node.announced_address] == node.proxy.address
        old = topology.primary("key")
        topology.kill(old)
        assert topology.wait_for_new_primary(old).ask("GET", "key") == "1"


def dialled(config: Any) -> dict[str, str]:
    """From the address that a server announces to the one that a client dials."""
    return {str(announced): str(address) for announced, address in config.address_map}


def named(topology: lab.Lab) -> set[int]:
    """The ports that the topology tells its clients."""
    if topology.topology == "cluster":
        shards = topology.nodes[1].ask("CLUSTER", "SLOTS")
        return {int(member[1]) for shard in shards for member in shard[2:]}
    sentinel = topology.sentinels[0]
    rows = [dict(zip(row[::2], row[1::2], strict=True)) for row in sentinel.ask("SENTINEL", "REPLICAS", "mymaster")]
    primary = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
    return {int(primary[1]), *(int(row["port"]) for row in rows)}


def test_a_single_server_comes_back_under_another_address_with_its_data() -> None:
    with lab.start("standalone", proxies=True) as topology:
        node = topology.primary()
        node.ask("SET", "key", "1")
        before = node.port
        topology.move_address(node)
        assert node.port != before
        assert node.proxy is not None
        with redis.Redis(host=node.proxy.host, port=node.proxy.port) as through:
            assert through.get("key") == b"1"


def test_a_sentinel_does_not_move() -> None:
    with lab.start("sentinel") as topology, pytest.raises(lab.LabError, match="is no data server"):
        topology.move_address(topology.sentinels[0])
