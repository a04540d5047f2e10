from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from agents_redis_ha import lab


@pytest.fixture
def topology() -> Iterator[lab.Lab]:
    with lab.start("sentinel", down_after_ms=500) as started:
        yield started


def test_sentinel_lab_starts_with_everybody_known_to_everybody(topology: lab.Lab) -> None:
    assert (len(topology.nodes), len(topology.sentinels)) == (3, 3)
    assert topology.primaries() == [topology.primary()] == topology.nodes[:1]
    assert topology.replicas_of(topology.primary()) == topology.nodes[1:]
    assert topology.start_seconds > 0
    for node in topology.sentinels:
        assert node.role() == "sentinel"
        with topology.client(node) as client:
            state = client.sentinel_master("mymaster")
        assert (state["num-slaves"], state["num-other-sentinels"]) == (2, 2)


def test_sentinel_lab_elects_a_new_primary_after_a_kill_and_the_old_one_rejoins_as_a_replica(
    topology: lab.Lab,
) -> None:
    old = topology.primary()
    with topology.client(old) as client:
        client.set("kept", "1")
        assert client.wait(2, 1000) == 2
    topology.kill(old)
    assert not old.alive
    assert old.role() is None
    new = topology.wait_for_new_primary(old)
    assert new is not old
    assert topology.primary() is new
    topology.restart(old)
    topology.wait_ready()
    assert old.role() == "replica"
    assert old in topology.replicas_of(new)
    with topology.client(old) as client:
        assert client.get("kept") == b"1"


def test_sentinel_lab_fails_over_from_a_stalled_primary_which_then_follows(
    topology: lab.Lab,
) -> None:
    old = topology.primary()
    topology.stall(old)
    with redis.Redis(port=old.port, socket_timeout=0.1, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
    new = topology.wait_for_new_primary(old)
    topology.resume(old)
    topology.wait_ready()
    assert topology.replicas_of(new).count(old) == 1


def test_sentinel_lab_promotes_the_replica_that_was_asked_for(topology: lab.Lab) -> None:
    old, wanted = topology.primary(), topology.nodes[2]
    topology.promote(wanted)
    assert topology.primary() is wanted
    assert old.role() == "replica"
    topology.promote(wanted)  # it is the primary already


def test_sentinel_lab_goes_on_with_one_sentinel_less(topology: lab.Lab) -> None:
    topology.kill(topology.sentinels[0])
    old = topology.primary()
    topology.stop(old)
    assert topology.wait_for_new_primary(old) in topology.nodes[1:]
    topology.restart(topology.sentinels[0])
    topology.restart(old)
    topology.wait_ready()


def test_the_client_of_redis_py_finds_the_primary_with_both_passwords() -> None:
    with lab.start("sentinel", password='a "b" \\c', sentinel_password="other") as topology:
        finder = Sentinel(
            [(node.host, node.port) for node in topology.sentinels],
            sentinel_kwargs={"password": "other"},
            password='a "b" \\c',
        )
        found = finder.discover_master("mymaster")
        assert found == ("127.0.0.1", topology.primary().port)
        with finder.master_for("mymaster") as client:
            assert client.ping()
        for sentinel in finder.sentinels:
            sentinel.close()
        assert 'b" ' not in repr(topology)


def test_a_wait_that_fails_says_what_was_missing(topology: lab.Lab) -> None:
    for sentinel in topology.sentinels[1:]:
        topology.kill(sentinel)
    with pytest.raises(lab.LabError, match="the Sentinels to agree"):
        topology.wait_ready(0.1)
    with pytest.raises(lab.LabError, match="do not agree on a primary"):
        topology.primary()
