from __future__ import annotations

import pytest
import redis

from agents_redis_ha import lab
from agents_redis_ha._config.model import HAConfig


def test_standalone_lab_is_ready_at_once_with_its_own_directives() -> None:
    with lab.start("standalone", config={"maxmemory": "42mb"}) as topology:
        node = topology.primary()
        assert (topology.topology, topology.nodes, topology.sentinels) == ("standalone", [node], [])
        assert topology.server_version >= (6, 2, 0)
        assert not topology.tls
        with topology.client(node) as client:
            assert client.config_get("maxmemory") == {"maxmemory": str(42 * 1024 * 1024)}
        with pytest.raises(lab.LabError, match="no certificates"):
            _ = topology.certificates


def test_a_server_keeps_its_data_over_a_stop_and_a_restart_on_the_same_port() -> None:
    with lab.start("standalone") as topology:
        node = topology.primary()
        before = (node.port, node.pid)
        with topology.client(node) as client:
            client.set("kept", "1")
            topology.stop(node)
            assert not node.alive
            with pytest.raises(redis.ConnectionError):
                client.get("kept")
            topology.restart(node)
            assert client.get("kept") == b"1"
        assert node.port == before[0]
        assert node.pid != before[1]
        assert "Ready to accept connections" in node.log_tail()


def test_a_server_without_persistence_comes_back_empty_after_a_kill() -> None:
    with lab.start("standalone", persist=False) as topology:
        node = topology.primary()
        with topology.client(node) as client:
            client.set("lost", "1")
            topology.kill(node)
            topology.restart(node)
            assert client.get("lost") is None


def test_what_one_server_cannot_do_is_a_clear_error() -> None:
    with lab.start("standalone") as topology:
        node = topology.primary()
        for impossible in (
            lambda: topology.promote(node),
            lambda: topology.wait_for_new_primary(node),
            lambda: topology.move_slot(1),
        ):
            with pytest.raises(lab.LabError, match="standalone lab has no"):
                impossible()


@pytest.mark.parametrize("topology", ["standalone", "sentinel"])
def test_the_url_and_the_config_of_a_lab_say_the_same(topology: lab.Topology) -> None:
    own = "s/e c" if topology == "sentinel" else None
    with lab.start(topology, password="p@ss:/w?rd", sentinel_password=own) as started:
        assert HAConfig.from_url(started.url) == started.config()
        assert started.config(ttl=60).ttl == 60


def test_the_config_of_a_lab_with_proxies_leads_through_them() -> None:
    with lab.start("standalone", proxies=True) as topology:
        proxy = topology.primary().proxy
        assert proxy is not None
        assert [str(node) for node in topology.config().nodes] == [proxy.address]
    with lab.start("sentinel", proxies=True) as topology:
        config = topology.config()
        assert [str(node) for node in config.nodes] == [node.address for node in topology.sentinels]
        assert {str(key): str(value) for key, value in config.address_map} == {
            node.address: node.dial_address for node in topology.nodes
        }
