"""What clients are made with, without any I/O: nothing resends, everything is bounded, secrets stay at home."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from agents_redis_ha import Address, ConfigurationError, HAConfig, PoolConfig, SentinelConfig, TLSConfig, create_client
from agents_redis_ha._connections import create_locator, factory
from agents_redis_ha._connections.cluster import ClusterLocator
from agents_redis_ha._connections.factory import node_client, sentinel_client
from agents_redis_ha._connections.sentinel import SentinelLocator
from agents_redis_ha._connections.standalone import StandaloneLocator

FOLLOWS = hasattr(ConnectionPool, "maint_notifications_enabled")
DATA_SECRET, SENTINEL_SECRET = "data-s3cr3t", "sentinel-s3cr3t"
TLS = TLSConfig(ca_file="ca", cert_file="c", key_file="k", key_password="kp", check_hostname=False, min_version="1.3")
POOL = PoolConfig(
    max_connections=5, wait_timeout_seconds=1.1, connect_timeout_seconds=1.2, response_timeout_seconds=1.3
)


def config(topology: str = "standalone", **fields: Any) -> HAConfig:
    values: dict[str, Any] = {"topology": topology, "nodes": ["a:1"], "pool": POOL, "password": DATA_SECRET}
    if topology == "sentinel":
        values.update(service_name="m", sentinel=SentinelConfig(password=SENTINEL_SECRET, timeout_seconds=0.4))
    return HAConfig(**{**values, **fields})


def connections(client: Redis | RedisCluster) -> Iterator[Any]:
    """Every kind of connection that a client makes: to data servers, and to Sentinels."""
    if isinstance(client, RedisCluster):
        for node in client.nodes_manager.startup_nodes.values():
            yield node.connection_class(**node.connection_kwargs)
        return
    yield client.connection_pool.make_connection()
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pool: Any = client.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            yield sentinel.connection_pool.make_connection()


ALL = [
    pytest.param(lambda **f: create_client(config(**f)), id="client-standalone"),
    pytest.param(lambda **f: create_client(config("sentinel", **f)), id="client-sentinel"),
    pytest.param(lambda **f: create_client(config("cluster", **f)), id="client-cluster"),
    pytest.param(lambda **f: node_client(config(**f), Address("a", 1)), id="node"),
    pytest.param(lambda **f: sentinel_client(config("sentinel", **f), Address("a", 1)), id="sentinel"),
]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_nothing_is_resent_by_redis_py(make: Any, protocol: int) -> None:
    client = make(protocol=protocol)
    retry = client.retry if isinstance(client, RedisCluster) else client.get_retry()
    assert retry is None or retry.get_retries() == 0
    for connection in connections(client):
        assert connection.retry.get_retries() == 0
        assert not connection.retry_on_error or connection.retry.get_retries() == 0


@pytest.mark.parametrize("make", ALL)
async def test_every_wait_of_a_connection_is_bounded(make: Any) -> None:
    for connection in connections(make()):
        assert 0 < connection.socket_timeout <= 1.3
        assert 0 < connection.socket_connect_timeout <= 1.2


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_maintenance_notifications_are_off_unless_asked_for(make: Any, protocol: int) -> None:
    client = make(protocol=protocol)
    if FOLLOWS and not isinstance(client, RedisCluster):
        assert not client.connection_pool.maint_notifications_enabled()
    for connection in connections(client):
        found = getattr(connection, "maint_notifications_config", None)
        assert found is None or not found.enabled


@pytest.mark.skipif(not FOLLOWS, reason="asyncio's redis-py follows none before 8.1")
async def test_maintenance_notifications_are_on_where_asked_for() -> None:
    client = create_client(HAConfig.redis_cloud("a:1", password="p"))
    assert isinstance(client, Redis)
    assert client.connection_pool.maint_notifications_enabled()


class Before81:
    def __init__(self, *, host: str) -> None: ...


def test_a_redis_py_that_follows_no_maintenance_is_told_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("maint_notifications_config" in factory._connection_kwargs(config())) is FOLLOWS
    monkeypatch.setattr(factory, "AbstractConnection", Before81)
    for kwargs in (factory._connection_kwargs(config()), factory._sentinel_kwargs(SentinelConfig())):
        assert "maint_notifications_config" not in kwargs
        assert "driver_info" in kwargs


@pytest.mark.parametrize("made", ["node", "client"])
def test_maintenance_notifications_need_a_redis_py_that_follows(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "AbstractConnection", Before81)
    settings = config(maintenance_notifications=True, protocol=3)
    with pytest.raises(ConfigurationError, match=r"redis-py 8\.1") as caught:
        create_client(settings) if made == "client" else node_client(settings, Address("a", 1))
    assert caught.value.field == "maintenance_notifications"


def test_the_client_is_of_its_topologys_class() -> None:
    assert type(create_client(config())) is Redis
    sentinel = create_client(config("sentinel"))
    assert isinstance(sentinel, Redis)
    assert isinstance(sentinel.connection_pool, SentinelConnectionPool)
    assert sentinel.connection_pool.service_name == "m"
    assert sentinel.connection_pool.is_master
    assert isinstance(create_client(config("cluster")), RedisCluster)
    assert isinstance(create_client("redis+cluster://a:1"), RedisCluster)


def test_the_locator_is_of_its_topologys_class() -> None:
    assert type(create_locator(config())) is StandaloneLocator
    assert type(create_locator(config("sentinel"))) is SentinelLocator
    assert type(create_locator(config("cluster"))) is ClusterLocator


@pytest.mark.parametrize("address", [Address("a", 1), None])
def test_pools_are_bounded_and_the_users_own_waits_for_a_free_connection(address: Address | None) -> None:
    where: dict[str, Any] = {} if address else {"nodes": (), "unix_socket_path": "/s"}
    assert node_client(config(**where), address).connection_pool.max_connections == 5
    client = create_client(config(**where))
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    assert (pool.max_connections, pool.timeout) == (5, 1.1)
    assert (pool.connection_kwargs["socket_connect_timeout"], pool.connection_kwargs["socket_timeout"]) == (1.2, 1.3)


@pytest.mark.parametrize("make", ALL)
def test_every_pool_is_bounded(make: Any) -> None:
    client = make()
    bound = client.nodes_manager.connection_kwargs if isinstance(client, RedisCluster) else None
    assert (bound["max_connections"] if bound else client.connection_pool.max_connections) <= 5


def test_a_unix_socket_is_dialled_with_credentials_and_database() -> None:
    client = create_client(config(nodes=(), unix_socket_path="/run/redis.sock", db=3))
    assert isinstance(client, Redis)
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, UnixDomainSocketConnection)
    assert (connection.path, connection.db) == ("/run/redis.sock", 3)
    assert connection.password == DATA_SECRET


def assert_tls(connection: Any) -> None:
    assert isinstance(connection, SSLConnection)
    context = connection.ssl_context
    assert (context.ca_certs, context.certfile, context.keyfile) == ("ca", "c", "k")
    assert context.certificate_password if hasattr(context, "certificate_password") else True
    assert context.cert_reqs == ssl.CERT_REQUIRED
    assert context.check_hostname is False
    assert context.min_version == ssl.TLSVersion.TLSv1_3


async def test_a_key_password_cannot_be_given_to_redis_pys_cluster() -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_client(config("cluster", tls=TLS))
    assert caught.value.field == "tls.key_password"


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "cluster"])
async def test_tls_settings_reach_every_connection(topology: str) -> None:
    fields: dict[str, Any] = {"tls": TLS if topology != "cluster" else TLS.replace(key_password=None)}
    if topology == "sentinel":
        fields["sentinel"] = SentinelConfig(tls=TLS)
    made = list(connections(create_client(config(topology, **fields))))
    made.append(node_client(config(topology, **fields), Address("a", 1)).connection_pool.make_connection())
    if topology == "sentinel":
        made.append(sentinel_client(config(topology, **fields), Address("a", 1)).connection_pool.make_connection())
    assert len(made) == (4 if topology == "sentinel" else 2)
    for connection in made:
        assert_tls(connection)


async def test_tls_that_is_not_to_be_verified_is_not() -> None:
    tls = TLSConfig(verify=False, check_hostname=False)
    connection: Any = node_client(config(tls=tls), Address("a", 1)).connection_pool.make_connection()
    assert (connection.ssl_context.cert_reqs, connection.ssl_context.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "cluster"])
async def test_without_tls_no_connection_uses_it(topology: str) -> None:
    for connection in connections(create_client(config(topology))):
        assert isinstance(connection, Connection)
        assert not isinstance(connection, SSLConnection)


async def test_the_tls_of_data_servers_and_of_sentinels_are_apart() -> None:
    data_only = config("sentinel", tls=TLS)
    data, sentinel = connections(create_client(data_only))
    assert isinstance(data, SSLConnection)
    assert not isinstance(sentinel, SSLConnection)
    sentinels_only = config("sentinel", sentinel=SentinelConfig(tls=TLS))
    data, sentinel = connections(create_client(sentinels_only))
    assert not isinstance(data, SSLConnection)
    assert isinstance(sentinel, SSLConnection)


def reachable(thing: Any, seen: set[int] | None = None) -> str:
    """The text of everything that a client holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return ""
    seen.add(id(thing))
    if isinstance(thing, dict):
        return " ".join(reachable(part, seen) for part in (*thing.keys(), *thing.values()))
    if isinstance(thing, (list, tuple, set)):
        return " ".join(reachable(part, seen) for part in thing)
    if isinstance(thing, (str, bytes)):
        return str(thing)
    return reachable(getattr(thing, "__dict__", {}), seen) if type(thing).__module__.startswith("redis") else ""


