"""URL and environment → fields of `HAConfig`. Pure.

    scheme://[user:password@]host[:port][,host[:port]…][/service][/db][?option=value[&…]]
    unix://[user:password@]/path/to/socket[?db=0&option=value]

Schemes: ``redis``, ``rediss`` (TLS), ``unix``, ``redis+sentinel``, ``rediss+sentinel``, ``redis+cluster``,
``rediss+cluster``; the same with ``valkey``. IPv6 addresses stand in brackets. User, password, service and options are
percent-encoded where they hold reserved characters. ``/service`` exists with Sentinel only, and is required there.
``rediss+sentinel`` means TLS to the data servers and to the Sentinels; ``sentinel_tls=false`` means plain TCP to the
Sentinels.
The options are the keys of `OPTIONS`; an unknown one is an error, so that no typo passes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from ..errors import ConfigurationError
from .parts import DEFAULT_PORT, DEFAULT_SENTINEL_PORT, ENVIRONMENT_PREFIX, Address

__all__ = ["OPTIONS", "parse_environment", "parse_url"]

# Option of the URL's query, and in capitals of the environment → field of HAConfig, dotted where it is nested.
OPTIONS: Final[dict[str, str]] = {
    "ca_file": "tls.ca_file",
    "cert_file": "tls.cert_file",
    "check_hostname": "tls.check_hostname",
    "client_name": "client_name",
    "connect_timeout": "pool.connect_timeout_seconds",
    "db": "db",
    "confirm_timeout": "durability.timeout_seconds",
    "deadline": "retry.deadline_seconds",
    "fsync": "durability.fsync",
    "key_file": "tls.key_file",
    "key_password": "tls.key_password",
    "key_prefix": "key_prefix",
    "max_connections": "pool.max_connections",
    "on_loss": "repair.on_loss",
    "on_shortfall": "durability.on_shortfall",
    "op_retention": "op_retention_seconds",
    "password": "password",
    "protocol": "protocol",
    "replicas": "durability.replicas",
    "response_timeout": "pool.response_timeout_seconds",
    "sentinel_ca_file": "sentinel.tls.ca_file",
    "sentinel_cert_file": "sentinel.tls.cert_file",
    "sentinel_check_hostname": "sentinel.tls.check_hostname",
    "sentinel_key_file": "sentinel.tls.key_file",
    "sentinel_password": "sentinel.password",
    "sentinel_tls": "sentinel.tls",
    "sentinel_username": "sentinel.username",
    "tls_min_version": "tls.min_version",
    "trace_session_id": "trace_session_id",
    "ttl": "ttl",
    "turn_retention": "turn_retention_seconds",
    "username": "username",
    "verify": "tls.verify",
}

_TOPOLOGIES: Final[dict[str, str]] = {"": "standalone", "sentinel": "sentinel", "cluster": "cluster"}


def parse_url(url: str) -> dict[str, Any]:
    """Return the fields of `HAConfig` that a URL gives.

    Raises:
        ConfigurationError: The URL cannot be read. The message names the part, never the URL.
    """
    return _fields(*_split(url))


def parse_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of `HAConfig` that environment variables give; see `HAConfig.from_env`.

    Raises:
        ConfigurationError: The URL is missing or a variable is unknown.
    """
    url = environ.get(f"{ENVIRONMENT_PREFIX}URL")
    if not url:
        raise ConfigurationError(f"{ENVIRONMENT_PREFIX}URL", "the variable is not set")
    given = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    # Variables of the package that configure no session: the lab's choice of a server, the tests' strictness.
    for other in ("url", "server", "require_all", "require_compose"):
        given.pop(other, None)
    scheme, fields, options = _split(url)
    return _fields(scheme, fields, {**options, **given})


def _split(url: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    scheme, found, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    scheme = scheme.lower().replace("valkey", "redis", 1)
    if not found:
        raise ConfigurationError("url", "must be like redis://host:6379/0")
    if "#" in rest:
        raise ConfigurationError("url", "a # in a user name, password or option is written %23")
    rest, _, query = rest.partition("?")
    if "@" in query:
        raise ConfigurationError("url", "a ? in a user name or password is written %3F, an @ in an option %40")
    credentials, at, location = rest.rpartition("@")
    fields = _credentials(credentials) if at else {}
    if scheme == "unix":
        fields.update(topology="standalone", unix_socket_path=unquote(location))
    else:
        fields.update(_location(scheme, location))
    return scheme, fields, _options(query)


def _credentials(text: str) -> dict[str, Any]:
    username, colon, password = text.partition(":")
    given = {"username": unquote(username), "password": unquote(password) if colon else ""}
    return {name: value for name, value in given.items() if value}


def _location(scheme: str, text: str) -> dict[str, Any]:
    base, _, kind = scheme.partition("+")
    if base not in ("redis", "rediss") or kind not in _TOPOLOGIES or scheme.endswith("+"):
        raise ConfigurationError(
            "url", "unknown scheme; known are redis, rediss and unix, the former with +sentinel or +cluster"
        )
    hosts, _, path = text.partition("/")
    parts = [unquote(part) for part in path.split("/") if part]
    fields: dict[str, Any] = {"topology": _TOPOLOGIES[kind], "nodes": tuple(_addresses(hosts, kind))}
    if kind == "sentinel" and parts:
        fields["service_name"] = parts.pop(0)
    if parts:
        fields["db"] = parts.pop(0)
    if parts:
        raise ConfigurationError("url", "there is more in its path than a service and a database number")
    return fields


def _addresses(hosts: str, kind: str) -> Iterable[Address]:
    default = DEFAULT_SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    for text in hosts.split(",") if hosts else ["localhost"]:
        try:
            yield Address.parse(unquote(text), default)
        except ValueError as error:
            raise ConfigurationError("nodes", str(error)) from None


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigurationError("url", "its query must be name=value pairs joined by &") from None
    return dict(pairs)


def _fields(scheme: str, fields: dict[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """Lay the options over the URL's own fields, each at its (nested) place."""
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown is not None:
        raise ConfigurationError(unknown, "there is no such option")
    result = dict(fields)
    if scheme.startswith("rediss"):
        result["tls"] = {}
        if scheme.endswith("+sentinel"):
            result["sentinel"] = {"tls": {}}
    for name, value in options.items():
        path = OPTIONS[name].split(".")
        if path[0] == "tls" and "tls" not in result:
            raise ConfigurationError(name, f"{scheme} has no TLS: use the scheme that begins with rediss")
        if value != "" and name != "sentinel_tls":
            _place(result, path, value)
    _decide_sentinel_tls(result, options.get("sentinel_tls"))
    return result


def _place(result: dict[str, Any], path: list[str], value: str) -> None:
    *parents, last = path
    for parent in parents:
        if not isinstance(result.get(parent), dict):
            result[parent] = {}
        result = result[parent]
    result[last] = value


def _decide_sentinel_tls(result: dict[str, Any], wanted: str | None) -> None:
    """Give the Sentinels the data servers' TLS settings, overridden by their own: most fleets have one authority."""
    switches = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if wanted is not None and wanted.lower() not in switches:
        raise ConfigurationError("sentinel_tls", "must be true or false")
    sentinel = result.get("sentinel", {})
    own = sentinel.get("tls")
    use = isinstance(own, dict) if wanted is None else switches[wanted.lower()]
    if use:
        result["sentinel"] = {**sentinel, "tls": {**result.get("tls", {}), **(own or {})}}
    elif wanted is not None:
        result["sentinel"] = {**sentinel, "tls": None}
