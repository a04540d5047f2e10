"""A client that the user made → a locator that sends a session's data over it, or over clients made like it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from .._config import Address, HAConfig, SentinelConfig, TLSConfig
from ..errors import ConfigurationError
from .cluster import ClusterLocator
from .factory import dialled
from .locator import Locator
from .node import Node
from .sentinel import SentinelLocator
from .standalone import StandaloneLocator

__all__ = ["adopt", "check_client", "check_settings", "placeholder"]

# What redis-py's cluster gives its nodes' connections for its own ends.
_CLUSTER_ONLY = frozenset({"connection_class", "response_callbacks", "oss_cluster_maint_notifications_handler"})
# What its Sentinel pool adds to a connection.
_SENTINEL_ONLY = frozenset({"connection_pool", "connection_class"})


def adopt(client: Redis | RedisCluster, config: HAConfig) -> tuple[HAConfig, Locator]:
    """Return the configuration and the locator for a client that the user made, and closes.

    A plain client's own connections are used. From one of a Sentinel or a cluster only the addresses and the connection
    settings are taken: its own way of finding a node is what this package replaces.

    Args:
        client: Any of redis-py's asyncio clients.
        config: Everything but topology and addresses (retry, prefix, TTL …).

    Raises:
        ConfigurationError: The client is not one of redis-py's asyncio clients, or it leaves a setting without effect.
    """
    check_client(client)
    check_settings(client, config)
    if isinstance(client, RedisCluster):
        return _adopt_cluster(client, config)
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _adopt_sentinel(pool, config)
    kwargs = pool.connection_kwargs
    where: dict[str, Any] = (
        {"unix_socket_path": kwargs["path"], "nodes": ()}
        if "path" in kwargs
        else {"nodes": (Address(kwargs.get("host", "localhost"), int(kwargs.get("port", 6379))),)}
    )
    config = config.replace(topology="standalone", db=_db(kwargs), tls=_tls(pool.connection_class), **where)
    name = str(config.nodes[0] if config.nodes else config.unix_socket_path)
    return config, StandaloneLocator(config, Node(name, lambda: client, config.pool, owned=False))


def check_client(client: object) -> None:
    """Raise ConfigurationError unless this is one of redis-py's asyncio clients."""
    if not isinstance(client, (Redis, RedisCluster)):
        raise ConfigurationError("client", "must be a redis.asyncio.Redis or RedisCluster")


def placeholder(client: Redis | RedisCluster) -> HAConfig:
    """Return the configuration to use with a client and without one: where the servers are is the client's business."""
    if _is_sentinel(client):  # its settings may be given, too
        return HAConfig(topology="sentinel", nodes=("client",), service_name="client")
    return HAConfig(nodes=("client",))


def check_settings(client: Redis | RedisCluster, config: HAConfig) -> None:
    """Raise ConfigurationError if a setting says how to reach servers that only the client knows how to reach."""
    if _is_sentinel(client):
        given = config.sentinel or SentinelConfig()
        for field in ("username", "password", "tls"):
            if getattr(given, field) is not None:
                raise ConfigurationError(f"sentinel.{field}", "the client's Sentinels have their own")
    elif config.sentinel is not None:
        raise ConfigurationError("sentinel", "the client knows no Sentinels")
    if config.address_map and not isinstance(client, RedisCluster) and not _is_sentinel(client):
        raise ConfigurationError("address_map", "the client dials one address, its own: give it the one to dial")


def _is_sentinel(client: Redis | RedisCluster) -> bool:
    return isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool)


def _adopt_sentinel(pool: SentinelConnectionPool, config: HAConfig) -> tuple[HAConfig, Locator]:
    clients: list[Redis] = pool.sentinel_manager.sentinels
    addresses = [_address(c.connection_pool.connection_kwargs) for c in clients]
    tls = _tls(clients[0].connection_pool.connection_class) if clients else None
    settings = (config.sentinel or SentinelConfig()).replace(tls=tls)
    config = config.replace(
        topology="sentinel",
        nodes=addresses,
        service_name=pool.service_name,
        db=_db(pool.connection_kwargs),
        tls=_tls(pool.connection_class),
        sentinel=settings,
    )
    kwargs = {k: v for k, v in pool.connection_kwargs.items() if k not in _SENTINEL_ONLY}
    by_address = {address: c.connection_pool for address, c in zip(addresses, clients, strict=True)}

    def sentinel_client(address: Address) -> Redis:
        alike = by_address.get(address) or clients[0].connection_pool  # for one that the others told of
        return _alike(config, alike.connection_kwargs, address, alike.connection_class)

    return config, SentinelLocator(
        config,
        data_client=lambda address: _alike(config, kwargs, address, pool.connection_class),
        sentinel_client=sentinel_client,
    )


def _adopt_cluster(client: RedisCluster, config: HAConfig) -> tuple[HAConfig, Locator]:
    kwargs = {k: v for k, v in client.connection_kwargs.items() if k not in _CLUSTER_ONLY}
    connection_class = client.connection_kwargs.get("connection_class", Connection)
    seeds = [Address(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    config = config.replace(topology="cluster", db=0, nodes=seeds, tls=_tls(connection_class))
    remap = client.nodes_manager.address_remap

    def data_client(address: Address) -> Redis:
        # As redis-py does: what the cluster announces is remapped, and not the addresses to begin with.
        if remap is not None and address not in seeds and dialled(config, address) == address:
            address = Address(*remap(address))
        return _alike(config, kwargs, address, connection_class)

    return config, ClusterLocator(config, data_client)


def _tls(connection_class: type) -> TLSConfig | None:
    """Return that TLS is used, if it is: enough to find out why a first contact failed; the client has the settings."""
    return TLSConfig() if issubclass(connection_class, SSLConnection) else None


def _alike(config: HAConfig, kwargs: dict[str, Any], address: Address, connection_class: type) -> Redis:
    """Return a plain client with the user's connection settings for another address."""
    host, port = dialled(config, address)
    settings = {
        **kwargs,
        "host": host,
        "port": port,
        # Not the class itself: redis-py's own for Sentinels look for a primary.
        "connection_class": SSLConnection if issubclass(connection_class, SSLConnection) else Connection,
        "max_connections": config.pool.max_connections,
    }
    return Redis.from_pool(ConnectionPool(**settings))


def _db(kwargs: dict[str, Any]) -> int:
    return int(kwargs.get("db") or 0)


def _address(kwargs: dict[str, Any]) -> Address:
    return Address(kwargs.get("host", "localhost"), int(kwargs.get("port", 26379)))
