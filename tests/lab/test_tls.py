from __future__ import annotations

import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from agents_redis_ha import lab
from agents_redis_ha._config.model import HAConfig

NATIVE = lab.find_server().native_tls
TOPOLOGIES = ["standalone", "sentinel", "cluster"]


def dial(topology: lab.Lab, address: str, **options: object) -> redis.Redis:
    settings: dict[str, object] = {
        "ssl": True,
        "ssl_ca_certs": topology.certificates.ca_file,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    host, _, port = address.rpartition(":")
    return redis.Redis(host=host, port=int(port), **settings)  # type: ignore[arg-type]


@pytest.mark.skipif(not NATIVE, reason="the server on this machine was built without TLS")
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_servers_with_tls_speak_it_themselves_and_with_each_other(name: lab.Topology) -> None:
    with lab.start(name, tls=True, password="secret") as topology:
        assert topology.tls
        assert topology.url.startswith("rediss")
        assert HAConfig.from_url(topology.url) == topology.config()
        for node in [*topology.nodes, *topology.sentinels]:
            assert node.proxy is None
            password = "secret" if node in topology.nodes else None
            with dial(topology, node.address, password=password) as client:
                assert client.ping()
            with redis.Redis(port=node.port, retry=Retry(NoBackoff(), 0)) as plain:
                with pytest.raises(redis.ConnectionError):
                    plain.ping()
        if name == "sentinel":
            old = topology.primary()
            topology.kill(old)
            assert topology.wait_for_new_primary(old) is not old
        if name == "cluster":
            with topology.client(topology.primary("key")) as client:
                client.set("key", "1")
            with topology.client(topology.move_slot(redis.crc.key_slot(b"key"))) as client:
                assert client.get("key") == b"1"


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_proxies_end_tls_for_servers_that_were_built_without(name: lab.Topology, server_without_tls: Path) -> None:
    with lab.start(name, tls=True, server=server_without_tls) as topology:
        config = topology.config()
        for node in [*topology.nodes, *topology.sentinels]:
            assert node.proxy is not None
            with dial(topology, node.proxy.address) as client:
                assert client.ping()
        for address in config.nodes:
            with dial(topology, str(address)) as client:
                assert client.ping()
        with topology.client(topology.primary()) as client:  # directly, and therefore plain
            assert client.ping()
        if name != "standalone":
            old = topology.primary()
            topology.kill(old)
            assert topology.wait_for_new_primary(old) is not old


@pytest.mark.parametrize("native", [pytest.param(True, id="native"), pytest.param(False, id="proxy")])
def test_an_unrelated_authority_is_not_trusted_and_a_client_certificate_can_be_demanded(
    native: bool, server_without_tls: Path
) -> None:
    if native and not NATIVE:
        pytest.skip("the server on this machine was built without TLS")
    server = None if native else server_without_tls
    with lab.start("standalone", mutual_tls=True, server=server) as topology:
        files, address = topology.certificates, topology.primary().dial_address
        pair = {"ssl_certfile": files.cert_file, "ssl_keyfile": files.key_file}
        with dial(topology, address, **pair) as client:
            assert client.ping()
        with dial(topology, address) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        with dial(topology, address, ssl_ca_certs=files.other_ca_file, **pair) as client:
            with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
                client.ping()
        tls = topology.config().tls
        assert tls is not None
        assert tls.cert_file == files.cert_file


def test_a_proxy_in_front_of_tls_sees_the_requests_in_plain_text() -> None:
    with lab.start("standalone", tls=True, proxies=True) as topology:
        proxy = topology.primary().proxy
        assert proxy is not None
        with dial(topology, proxy.address) as client:
            client.set("seen", "1")
            assert b"seen" in proxy.commands[-1]
            proxy.cut_next_reply(b"INCR")
            with pytest.raises(redis.ConnectionError):
                client.incr("seen")
            assert client.get("seen") == b"2"


def test_a_lab_without_trustme_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(lab.LabError, match=r"trustme.*pip install 'openai-agents-redis-ha\[lab\]'"):
        lab.start("standalone", tls=True)
