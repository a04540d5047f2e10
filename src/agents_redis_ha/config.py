"""One configuration for every topology. No I/O happens here; what cannot work together cannot be built.

`HAConfig` comes from keywords, from a URL (`HAConfig.from_url`, its grammar is in `urls`), from the environment
(`HAConfig.from_env`) or from a preset for a managed service. Configurations are frozen, comparable and hashable, and
their ``repr`` holds no password.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from redis.credentials import CredentialProvider

from .errors import ConfigurationError
from .keys import check_prefix

__all__ = [
    "Address",
    "HAConfig",
    "PoolConfig",
    "RetryConfig",
    "SentinelConfig",
    "TLSConfig",
    "Topology",
]

Topology = Literal["standalone", "sentinel", "cluster"]
_Self = TypeVar("_Self", bound="_Frozen")

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
ENVIRONMENT_PREFIX = "AGENTS_REDIS_HA_"


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        host: Host name or IP address, without brackets.
        port: TCP port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Address:
        """Return the address of ``host``, ``host:port`` or ``[ipv6]:port``.

        Raises:
            ValueError: The text is none of these.
        """
        host, port = text.strip(), ""
        if host.startswith("["):
            host, bracket, rest = host[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError("an IPv6 address is written [address]:port")
            port = rest[1:]
        elif host.count(":") == 1:
            host, _, port = host.partition(":")
        elif ":" in host:
            raise ValueError("an IPv6 address is written [address]:port")
        if not host:
            raise ValueError("the host is missing")
        number = int(port) if port.isascii() and port.isdigit() else default_port
        if (port and number != int(port if port.isdigit() else -1)) or not 0 < number < 65536:
            raise ValueError("the port must be a number from 1 to 65535")
        return cls(host, number)


def _address(value: Any) -> Address:
    if isinstance(value, str):
        return Address.parse(value)
    try:
        return Address.parse(f"{Address(*value)}")
    except TypeError:
        raise ValueError("an address is a 'host:port' text or a (host, port) pair") from None


def _refuse(field: str, reason: str) -> PydanticCustomError:
    """Return an error about another field than the validator's own."""
    return PydanticCustomError("config", "{reason}", {"field": field, "reason": reason})


class _Frozen(BaseModel):
    """A frozen, keyword-only model that raises ConfigurationError and never shows a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _configuration_error(error) from None

    def replace(self: _Self, **changes: Any) -> _Self:
        """Return a copy with the given fields changed, validated as a whole.

        Raises:
            ConfigurationError: The result cannot work.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**values, **changes})


def _configuration_error(error: ValidationError) -> ConfigurationError:
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    location = [str(part) for part in first["loc"]]
    if "field" in context:
        location.append(context["field"])
    if first["type"] == "extra_forbidden":
        return ConfigurationError(".".join(location), "there is no such field")
    return ConfigurationError(".".join(location) or "config", first["msg"].removeprefix("Value error, "))


