"""A client that the user made: used itself, or made again for other addresses, and never closed."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import redis
import trustme
from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from agents_redis_ha import Address, ConfigurationError, HAConfig, PoolConfig, SentinelConfig
from agents_redis_ha._connections.cluster import ClusterLocator
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.locator import Locator
from agents_redis_ha._connections.sentinel import SentinelLocator
from agents_redis_ha._connections.standalone import StandaloneLocator
from agents_redis_ha._connections.user_client import adopt, check_client, check_settings, placeholder
from tests.support.fake_nodes import command, listening
from tests.support.fakes import request

CONFIG = HAConfig(nodes=["client"], ttl=5, pool=PoolConfig(max_connections=7), password="ours")
SETTINGS: dict[str, Any] = {"username": "u", "password": "p", "socket_timeout": 1.5, "client_name": "worker"}


def sentinel(**more: Any) -> Redis:
    """Return a user's client of the primary that two Sentinels name."""
    addresses: list[Any] = [("s", 1), ("t", 26379)]
    made = Sentinel(
        addresses,
        sentinel_kwargs={"password": "sp", "socket_timeout": 0.7, **more.pop("sentinel_kwargs", {})},
        **SETTINGS,
        **more,
    )
    client: Redis = made.master_for("m")
    return client


def cluster(**more: Any) -> RedisCluster:
    return RedisCluster(startup_nodes=[ClusterNode("a", 1), ClusterNode("b", 2)], **SETTINGS, **more)


def connection(client: Redis) -> Any:
    return client.connection_pool.make_connection()


def assert_alike(client: Redis, host: str, port: int) -> None:
    """Check that a client has the user's settings for another address."""
    made = connection(client)
    assert (made.host, made.port) == (host, port)
    assert (made.username, made.password, made.socket_timeout) == ("u", "p", 1.5)
    assert made.client_name == "worker"
    assert client.connection_pool.max_connections == 7


def test_a_plain_client_is_used_itself_and_left_open() -> None:
    client = Redis(host="x", port=9)
    settings, found = adopt(client, CONFIG)
    assert (settings.topology, settings.nodes, settings.ttl) == ("standalone", (Address("x", 9),), 5)
    assert isinstance(found, StandaloneLocator)
    assert [node.client for node in found.nodes()] == [client]
    assert [node.name for node in found.nodes()] == ["x:9"]


def test_a_clients_database_is_the_configurations_whatever_that_says_itself() -> None:
    config = CONFIG.replace(db=5)
    assert [adopt(client, config)[0].db for client in (Redis(db=2), Redis(), sentinel(db=3), cluster())] == [2, 0, 3, 0]


def test_a_plain_client_without_an_address_leads_where_redis_py_would() -> None:
    assert adopt(Redis(), CONFIG)[0].nodes == (Address("localhost", 6379),)
    assert adopt(Redis.from_url("redis://x"), CONFIG)[0].nodes == (Address("x", 6379),)


def test_a_client_of_a_unix_socket_names_its_path() -> None:
    settings, found = adopt(Redis(unix_socket_path="/s"), CONFIG)
    assert (settings.unix_socket_path, settings.nodes) == ("/s", ())
    assert isinstance(found, StandaloneLocator)
    assert [node.name for node in found.nodes()] == ["/s"]


async def test_a_users_client_is_never_closed_or_replaced() -> None:
    client = Redis(host="x", port=9)
    closed: list[str] = []
    for name in ("disconnect", "aclose"):
        setattr(client.connection_pool, name, lambda *how, name=name, **more: closed.append(name))
    _, found = adopt(client, CONFIG)
    (node,) = found.nodes()
    assert not node.start_afresh()
    await found.aclose()
    assert (closed, node.client) == ([], client)


def test_a_sentinel_client_tells_the_sentinels_and_the_service() -> None:
    settings, found = adopt(sentinel(), CONFIG)
    assert isinstance(found, SentinelLocator)
    assert (settings.topology, settings.service_name, settings.ttl) == ("sentinel", "m", 5)
    assert settings.nodes == (Address("s", 1), Address("t", 26379))


def test_the_settings_of_a_sentinel_client_reach_the_primary_and_those_of_the_sentinels_each_of_them() -> None:
    _, found = adopt(sentinel(), CONFIG)
    assert isinstance(found, SentinelLocator)
    assert_alike(found._data_client(Address("x", 9)), "x", 9)
    assert type(connection(found._data_client(Address("x", 9)))) is Connection
    for address, client in found._sentinels.clients.items():
        made = connection(client)
        assert (made.host, made.port) == address
        assert (made.username, made.password, made.socket_timeout) == (None, "sp", 0.7)


@pytest.mark.parametrize("data_tls", [True, False])
@pytest.mark.parametrize("sentinel_tls", [True, False])
def test_the_tls_of_the_primary_and_of_the_sentinels_are_apart(data_tls: bool, sentinel_tls: bool) -> None:
    settings, found = adopt(sentinel(ssl=data_tls, sentinel_kwargs={"ssl": sentinel_tls}), CONFIG)
    assert isinstance(found, SentinelLocator)
    assert isinstance(connection(found._data_client(Address("x", 9))), SSLConnection) is data_tls
    for client in found._sentinels.clients.values():
        assert isinstance(connection(client), SSLConnection) is sentinel_tls
    assert (settings.tls is not None) is data_tls
    assert settings.sentinel is not None
    assert (settings.sentinel.tls is not None) is sentinel_tls


