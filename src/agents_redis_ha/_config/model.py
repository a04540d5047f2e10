"""One configuration for every topology. No I/O happens here. Fields that cannot work together are refused.

`HAConfig` comes from keywords, from a URL (`HAConfig.from_url`, its grammar is in `urls`), from the environment
(`HAConfig.from_env`) or from a preset for a managed service. Configurations are frozen, comparable and hashable, and
their ``repr`` holds no password.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from redis.credentials import CredentialProvider

from .._storage import check_prefix
from ..errors import ConfigurationError
from .parts import (
    Address,
    DurabilityConfig,
    Frozen,
    PoolConfig,
    RepairConfig,
    RetryConfig,
    SentinelConfig,
    TLSConfig,
    refuse,
    to_address,
)
from .urls import parse_environment, parse_url

__all__ = ["ClientOptions", "HAConfig", "Topology"]

Topology = Literal["standalone", "sentinel", "cluster"]

# Fields that say nothing of where and how to connect.
_NO_CONNECTIONS = (
    "retry",
    "durability",
    "repair",
    "key_prefix",
    "ttl",
    "op_retention_seconds",
    "turn_retention_seconds",
    "trace_session_id",
)
# Fields that say whose data it is.
_SERVERS = ("topology", "unix_socket_path", "service_name", "db", "address_map")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What each client of shared connections has for itself.

    Attributes:
        retry: The retry loop.
        repair: What is kept, and what is done about what the servers lose.
        degrade: Whether a change that is not on enough replicas by the deadline counts as done.
    """

    retry: RetryConfig
    repair: RepairConfig
    degrade: bool = False