class TLSConfig(_Frozen):
    """How servers are trusted and how this client identifies itself. File names; nothing is read here.

    Attributes:
        ca_file: PEM file of the authorities to trust; None means the system's.
        cert_file: PEM file of the client certificate, for mutual TLS.
        key_file: PEM file of its private key; None if the certificate's file holds it too.
        key_password: Password of the private key.
        verify: Whether the server's certificate must be trusted. Only a test should switch it off.
        check_hostname: Whether the certificate must name the host that was dialled.
        min_version: Oldest TLS version to accept.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: SecretStr | None = None
    verify: bool = True
    check_hostname: bool = True
    min_version: Literal["1.2", "1.3"] = "1.2"

    if TYPE_CHECKING:  # pydantic takes more than the fields' types say, such as plain texts for secrets

        def __init__(self, **fields: Any) -> None: ...

    @field_validator("ca_file", "cert_file", "key_file", mode="before")
    @classmethod
    def _path_to_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @model_validator(mode="after")
    def _fits_together(self) -> TLSConfig:
        if self.key_file and not self.cert_file:
            raise _refuse("key_file", "a private key needs its certificate: set cert_file too")
        if self.key_password and not self.cert_file:
            raise _refuse("key_password", "there is no private key: set cert_file and key_file")
        if self.check_hostname and not self.verify:
            raise _refuse("check_hostname", "a host name in an untrusted certificate proves nothing: set it to False")
        return self


class PoolConfig(_Frozen):
    """Connections to one node.

    Attributes:
        max_connections: Most connections to one node, in one process and event loop. More concurrent operations wait.
        wait_timeout_seconds: Longest wait of one attempt for a free connection.
        connect_timeout_seconds: Longest wait for a connection to be made.
        response_timeout_seconds: Longest silence of the server while it owes a reply. Afterwards the operation is sent
            again under the same id. Longer than any script, WAIT or pause that you consider normal.
    """

    max_connections: int = Field(default=32, ge=1)
    wait_timeout_seconds: float = Field(default=3.0, gt=0)
    connect_timeout_seconds: float = Field(default=1.5, gt=0)
    response_timeout_seconds: float = Field(default=3.0, gt=0)


class RetryConfig(_Frozen):
    """The one retry loop.

    Attributes:
        deadline_seconds: Longest time of one operation, all attempts and waits together.
        initial_backoff_seconds: Upper bound of the first wait; each wait is drawn at random below its bound.
        max_backoff_seconds: Upper bound of every wait; it doubles until there.
    """

    deadline_seconds: float = Field(default=15.0, gt=0)
    initial_backoff_seconds: float = Field(default=0.02, gt=0)
    max_backoff_seconds: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> RetryConfig:
        if self.initial_backoff_seconds > self.max_backoff_seconds:
            raise _refuse("initial_backoff_seconds", "must not exceed max_backoff_seconds")
        return self


class SentinelConfig(_Frozen):
    """How the Sentinels themselves are asked; they have their own users and their own TLS.

    Attributes:
        username: ACL user on the Sentinels; None means the default user.
        password: Password on the Sentinels; None means none. The data servers' password is never sent to a Sentinel.
        tls: TLS to the Sentinels; None means plain TCP, also when the data servers use TLS.
        timeout_seconds: Longest wait for a Sentinel; they are asked all at once.
        poll_interval_seconds: How often the primary is asked for again although nothing seems wrong, beside the
            Sentinels' own announcements.
    """

    username: str | None = None
    password: SecretStr | None = None
    tls: TLSConfig | None = None
    timeout_seconds: float = Field(default=0.5, gt=0)
    poll_interval_seconds: float = Field(default=1.0, gt=0)

    if TYPE_CHECKING:  # pydantic takes more than the fields' types say, such as plain texts for secrets

        def __init__(self, **fields: Any) -> None: ...


class HAConfig(_Frozen):
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
        key_prefix: First part of every key; no braces.
        ttl: Seconds after its last change at which a session expires; None means never.
        op_retention_seconds: How long the id of an operation is remembered, so that a repeat is recognised.
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
    key_prefix: str = "agents:ha"
    ttl: int | None = Field(default=None, ge=1, le=10**12)
    op_retention_seconds: int = Field(default=120, ge=1)
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
        return tuple(_address(v) for v in values)

    @field_validator("address_map", mode="before")
    @classmethod
    def _parse_address_map(cls, value: Any) -> Any:
        pairs = value.items() if isinstance(value, Mapping) else value
        return tuple((_address(announced), _address(dialled)) for announced, dialled in pairs)

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
            raise _refuse(field, reason)
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
        from .urls import parse_url  # here: urls builds on this module

        return cls(**{**parse_url(url), **overrides})

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
        from .urls import parse_environment  # here: urls builds on this module

        return cls(**{**parse_environment(os.environ if environ is None else environ), **overrides})

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


def _conflicts(config: HAConfig) -> Iterable[tuple[str, str]]:
    """Yield each field that cannot work with the others, and why."""
    yield from _address_conflicts(config)
    yield from _credential_conflicts(config)
    if config.topology == "cluster" and config.db:
        yield "db", "a cluster has only database 0"
    one_endpoint = config.topology == "standalone" and not config.unix_socket_path
    if config.maintenance_notifications and not (config.protocol == 3 and one_endpoint):
        yield "maintenance_notifications", "needs protocol 3 and a standalone TCP endpoint"
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
