from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.crc import key_slot

from agents_redis_ha import HAConfig, lab
from agents_redis_ha.lab.cluster import _MANUAL_FAILOVER_SECONDS, ClusterLab

TAG = "{moving}"
SLOT = key_slot(b"moving")


@pytest.fixture(scope="module")
def topology() -> Iterator[lab.Lab]:
    """Start one cluster for all tests here; each leaves it in order."""
    with lab.start("cluster", password="secret") as started:
        yield started


def keys(count: int) -> list[str]:
    return [f"{TAG}:{number}" for number in range(count)]


def test_cluster_lab_starts_with_all_slots_served_and_a_replica_each(topology: lab.Lab) -> None:
    assert topology.start_seconds > 0
    assert HAConfig.from_url(topology.url) == topology.config()
    assert topology.primaries() == topology.nodes[:3]
    for number, primary in enumerate(topology.nodes[:3]):
        assert topology.replicas_of(primary) == [topology.nodes[number + 3]]
    with redis.RedisCluster("127.0.0.1", topology.nodes[4].port, password="secret") as client:
        for key in ("a", "b", "c", "d"):
            client.set(key, "1")
            assert client.get_node_from_key(key).port == topology.primary(key).port


def test_cluster_lab_moves_a_slot_with_its_keys_while_the_test_stands_in_the_middle(
    topology: lab.Lab,
) -> None:
    source = topology.primary(TAG)
    target = next(node for node in topology.primaries() if node is not source)
    with topology.client(source) as here, topology.client(target) as there:
        for key in keys(25):
            here.set(key, "1")
        move = topology.begin_slot_move(SLOT, target)
        assert (move.source, move.target) == (source, target)
        assert move.migrate_keys(10) == 10
        assert move.keys_left() == 15
        with pytest.raises(redis.exceptions.AskError):
            here.get(f"{TAG}:absent")
        assert topology.primary(TAG) is source
        move.finish()
        assert move.finished
        assert topology.primary(TAG) is target
        assert sum(there.exists(key) for key in keys(25)) == 25
    topology.wait_ready()


def test_cluster_lab_calls_the_test_when_half_of_the_slot_has_moved(topology: lab.Lab) -> None:
    source = topology.primary(TAG)
    left: list[int] = []
    with topology.client(source) as client:
        for key in keys(20):
            client.set(key, "1")
        there = client.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT)
        target = topology.move_slot(
            SLOT,
            pause=lambda: left.append(client.execute_command("CLUSTER", "COUNTKEYSINSLOT", SLOT)),
        )
    assert left == [there - there // 2]
    assert target is not source
    assert topology.primary(TAG) is target


def test_a_slot_cannot_be_moved_to_its_owner_or_to_a_replica(topology: lab.Lab) -> None:
    for target in (topology.primary(TAG), topology.nodes[3]):
        with pytest.raises(lab.LabError, match="it is no other primary"):
            topology.begin_slot_move(SLOT, target)


def test_cluster_lab_elects_a_new_primary_after_a_kill_and_the_old_one_rejoins_as_a_replica(
    topology: lab.Lab,
) -> None:
    old, heir = topology.nodes[2], topology.nodes[5]
    topology.kill(old)
    assert topology.wait_for_new_primary(old) is heir
    assert heir in topology.primaries()
    topology.restart(old)
    topology.wait_ready()
    assert topology.replicas_of(heir) == [old]

    topology.promote(old)
    assert old in topology.primaries()
    assert topology.replicas_of(old) == [heir]


@pytest.mark.faults
def test_cluster_lab_promotes_a_replica_that_has_given_its_failover_up(topology: lab.Lab) -> None:
    replica = topology.replicas_of(topology.primaries()[0])[0]
    voters = topology.primaries()[1:]
    for voter in voters:
        topology.stall(voter)
    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(topology.promote, replica)
        time.sleep(_MANUAL_FAILOVER_SECONDS + 1)
        assert not promotion.done()
        for voter in voters:
            topology.resume(voter)
        promotion.result()
    assert replica in topology.primaries()


def test_cluster_lab_fails_over_from_a_stalled_primary_which_then_follows(
    topology: lab.Lab,
) -> None:
    old = topology.nodes[1]
    topology.stall(old)
    new = topology.wait_for_new_primary(old)
    assert new is topology.nodes[4]
    topology.resume(old)
    topology.wait_ready()
    assert topology.replicas_of(new) == [old]


def test_members_whose_introduction_came_to_nothing_are_introduced_again() -> None:
    with lab.start("cluster") as topology:
        assert isinstance(topology, ClusterLab)
        first, second, _ = topology.primaries()
        first.ask("CLUSTER", "FORGET", second.ask("CLUSTER", "MYID"))
        lab.wait_until(topology._all_met, "the members of the cluster to know each other again")