def test_a_cluster_client_tells_its_seeds_and_its_settings_reach_every_node() -> None:
    settings, found = adopt(cluster(), CONFIG)
    assert isinstance(found, ClusterLocator)
    assert (settings.topology, settings.nodes) == ("cluster", (Address("a", 1), Address("b", 2)))
    client = found._data_client(Address("x", 9))
    assert_alike(client, "x", 9)
    assert type(connection(client)) is Connection
    assert not isinstance(client, RedisCluster)


def test_the_tls_of_a_cluster_client_reaches_every_node() -> None:
    settings, found = adopt(cluster(ssl=True, ssl_ca_certs="ca"), CONFIG)
    assert isinstance(found, ClusterLocator)
    made = connection(found._data_client(Address("x", 9)))
    assert isinstance(made, SSLConnection)
    assert made.ssl_context.ca_certs == "ca"
    assert settings.tls is not None


@pytest.mark.parametrize("make", [sentinel, cluster])
async def test_the_clients_that_are_made_alike_are_not_the_users(make: Any) -> None:
    client = make()
    _, found = adopt(client, CONFIG)
    one, other = (found._data_client(Address("x", 9)).connection_pool for _ in range(2))  # type: ignore[attr-defined]
    assert one is not other
    await found.aclose()
    if isinstance(client, Redis):
        assert client.connection_pool not in (one, other)


@pytest.mark.parametrize("client", [redis.Redis(), "redis://x", None, Redis, object()])
def test_anything_but_a_client_of_redis_pys_asyncio_is_refused(client: Any) -> None:
    for refuse in (check_client, lambda client: adopt(client, CONFIG)):
        with pytest.raises(ConfigurationError) as caught:
            refuse(client)
        assert caught.value.field == "client"


async def first_contact(found: Locator) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await found.attempt(request(command()))
    await found.aclose()
    return caught.value


async def test_a_tls_server_that_breaks_off_a_users_tls_client_may_come_back() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with listening(lambda piece: None, context) as address:
        how: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
        client = Redis(host=address.host, port=address.port, retry=Retry(NoBackoff(), 0), **how)
        error = await first_contact(adopt(client, CONFIG)[1])
        await client.aclose()
    assert error.permanent is None


MAPPED = CONFIG.replace(address_map={"inside:1": "outside:2"})


@pytest.mark.parametrize("make", [sentinel, cluster])
def test_an_address_map_counts_for_the_servers_of_a_users_client(make: Any) -> None:
    _, found = adopt(make(), MAPPED)
    assert isinstance(found, (SentinelLocator, ClusterLocator))
    assert_alike(found._data_client(Address("inside", 1)), "outside", 2)
    assert_alike(found._data_client(Address("x", 9)), "x", 9)


def test_an_address_map_counts_for_the_sentinels_of_a_users_client_also_for_those_it_does_not_know() -> None:
    _, found = adopt(sentinel(), MAPPED)
    assert isinstance(found, SentinelLocator)
    told = connection(found._sentinel_client(Address("inside", 1)))
    assert (told.host, told.port, told.password, told.socket_timeout) == ("outside", 2, "sp", 0.7)


def test_a_cluster_clients_own_remapping_counts_as_in_redis_py() -> None:
    def outwards(address: tuple[str, int]) -> tuple[str, int]:
        return "outside", address[1] + 1000

    _, found = adopt(cluster(address_remap=outwards), MAPPED)
    assert isinstance(found, ClusterLocator)
    assert_alike(found._data_client(Address("inside", 7)), "outside", 1007)
    assert_alike(found._data_client(Address("inside", 1)), "outside", 2)  # the configuration's own wins
    assert_alike(found._data_client(Address("a", 1)), "a", 1)  # a seed is where the user dials


@pytest.mark.parametrize(
    ("make", "settings", "field"),
    [
        (Redis, {"address_map": {"a:1": "b:1"}}, "address_map"),
        (sentinel, {"sentinel": {"password": "x"}}, "sentinel.password"),
        (sentinel, {"sentinel": {"username": "x", "password": "x"}}, "sentinel.username"),
        (sentinel, {"sentinel": {"tls": {}}}, "sentinel.tls"),
        (Redis, {"sentinel": {}}, "sentinel"),
        (cluster, {"sentinel": {}}, "sentinel"),
    ],
)
def test_a_setting_that_would_have_no_effect_on_a_users_client_is_refused(
    make: Any, settings: dict[str, Any], field: str
) -> None:
    base: dict[str, Any] = {"nodes": ["client"]}
    if "sentinel" in settings:
        base |= {"topology": "sentinel", "service_name": "m"}
    config = HAConfig(**base, **settings)
    for use in (adopt, check_settings):
        with pytest.raises(ConfigurationError) as caught:
            use(make(), config)
        assert caught.value.field == field


def test_how_the_sentinels_are_asked_counts_for_a_users_client() -> None:
    client = sentinel()
    config = placeholder(client).replace(sentinel=SentinelConfig(poll_interval_seconds=7, timeout_seconds=0.2))
    settings, found = adopt(client, config)
    assert isinstance(found, SentinelLocator)
    assert settings.sentinel is not None
    assert settings.sentinel.poll_interval_seconds == found._settings.poll_interval_seconds == 7
    assert (settings.service_name, found._settings.timeout_seconds) == ("m", 0.2)
