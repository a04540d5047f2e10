"""Passwords and certificates that change while the servers run."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from agents_redis_ha import lab

pytestmark = pytest.mark.faults

NATIVE = lab.find_server().native_tls
TOPOLOGIES: list[lab.Topology] = ["standalone", "sentinel", "cluster"]


def dial(address: object, **options: object) -> redis.Redis:
    host, _, port = str(address).rpartition(":")
    return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0), **options)  # type: ignore[arg-type]


def accepts(node: lab.Node, password: str) -> bool:
    with dial(node.address, password=password) as client:
        try:
            return bool(client.info("server"))
        except redis.AuthenticationError:
            return False


def fail_over(topology: lab.Lab) -> None:
    if topology.topology != "standalone":
        old = topology.primary()
        topology.kill(old)
        topology.wait_for_new_primary(old)
        topology.restart(old)
        topology.wait_ready()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_password_is_added_before_the_old_one_is_dropped(name: lab.Topology) -> None:
    with lab.start(name, password="old", links=name == "cluster") as topology:
        with dial(topology.nodes[0].address, password="old") as before:
            before.ping()
            topology.credentials.add_password("new pass")
            assert all(accepts(node, "old") and accepts(node, "new pass") for node in topology.nodes)
            secret = topology.config().password
            assert secret is not None
            assert secret.get_secret_value() == "new pass"
            topology.credentials.drop_password()
            before.ping()  # it has logged in
        assert not any(accepts(node, "old") for node in topology.nodes)
        assert all(accepts(node, "new pass") for node in topology.nodes)
        fail_over(topology)  # the servers and Sentinels log in to each other with the new one
        assert not any(accepts(node, "old") for node in topology.nodes)
        if name == "cluster":
            topology.move_slot(0)


def test_the_sentinels_own_password_is_changed_too() -> None:
    with lab.start("sentinel", password="data", sentinel_password="old") as topology:
        topology.credentials.rotate_password("new", of="sentinels")
        topology.restart(topology.sentinels[0])
        assert not any(accepts(node, "old") for node in topology.sentinels)
        assert all(accepts(node, "new") for node in topology.sentinels)
        fail_over(topology)


def test_a_password_that_was_never_set_cannot_be_rotated() -> None:
    with lab.start("standalone", password="old") as topology:
        with pytest.raises(lab.LabError, match="sentinel_password="):
            topology.credentials.rotate_password("new", of="sentinels")
        topology.kill(topology.primary())
        with pytest.raises(lab.LabError, match="data-1 cannot be asked now"):
            topology.credentials.rotate_password("new")


def serial(node: lab.Node, files: lab.Certificates) -> str:
    """The number of the certificate that a server shows."""
    pair = {"ssl_certfile": files.cert_file, "ssl_keyfile": files.key_file}
    with dial(node.dial_address, ssl=True, ssl_ca_certs=files.ca_file, **pair) as client:
        connection = client.connection_pool.get_connection()
        try:
            return str(connection._sock.getpeercert()["serialNumber"])
        finally:
            client.connection_pool.release(connection)


@pytest.mark.parametrize(("name", "native"), [*((name, True) for name in TOPOLOGIES), ("standalone", False)])
def test_certificates_are_rotated_to_another_authority_in_three_steps(
    name: lab.Topology, native: bool, server_without_tls: Path
) -> None:
    if native and not NATIVE:
        pytest.skip("the server on this machine was built without TLS")
    server = None if native else server_without_tls
    with lab.start(name, mutual_tls=True, proxies=name == "cluster", server=server) as topology:
        every = [*topology.nodes, *topology.sentinels]
        first = topology.certificates
        numbers = {serial(node, first) for node in every}
        topology.credentials.rotate_certificates()
        numbers |= {serial(node, first) for node in every}  # the same authority: old clients go on
        assert len(numbers) == 2

        topology.credentials.add_authority()
        both = topology.certificates
        assert {serial(node, both) for node in every} < numbers
        topology.credentials.rotate_certificates()
        assert not {serial(node, both) for node in every} & numbers
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            serial(every[0], first)

        topology.credentials.drop_authority()
        assert not {serial(node, topology.certificates) for node in every} & numbers
        fail_over(topology)
        with pytest.raises(redis.ConnectionError):
            with dial(
                every[0].dial_address,
                ssl=True,
                ssl_ca_certs=both.ca_file,
                ssl_certfile=first.cert_file,
                ssl_keyfile=first.key_file,
            ) as client:
                client.ping()


def test_a_lab_without_tls_has_no_certificates_to_rotate() -> None:
    with lab.start("standalone") as topology, pytest.raises(lab.LabError, match="start it with tls=True"):
        topology.credentials.rotate_certificates()