@pytest.mark.parametrize("own", [SENTINEL_SECRET, None])
def test_the_data_servers_password_is_never_given_to_a_sentinel(own: str | None) -> None:
    provider = UsernamePasswordCredentialProvider("u", DATA_SECRET)
    sentinel = SentinelConfig(username="su" if own else None, password=own)
    by_password = config("sentinel", username="du", sentinel=sentinel)
    by_provider = config("sentinel", password=None, credential_provider=provider, sentinel=sentinel)
    for settings in (by_password, by_provider):
        created = create_client(settings)
        assert isinstance(created, Redis)
        pool: Any = created.connection_pool
        for client in (sentinel_client(settings, Address("a", 1)), *pool.sentinel_manager.sentinels):
            kwargs = client.connection_pool.connection_kwargs
            assert (kwargs["username"], kwargs["password"]) == ("su" if own else None, own)
            assert kwargs.get("credential_provider") is None
            assert DATA_SECRET not in reachable(client)
            assert "du" not in kwargs.values()
        data = created.connection_pool.connection_kwargs
        assert SENTINEL_SECRET not in (data["password"], data["username"])


def test_a_sentinel_without_settings_is_asked_without_a_password() -> None:
    kwargs = sentinel_client(config("sentinel", sentinel=None), Address("a", 1)).connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"]) == (None, None)


