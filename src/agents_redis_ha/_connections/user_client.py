"""A client that the user made → a locator that sends a session's data over it, or over clients made like it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from .._config import Address, HAConfig, SentinelConfig, TLSConfig
from ..errors import ConfigurationError
from .cluster import ClusterLocator
from .locator import Locator
from .node import Node
from .sentinel import SentinelLocator
from .standalone import StandaloneLocator

__all__ = ["adopt", "check_client"]

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
        ConfigurationError: The client is not one of redis-py's asyncio clients.
    """
    check_client(client)
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
    return config, SentinelLocator(
        config,
        data_client=lambda address: _alike(config, kwargs, address, pool.connection_class),
        sentinel_client=lambda address: _alike(
            config, by_address[address].connection_kwargs, address, by_address[address].connection_class
        ),
    )


def _adopt_cluster(client: RedisCluster, config: HAConfig) -> tuple[HAConfig, Locator]:
    kwargs = {k: v for k, v in client.connection_kwargs.items() if k not in _CLUSTER_ONLY}
    connection_class = client.connection_kwargs.get("connection_class", Connection)
    seeds = [Address(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    config = config.replace(topology="cluster", db=0, nodes=seeds, tls=_tls(connection_class))
    return config, ClusterLocator(config, lambda address: _alike(config, kwargs, address, connection_class))


def _tls(connection_class: type) -> TLSConfig | None:
    """Return that TLS is used, if it is: enough to find out why a first contact failed; the client has the settings."""
    return TLSConfig() if issubclass(connection_class, SSLConnection) else None


def _alike(config: HAConfig, kwargs: dict[str, Any], address: Address, connection_class: type) -> Redis:
    """Return a plain client with the user's connection settings for another address."""
    settings = {
        **kwargs,
        "host": address.host,
        "port": address.port,
        # Not the class itself: redis-py's own for Sentinels look for a primary.
        "connection_class": SSLConnection if issubclass(connection_class, SSLConnection) else Connection,
        "max_connections": config.pool.max_connections,
    }
    return Redis.from_pool(ConnectionPool(**settings))


def _db(kwargs: dict[str, Any]) -> int:
    return int(kwargs.get("db") or 0)


def _address(kwargs: dict[str, Any]) -> Address:
    return Address(kwargs.get("host", "localhost"), int(kwargs.get("port", 26379)))
