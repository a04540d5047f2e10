"""The connection factory: configuration → tuned redis-py clients."""

from __future__ import annotations

import ssl
from functools import cache
from inspect import signature
from typing import Any, TypeAlias, cast

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.connection import AbstractConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.maint_notifications import MaintNotificationsConfig

from .._config import Address, HAConfig, SentinelConfig, TLSConfig
from .._version import __version__
from ..errors import ConfigurationError

__all__ = ["Client", "create_client", "dialled", "node_client", "sentinel_client"]

Client: TypeAlias = "Redis | RedisCluster"

_DISTRIBUTION = "openai-agents-redis-ha"


def create_client(config: HAConfig | str) -> Client:
    """Return redis-py's own client for the user's own commands, with the settings that a session's connections have.

    It resends nothing by itself (redis-py's clients resend up to 10 times, writes included), its waits are bounded, and
    it belongs to the caller, who closes it with ``aclose()``. It does no I/O before its first command.

    Args:
        config: A configuration or a URL.

    Returns:
        A `RedisCluster` for topology ``cluster``, else a `Redis`; with Sentinel one that looks the primary up for each
        new connection.

    Raises:
        ConfigurationError: The configuration cannot work.
    """
    config = HAConfig.from_url(config) if isinstance(config, str) else config
    if config.topology == "sentinel":
        return _sentinel_primary(config)
    if config.topology == "cluster":
        return _cluster(config)
    address = None if config.unix_socket_path else config.nodes[0]
    bounds = {"max_connections": config.pool.max_connections, "timeout": config.pool.wait_timeout_seconds}
    return Redis.from_pool(BlockingConnectionPool(**{**bounds, **_pool_kwargs(config, address)}))


def node_client(config: HAConfig, address: Address | None) -> Redis:
    """Return a plain client of one data server, whose users bound themselves; None means the Unix socket."""
    return Redis.from_pool(ConnectionPool(max_connections=config.pool.max_connections, **_pool_kwargs(config, address)))


def _pool_kwargs(config: HAConfig, address: Address | None) -> dict[str, Any]:
    kwargs = {"db": config.db, **_connection_kwargs(config)}
    if address is None:
        return {**kwargs, "connection_class": UnixDomainSocketConnection, "path": config.unix_socket_path}
    host, port = dialled(config, address)
    connection_class = SSLConnection if config.tls else Connection
    return {**kwargs, "connection_class": connection_class, "host": host, "port": port, "socket_keepalive": True}


def sentinel_client(config: HAConfig, address: Address) -> Redis:
    """Return a plain client of one Sentinel, with the Sentinels' own credentials and TLS."""
    kwargs = _sentinel_kwargs(config.sentinel or SentinelConfig())
    host, port = dialled(config, address)
    return Redis(host=host, port=port, max_connections=4, **kwargs)


def dialled(config: HAConfig, announced: Address) -> Address:
    """Return the address to dial for an announced one."""
    return next((to for is_announced, to in config.address_map if is_announced == announced), announced)


def _connection_kwargs(config: HAConfig) -> dict[str, Any]:
    """Return what every connection to a data server is given."""
    kwargs: dict[str, Any] = {
        "username": config.username,
        "password": config.password.get_secret_value() if config.password else None,
        "client_name": config.client_name,
        "protocol": config.protocol,
        # One retry loop, ours: a resend by redis-py would be a second execution.
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": config.pool.connect_timeout_seconds,
        "socket_timeout": config.pool.response_timeout_seconds,
        "driver_info": _driver_info(),
        **_maintenance_kwargs(follow=config.maintenance_notifications),
        **_tls_kwargs(config.tls),
    }
    if config.credential_provider is not None:
        kwargs["credential_provider"] = config.credential_provider
    return kwargs


def _sentinel_kwargs(sentinel: SentinelConfig) -> dict[str, Any]:
    return {
        "username": sentinel.username,
        "password": sentinel.password.get_secret_value() if sentinel.password else None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": sentinel.timeout_seconds,
        "socket_timeout": sentinel.timeout_seconds,
        "driver_info": _driver_info(),
        **_maintenance_kwargs(),
        "ssl": sentinel.tls is not None,
        **_tls_kwargs(sentinel.tls),
    }


def _tls_kwargs(tls: TLSConfig | None) -> dict[str, Any]:
    if tls is None:
        return {}
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    return {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_password": tls.key_password.get_secret_value() if tls.key_password else None,
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.check_hostname,
        "ssl_min_version": versions[tls.min_version],
    }


def _maintenance_kwargs(*, follow: bool = False) -> dict[str, Any]:
    """Return how to follow announcements of maintenance, for a redis-py that can: asyncio's since 8.1."""
    if "maint_notifications_config" in signature(AbstractConnection).parameters:
        # "auto", the default with RESP3, switches off the check for stale data on an idle connection.
        return {"maint_notifications_config": MaintNotificationsConfig(enabled="auto" if follow else False)}
    if follow:
        raise ConfigurationError("maintenance_notifications", "needs redis-py 8.1 or newer")
    return {}


@cache
def _driver_info() -> DriverInfo:
    """Return what CLIENT SETINFO tells the servers, made once: redis-py reads its own version from files for each."""
    return DriverInfo().add_upstream_driver(_DISTRIBUTION, __version__)


class _MappingSentinel(Sentinel):
    """Sentinels whose announced primary is dialled as the configuration says."""

    def __init__(self, config: HAConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py's is untyped
        self._config = config

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return where to dial the primary."""
        host, port = await super().discover_master(service_name)
        return dialled(self._config, Address(host, int(port)))


class _PrimaryClient(Redis):
    """A client of the primary that closes the connections to the Sentinels too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close every connection."""
        await super().aclose(close_connection_pool)
        pool = cast("SentinelConnectionPool", self.connection_pool)  # made by master_for
        for sentinel in pool.sentinel_manager.sentinels:  # the manager closes them itself since redis-py 8.1
            await sentinel.aclose()


def _sentinel_primary(config: HAConfig) -> Redis:
    sentinel = _MappingSentinel(
        config,
        [dialled(config, address) for address in config.nodes],
        sentinel_kwargs=_sentinel_kwargs(config.sentinel or SentinelConfig()),
        ssl=config.tls is not None,
        db=config.db,
        max_connections=config.pool.max_connections,
        **_connection_kwargs(config),
    )
    client: Redis = sentinel.master_for(config.service_name or "", redis_class=_PrimaryClient)
    return client


def _cluster(config: HAConfig) -> RedisCluster:
    from redis.asyncio.cluster import ClusterNode

    kwargs = _connection_kwargs(config)
    if kwargs.pop("ssl_password", None) is not None:
        raise ConfigurationError("tls.key_password", "redis-py's RedisCluster takes none: use a key without a password")
    return RedisCluster(
        startup_nodes=[ClusterNode(*dialled(config, address)) for address in config.nodes],
        address_remap=lambda address: dialled(config, Address(*address)),
        max_connections=config.pool.max_connections,
        ssl=config.tls is not None,
        **kwargs,
    )
