"""Servers that are up and refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from agents_redis_ha import lab

pytestmark = pytest.mark.faults

TOPOLOGIES: list[lab.Topology] = ["standalone", "sentinel", "cluster"]


@pytest.fixture(scope="module", params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Iterator[lab.Lab]:
    with lab.start(request.param, down_after_ms=5_000, node_timeout_ms=5_000) as started:
        yield started


@pytest.fixture
def client(topology: lab.Lab) -> Iterator[redis.Redis]:
    with topology.client(topology.primary("key")) as connected:
        connected.set("key", "1")
        yield connected
        connected.set("key", "1")


def test_directives_are_restored_when_the_block_ends(topology: lab.Lab, client: redis.Redis) -> None:
    node = topology.primary("key")
    with lab.configure(node, min_replicas_to_write=5), pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        client.set("key", "2")
    with pytest.raises(lab.LabError, match="has no directive no-such-thing"):
        with lab.configure(node, min_replicas_to_write=5, no_such_thing=1):
            pass


def test_a_full_memory_refuses_writes(topology: lab.Lab, client: redis.Redis) -> None:
    with lab.fill_memory(topology.primary("key")):
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("key", "2")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.eval("return redis.call('SET', KEYS[1], '2')", 1, "key")
        assert client.get("key") == b"1"


def test_saves_that_fail_refuse_writes(topology: lab.Lab, client: redis.Redis) -> None:
    with lab.fail_saves(topology.primary("key")):
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("key", "2")
        assert client.get("key") == b"1"


def test_a_server_with_too_many_clients_refuses_connections(topology: lab.Lab, client: redis.Redis) -> None:
    node = topology.primary("key")
    with lab.limit_clients(node):
        assert client.get("key") == b"1"  # it was there before
        with topology.client(node) as another, pytest.raises(redis.ConnectionError):
            another.ping()
    with topology.client(node) as another:
        assert another.ping()


def test_the_connections_of_all_clients_are_closed(topology: lab.Lab, client: redis.Redis) -> None:
    node = topology.primary("key")
    before, own = client.client_id(), node.ask("CLIENT", "ID")
    assert lab.kill_clients(node) >= 1
    assert client.client_id() != before
    assert node.ask("CLIENT", "ID") == own


def test_a_server_loads_its_data_for_a_while_and_keeps_its_place(topology: lab.Lab, client: redis.Redis) -> None:
    node = topology.primary("key")
    began = time.monotonic()
    with lab.hold_loading(node, seconds=1.5):
        with pytest.raises(redis.exceptions.BusyLoadingError):
            client.ping()
        lab.wait_until(client.ping, "the end of the loading")
        assert time.monotonic() - began > 1.5
    with lab.hold_loading(node, seconds=120):
        with pytest.raises(redis.exceptions.BusyLoadingError):
            client.ping()
        began = time.monotonic()
    assert time.monotonic() - began < 120
    topology.wait_ready()
    assert topology.primary("key") is node
    assert node.ask("GET", "key") == "1"


def test_the_older_servers_do_the_same(server_without_tls: Path) -> None:
    with lab.start("standalone", server=server_without_tls) as topology:
        node = topology.primary()
        with topology.client(node) as client:
            client.set("key", "1")
            for condition in (lab.fill_memory, lab.fail_saves):
                with condition(node), pytest.raises(redis.ResponseError, match=r"maxmemory|MISCONF"):
                    client.set("key", "2")
            with lab.limit_clients(node), topology.client(node) as another:
                with pytest.raises(redis.ConnectionError):
                    another.ping()
            with lab.hold_loading(node), pytest.raises(redis.exceptions.BusyLoadingError):
                client.ping()
            topology.restart_empty(node)
            assert client.get("key") is None


def test_a_server_without_an_append_only_file_has_nothing_to_load() -> None:
    with lab.start("standalone", persist=False) as topology:
        with pytest.raises(lab.LabError, match="persist=True"), lab.hold_loading(topology.primary()):
            pass
