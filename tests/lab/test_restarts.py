"""Restarts that an operator, or an accident, brings about."""

from __future__ import annotations

import pytest
import redis

from agents_redis_ha import lab

pytestmark = pytest.mark.faults

TOPOLOGIES: list[lab.Topology] = ["sentinel", "cluster"]


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("links", [False, True])
def test_a_primary_that_comes_back_empty_before_anybody_notices_empties_its_replicas(
    name: lab.Topology, links: bool
) -> None:
    with lab.start(name, down_after_ms=5_000, node_timeout_ms=5_000, links=links) as topology:
        primary = topology.primary("key")
        replicas = topology.replicas_of(primary)
        primary.ask("SET", "key", "1")
        assert primary.ask("WAIT", len(replicas), 1000) == len(replicas)
        topology.restart_empty(primary)
        topology.wait_ready()
        assert topology.primary("key") is primary
        assert [node.ask("DBSIZE") for node in (primary, *replicas)] == [0] * (1 + len(replicas))
        primary.ask("SET", "key", "2")


def test_a_replica_that_comes_back_empty_takes_the_data_from_its_primary() -> None:
    with lab.start("sentinel") as topology:
        primary = topology.primary()
        primary.ask("SET", "key", "1")
        topology.restart_empty(topology.nodes[2])
        topology.wait_ready()
        assert topology.nodes[2].ask("GET", "key") == "1"


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_rolling_restart_replaces_every_process_and_keeps_the_data(name: lab.Topology) -> None:
    with lab.start(name) as topology:
        before = [node.pid for node in topology.nodes]
        old = topology.primary("key")
        old.ask("SET", "key", "1")
        topology.rolling_restart()
        assert not set(before) & {node.pid for node in topology.nodes}
        assert topology.primary("key") is not old
        assert topology.primary("key").ask("GET", "key") == "1"


def test_a_rolling_restart_of_a_single_server_is_a_restart() -> None:
    with lab.start("standalone") as topology:
        before = topology.primary().pid
        topology.rolling_restart()
        assert topology.primary().pid != before


def test_all_sentinels_but_one_are_stopped_and_started_again() -> None:
    with lab.start("sentinel") as topology:
        topology.stop_sentinels(all_but=1)
        assert [node.up for node in topology.sentinels] == [True, False, False]
        with pytest.raises(redis.ConnectionError), topology.client(topology.sentinels[1]) as client:
            client.ping()
        topology.start_sentinels()
        topology.wait_ready()
        assert all(node.up for node in topology.sentinels)