@pytest.mark.parametrize("topology", ["standalone", "cluster", "sentinel"])
def test_a_credential_provider_is_passed_on(topology: str) -> None:
    provider = UsernamePasswordCredentialProvider("u", "p")
    settings = config(topology, password=None, credential_provider=provider)
    client = create_client(settings)
    kwargs = client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
    assert kwargs["credential_provider"] is provider
    assert node_client(settings, Address("a", 1)).connection_pool.connection_kwargs["credential_provider"] is provider


MAP = {"10.0.0.1:6379": "localhost:7000", "a:1": "b:2"}


def test_an_announced_address_is_dialled_where_the_map_says() -> None:
    settings = config(address_map=MAP)
    for address, (host, port) in {
        Address("10.0.0.1", 6379): ("localhost", 7000),
        Address("a", 1): ("b", 2),
        Address("a", 2): ("a", 2),
    }.items():
        kwargs = node_client(settings, address).connection_pool.connection_kwargs
        assert (kwargs["host"], kwargs["port"]) == (host, port)
    kwargs = sentinel_client(config("sentinel", address_map=MAP), Address("a", 1)).connection_pool.connection_kwargs
    assert (kwargs["host"], kwargs["port"]) == ("b", 2)


def test_a_cluster_client_maps_its_seeds_and_what_the_nodes_announce() -> None:
    client = create_client(config("cluster", address_map=MAP))
    assert isinstance(client, RedisCluster)
    assert [(n.host, n.port) for n in client.nodes_manager.startup_nodes.values()] == [("b", 2)]
    assert client.nodes_manager.remap_host_port("10.0.0.1", 6379) == ("localhost", 7000)


async def dialled_primary(client: Redis, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Return where a Sentinel's client goes when the Sentinels name 10.0.0.1:6379."""
    state = {"ip": "10.0.0.1", "port": 6379, "is_master": True, "is_sdown": False, "is_odown": False}

    async def masters(*args: Any, **kwargs: Any) -> Any:
        return {"m": {**state, "num-other-sentinels": 2}}

    async def refuse() -> None:
        raise RedisConnectionError("not dialled in this test")

    pool: Any = client.connection_pool
    for sentinel in pool.sentinel_manager.sentinels:
        monkeypatch.setattr(sentinel, "sentinel_masters", masters)
    connection: Any = client.connection_pool.make_connection()
    monkeypatch.setattr(connection, "_connect", refuse)
    with pytest.raises(RedisConnectionError):
        await connection.connect()
    return connection.host, connection.port


async def test_a_sentinels_client_goes_to_the_primary_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    client = create_client(config("sentinel"))
    assert isinstance(client, Redis)
    assert await dialled_primary(client, monkeypatch) == ("10.0.0.1", 6379)


async def test_a_sentinels_client_maps_the_primary_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    client = create_client(config("sentinel", address_map=MAP))
    assert isinstance(client, Redis)
    assert await dialled_primary(client, monkeypatch) == ("localhost", 7000)


@pytest.mark.parametrize("topology", ["standalone", "sentinel"])
def test_the_database_is_selected(topology: str) -> None:
    client = create_client(config(topology, db=7))
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_kwargs["db"] == 7


@pytest.mark.parametrize("make", ALL)
def test_servers_are_told_which_library_it_is(make: Any) -> None:
    client = make()
    kwargs = client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
    assert f"openai-agents-redis-ha_v{version('openai-agents-redis-ha')}" in kwargs["driver_info"].formatted_name


async def test_closing_a_sentinels_client_closes_the_connections_to_the_sentinels_too() -> None:
    client = create_client(config("sentinel", nodes=["a:1", "b:2"]))
    assert isinstance(client, Redis)
    closed: list[Any] = []

    async def close(close_connection_pool: bool | None = None) -> None:
        closed.append(close_connection_pool)

    pool: Any = client.connection_pool
    for sentinel in pool.sentinel_manager.sentinels:
        sentinel.aclose = close
    await client.aclose()
    assert len(closed) == 2