class HAConfig(Frozen):
    """Everything that a session needs to know about its servers.

    Attributes:
        topology: ``standalone`` (also behind one stable endpoint), ``sentinel`` or ``cluster``.
        nodes: The server, the Sentinels, or some nodes of the cluster; ``host:port`` texts are taken.
        unix_socket_path: Path of a Unix socket, in place of ``nodes`` (standalone only).
        service_name: The primary's name in the Sentinels' configuration (sentinel only).
        db: Database number; a cluster has only 0.
        username: ACL user on the data servers; None means the default user.
        password: Password on the data servers.
        credential_provider: redis-py's source of rotating credentials (IAM), in place of username and password.
        tls: TLS to the data servers; None means plain TCP.
        sentinel: How to ask the Sentinels (sentinel only).
        address_map: Announced ``host:port`` → the one to dial, for NAT, containers and tunnels.
        pool: Connections to one node.
        retry: The retry loop.
        durability: When a change counts as stored.
        repair: What is kept to put back what the servers lose.
        key_prefix: First part of every key; no braces.
        ttl: Seconds from a session's last change until it expires. None sets no expiry, and leaves one that is there.
        op_retention_seconds: How long the id of an operation is remembered, so that a repeat is recognised; at most a
            year.
        turn_retention_seconds: How long a turn's id and its result are remembered (`ha_turn`); at most a year.
        client_name: Name of the connections in CLIENT LIST; the ACL user then needs ``+client|setname``.
        protocol: RESP version, 2 or 3.
        maintenance_notifications: Follow the announcements of Redis Cloud and Redis Enterprise (protocol 3).
        trace_session_id: Put the session id into spans ``hashed``, in ``plain`` text or not at all (``off``).
    """

    topology: Topology = "standalone"
    nodes: tuple[Address, ...] = ()
    unix_socket_path: str | None = None
    service_name: str | None = None
    db: int = Field(default=0, ge=0)
    username: str | None = None
    password: SecretStr | None = None
    credential_provider: CredentialProvider | None = None
    tls: TLSConfig | None = None
    sentinel: SentinelConfig | None = None
    address_map: tuple[tuple[Address, Address], ...] = ()
    pool: PoolConfig = PoolConfig()
    retry: RetryConfig = RetryConfig()
    durability: DurabilityConfig = DurabilityConfig()
    repair: RepairConfig = RepairConfig()
    key_prefix: str = "agents:ha"
    ttl: int | None = Field(default=None, ge=1, le=10**12)
    op_retention_seconds: int = Field(default=120, ge=1, le=31_536_000)
    turn_retention_seconds: int = Field(default=86_400, ge=1, le=31_536_000)
    client_name: str | None = None
    protocol: Literal[2, 3] = 2
    maintenance_notifications: bool = False
    trace_session_id: Literal["hashed", "plain", "off"] = "hashed"

    if TYPE_CHECKING:  # pydantic takes more than the fields' types say, such as "host:port" for an address

        def __init__(self, **fields: Any) -> None: ...

    @field_validator("nodes", mode="before")
    @classmethod
    def _parse_nodes(cls, value: Any) -> Any:
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, Iterable):
            raise ValueError("must be addresses")
        return tuple(to_address(v) for v in values)

    @field_validator("address_map", mode="before")
    @classmethod
    def _parse_address_map(cls, value: Any) -> Any:
        pairs = value.items() if isinstance(value, Mapping) else value
        if not isinstance(pairs, Iterable):
            raise ValueError("must map addresses to addresses")
        return tuple((to_address(announced), to_address(dialled)) for announced, dialled in pairs)

    @field_validator("durability", mode="before")
    @classmethod
    def _durability_from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        level, equals, count = value.partition("=")
        if level == "replicas" and count.isdecimal():
            return {"replicas": int(count)}
        if level not in ("primary", "fsync") or equals:
            raise ValueError("must be 'primary', 'replicas=N', 'fsync' or a DurabilityConfig")
        return {"fsync": level == "fsync"}

    @field_validator("protocol", mode="before")
    @classmethod
    def _protocol_from_text(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @field_validator("key_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        try:
            return check_prefix(value)
        except ConfigurationError as error:
            raise ValueError(error.reason) from None

    @model_validator(mode="after")
    def _fits_together(self) -> HAConfig:
        for field, reason in _conflicts(self):
            raise refuse(field, reason)
        return self

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> HAConfig:
        """Return the configuration that a URL describes; see `urls` for the grammar.

        Args:
            url: For example ``rediss://user:secret@host:6380/0?ttl=3600``.
            **overrides: Fields that win over the URL's.

        Raises:
            ConfigurationError: The URL cannot be read or what it says cannot work. The message never holds the URL.
        """
        return cls(**_merged(parse_url(url), overrides))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> HAConfig:
        """Return the configuration that the environment describes.

        ``AGENTS_REDIS_HA_URL`` is the URL; ``AGENTS_REDIS_HA_<OPTION>`` is any option of the URL's query in capitals
        and wins over it, for example ``AGENTS_REDIS_HA_PASSWORD`` or ``AGENTS_REDIS_HA_TTL``.

        Args:
            environ: Variables to read; None means the process's own.
            **overrides: Fields that win over the environment's.

        Raises:
            ConfigurationError: The URL is missing, a variable is unknown, or what they say cannot work.
        """
        return cls(**_merged(parse_environment(os.environ if environ is None else environ), overrides))

    def connection_part(self) -> HAConfig:
        """Return where and how to connect, and the defaults for the rest: equal ones share connections."""
        return self.model_copy(update={name: type(self).model_fields[name].default for name in _NO_CONNECTIONS})

    def servers(self) -> tuple[object, ...]:
        """Return what names the servers, whatever the connections to them are like: it names the data."""
        return (frozenset(self.nodes), *(getattr(self, name) for name in _SERVERS))

    def client_options(self) -> ClientOptions:
        """Return what a client has for itself where it shares its connections with others."""
        return ClientOptions(self.retry, self.repair, self.durability.on_shortfall == "degrade")

    @classmethod
    def elasticache(cls, endpoint: str, *, cluster_mode: bool = True, **fields: Any) -> HAConfig:
        """Return a configuration for Amazon ElastiCache with in-transit encryption.

        Args:
            endpoint: The configuration endpoint (cluster mode, serverless) or the primary endpoint, ``host[:port]``.
            cluster_mode: Whether cluster mode is enabled; serverless caches count as enabled.
            **fields: Further fields, such as ``username`` and ``password`` (an auth token is a password) or
                ``credential_provider`` for IAM.
        """
        topology = "cluster" if cluster_mode else "standalone"
        return cls(**{"topology": topology, "nodes": (endpoint,), "tls": TLSConfig(), **fields})

    @classmethod
    def memorydb(cls, endpoint: str, **fields: Any) -> HAConfig:
        """Return a configuration for Amazon MemoryDB: always a cluster, TLS on unless ``tls=None`` is given.

        Args:
            endpoint: The cluster endpoint, ``host[:port]``.
            **fields: Further fields, such as ``username`` and ``password`` or ``credential_provider`` for IAM.
        """
        return cls(**{"topology": "cluster", "nodes": (endpoint,), "tls": TLSConfig(), **fields})

    @classmethod
    def redis_cloud(
        cls, endpoint: str, *, password: str, tls: TLSConfig | bool = True, oss_cluster: bool = False, **fields: Any
    ) -> HAConfig:
        """Return a configuration for Redis Cloud or Redis Enterprise.

        Args:
            endpoint: The public or private endpoint, ``host:port``.
            password: Password of the user (``default`` unless ``username`` is given).
            tls: TLS settings; True means the system's authorities (Redis Cloud's own file goes into ``ca_file``).
            oss_cluster: Whether the database has the OSS Cluster API switched on.
            **fields: Further fields.
        """
        values: dict[str, Any] = {
            "topology": "cluster" if oss_cluster else "standalone",
            "nodes": (endpoint,),
            "password": password,
            "tls": TLSConfig() if tls is True else tls or None,
            "protocol": 3,
            "maintenance_notifications": not oss_cluster,
        }
        return cls(**{**values, **fields})


def _merged(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over fields, part by part: a given password for the Sentinels leaves their TLS as it is."""
    result = dict(fields)
    for name, value in overrides.items():
        given = {part: getattr(value, part) for part in value.model_fields_set} if isinstance(value, Frozen) else value
        below = result.get(name)
        result[name] = _merged(below, given) if isinstance(below, dict) and isinstance(given, Mapping) else value
    return result


def _conflicts(config: HAConfig) -> Iterable[tuple[str, str]]:
    """Yield each field that cannot work with the others, and why."""
    yield from _address_conflicts(config)
    yield from _credential_conflicts(config)
    if config.topology == "cluster" and config.db:
        yield "db", "a cluster has only database 0"
    one_endpoint = config.topology == "standalone" and not config.unix_socket_path
    if config.maintenance_notifications and not (config.protocol == 3 and one_endpoint):
        yield "maintenance_notifications", "needs protocol 3 and a standalone TCP endpoint"
    waits = config.durability.replicas > 0 or config.durability.fsync
    if waits and config.durability.timeout_seconds >= config.pool.response_timeout_seconds:
        yield "durability.timeout_seconds", "must be less than pool.response_timeout_seconds, or every wait is cut off"
    if waits and config.durability.timeout_seconds >= config.retry.deadline_seconds:
        yield "durability.timeout_seconds", "must be less than retry.deadline_seconds"
    if config.op_retention_seconds < 2 * config.retry.deadline_seconds:
        yield "op_retention_seconds", "must be at least twice retry.deadline_seconds, or a late repeat is applied again"


def _unix_socket_conflicts(config: HAConfig) -> Iterable[tuple[str, str]]:
    if config.topology != "standalone":
        yield "unix_socket_path", f"a {config.topology} cannot be reached through one Unix socket"
    if config.nodes:
        yield "nodes", "give either nodes or unix_socket_path"
    if config.tls:
        yield "tls", "a Unix socket has no TLS"


def _address_conflicts(config: HAConfig) -> Iterable[tuple[str, str]]:
    if config.unix_socket_path:
        yield from _unix_socket_conflicts(config)
    elif not config.nodes:
        yield "nodes", "at least one address is needed"
    if config.topology == "standalone" and len(config.nodes) > 1:
        yield "nodes", "a standalone server has one address; several need topology 'sentinel' or 'cluster'"
    if config.topology == "sentinel":
        if not config.service_name:
            yield "service_name", "the Sentinels' name of the primary is needed, such as 'mymaster'"
    elif config.service_name:
        yield "service_name", "only topology 'sentinel' has a service name"
    elif config.sentinel:
        yield "sentinel", "only topology 'sentinel' has Sentinels"


def _credential_conflicts(config: HAConfig) -> Iterable[tuple[str, str]]:
    if config.credential_provider and (config.username or config.password):
        yield "credential_provider", "give either a credential provider or username and password"
    if config.username and not (config.password or config.credential_provider):
        yield "username", "a user name needs a password"
