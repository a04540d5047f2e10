"""The parts of a configuration: addresses, TLS, pool, retry, durability, repair and Sentinels. No I/O happens here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..errors import ConfigurationError

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_SENTINEL_PORT",
    "ENVIRONMENT_PREFIX",
    "Address",
    "DurabilityConfig",
    "Frozen",
    "PoolConfig",
    "RepairConfig",
    "RetryConfig",
    "SentinelConfig",
    "TLSConfig",
    "refuse",
    "to_address",
]

_Self = TypeVar("_Self", bound="Frozen")

ENVIRONMENT_PREFIX = "AGENTS_REDIS_HA_"
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379


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
            if not bracket or ":" not in host or (rest and not rest.startswith(":")):
                raise ValueError("an IPv6 address is written [address]:port")
            port = rest[1:]
        elif host.count(":") == 1:
            host, _, port = host.partition(":")
        elif ":" in host:
            raise ValueError("an IPv6 address is written [address]:port")
        if not host:
            raise ValueError("the host is missing")
        if port and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ValueError("the port must be a number from 1 to 65535")
        return cls(host, int(port) if port else default_port)


def to_address(value: Any) -> Address:
    """Return the address of a ``host:port`` text or a pair; ValueError if it is none."""
    if isinstance(value, str):
        return Address.parse(value)
    try:
        return Address.parse(f"{Address(*value)}")
    except TypeError:
        raise ValueError("an address is a 'host:port' text or a (host, port) pair") from None


def refuse(field: str, reason: str) -> PydanticCustomError:
    """Return an error about another field than the validator's own."""
    return PydanticCustomError("config", "{reason}", {"field": field, "reason": reason})


class Frozen(BaseModel):
    """A frozen, keyword-only model. Its errors are `ConfigurationError` and never show a value."""

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
    inner = context.get("error")
    if isinstance(inner, ConfigurationError):  # of a part that was given as a mapping
        return ConfigurationError(".".join([*location, inner.field]), inner.reason)
    if "field" in context:
        location.append(context["field"])
    if first["type"] == "extra_forbidden":
        return ConfigurationError(".".join(location), "there is no such field")
    return ConfigurationError(".".join(location) or "config", first["msg"].removeprefix("Value error, "))


class TLSConfig(Frozen):
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
            raise refuse("key_file", "a private key needs its certificate: set cert_file too")
        if self.key_password and not self.cert_file:
            raise refuse("key_password", "there is no private key: set cert_file and key_file")
        if self.check_hostname and not self.verify:
            raise refuse("check_hostname", "a host name in an untrusted certificate proves nothing: set it to False")
        return self


class PoolConfig(Frozen):
    """Connections to one node.

    Attributes:
        max_connections: Most connections to one node, in one process and event loop. More concurrent operations wait.
        wait_timeout_seconds: Longest wait of one attempt for a free connection.
        connect_timeout_seconds: Longest wait for a connection to be made.
        response_timeout_seconds: Longest silence of the server while it owes a reply. Afterwards the operation is sent
            again under the same id. Choose it longer than any script, WAIT or pause that is normal on your servers.
    """

    max_connections: int = Field(default=32, ge=1)
    wait_timeout_seconds: float = Field(default=3.0, gt=0)
    connect_timeout_seconds: float = Field(default=1.5, gt=0)
    response_timeout_seconds: float = Field(default=3.0, gt=0)


class RetryConfig(Frozen):
    """The one retry loop of an operation.

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
            raise refuse("initial_backoff_seconds", "must not exceed max_backoff_seconds")
        return self


def _confirm_seconds(fsync: bool | None) -> float:
    # `appendfsync everysec` flushes once a second, and a replica tells once a second what it has flushed. An attempt
    # that waits for less than both together is sent again, and that is a write which waits for the next flush.
    return 2.5 if fsync else 1.0


class DurabilityConfig(Frozen):
    """When a change counts as stored: on the primary alone, on replicas too, on disk.

    Attributes:
        replicas: Number of replicas that must have the change before it is confirmed (WAIT). In a cluster, replicas of
            the shard.
        fsync: Whether the primary and that number of replicas must have it in their append-only files on disk
            (WAITAOF: Redis 7.2, Valkey 8 and newer, with ``appendonly yes``).
        timeout_seconds: Longest wait for them in one attempt; shorter than ``pool.response_timeout_seconds``. The next
            attempt waits again, until the deadline. With ``fsync`` 2.5 by default.
        on_shortfall: What happens when too few of them have the change at the deadline. ``raise``: `UnconfirmedError`.
            ``degrade``: the call returns, with a warning, a span event and a metric.
    """

    replicas: int = Field(default=0, ge=0)
    fsync: bool = False
    timeout_seconds: float = Field(default_factory=lambda given: _confirm_seconds(given.get("fsync")), ge=0.001)
    on_shortfall: Literal["raise", "degrade"] = "raise"


class RepairConfig(Frozen):
    """What a process keeps of its sessions' latest changes, to put back what the servers lose.

    The age is bounded by ``op_retention_seconds``. Of several configurations for the same servers the largest bounds
    count; the rest is each session's own.

    Attributes:
        max_changes: Most own changes that are kept, of all sessions together, and most sessions. With 0 none are kept,
            and no loss is noticed.
        max_bytes: Most bytes of memory that all of it takes: items, ids, and about 1 kB for each session. Items that
            were read are dropped first, then own changes, and last of all what it takes to notice a loss.
        patience_seconds: Longest time for which a session takes no changes because another process may still put back
            what this one cannot.
        on_loss: What happens when a change cannot be put back. ``raise``: `HistoryLostError`, once. ``warn``: a line of
            the log and a metric; the operation goes on.
        on_divergence: What happens to lost appends of this process when another process wrote in their place before
            they were back. ``report``: they are lost. ``append``: they go to the end, with a warning;
            a published turn is lost all the same.
    """

    max_changes: int = Field(default=10_000, ge=0)
    max_bytes: int = Field(default=32 * 1024 * 1024, ge=0)
    patience_seconds: float = Field(default=2.0, ge=0)
    on_loss: Literal["raise", "warn"] = "raise"
    on_divergence: Literal["report", "append"] = "report"


class SentinelConfig(Frozen):
    """How the Sentinels themselves are asked; they have their own users and their own TLS.

    Attributes:
        username: ACL user on the Sentinels; None means the default user.
        password: Password on the Sentinels; None means none. The data servers' password is never sent to a Sentinel.
        tls: TLS to the Sentinels; None means plain TCP, also when the data servers use TLS.
        timeout_seconds: Longest wait for the answers of the Sentinels, which are all asked at once.
        poll_interval_seconds: Time between two rounds of questions while nothing seems wrong. The Sentinels'
            announcements are heard besides.
    """

    username: str | None = None
    password: SecretStr | None = None
    tls: TLSConfig | None = None
    timeout_seconds: float = Field(default=0.5, gt=0)
    poll_interval_seconds: float = Field(default=1.0, gt=0)

    if TYPE_CHECKING:  # pydantic takes more than the fields' types say, such as plain texts for secrets

        def __init__(self, **fields: Any) -> None: ...
