"""`ha_session`: the one line that a team's code changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from agents.memory import SessionSettings
from pydantic import ValidationError

from .._config import HAConfig
from .._connections import Client, check_client, check_settings, placeholder
from ..errors import ConfigurationError
from .session import RedisHASession
from .shared_connections import shared_coordinator

__all__ = ["ha_session", "resolve_config", "sdk_settings"]


def ha_session(
    config: HAConfig | str | Mapping[str, Any] | None = None,
    session_id: str | None = None,
    *,
    client: Client | None = None,
    session_settings: SessionSettings | Mapping[str, Any] | None = None,
    **options: Any,
) -> RedisHASession:
    """Return a session that keeps one conversation in Redis, whole, through failovers. It does no I/O.

    Sessions whose configurations connect alike share their connections within one process and event loop, whatever
    their ``retry``, ``repair``, ``durability``, prefix and TTL are; those are closed when the loop shuts down.

    Args:
        config: An `HAConfig`, a URL, or a mapping of HAConfig's fields; None only together with ``client``.
        session_id: The conversation's id; None means a new conversation with a generated id.
        client: One of redis-py's asyncio clients to use; it stays the caller's to close, and it belongs to the event
            loop that it was made for.
        session_settings: The SDK's settings, such as a default ``limit``.
        **options: Fields of `HAConfig` that win over the configuration's, such as ``ttl`` (seconds) and ``key_prefix``.

    Raises:
        ConfigurationError: The configuration cannot work.
    """
    resolved = resolve_config(config, client, options)
    source = shared_coordinator(resolved, client)
    return RedisHASession(resolved, session_id, source, session_settings=sdk_settings(session_settings))


def resolve_config(
    config: HAConfig | str | Mapping[str, Any] | None, client: Client | None, options: Mapping[str, Any]
) -> HAConfig:
    """Return the configuration that the arguments of `ha_session` describe.

    Raises:
        ConfigurationError: It cannot work.
    """
    if client is None:
        return _resolved(config, options)
    check_client(client)
    resolved = _resolved(placeholder(client) if config is None else config, options)
    check_settings(client, resolved)
    return resolved


def _resolved(config: HAConfig | str | Mapping[str, Any] | None, options: Mapping[str, Any]) -> HAConfig:
    if config is None:
        raise ConfigurationError("config", "give a configuration, a URL or a client")
    if isinstance(config, str):
        return HAConfig.from_url(config, **options) if options else _from_url(config)
    if isinstance(config, HAConfig):
        return config.replace(**options) if options else config
    if isinstance(config, Mapping):
        return HAConfig(**{**config, **options})
    raise ConfigurationError("config", f"must be an HAConfig, a URL or a mapping, not {type(config).__name__}")


def sdk_settings(settings: SessionSettings | Mapping[str, Any] | None) -> SessionSettings:
    """Return the SDK's settings of a session.

    Raises:
        ConfigurationError: They are none; the SDK itself passes over a field that it does not know.
    """
    if settings is None:
        return SessionSettings()
    if isinstance(settings, SessionSettings):
        return settings
    if not isinstance(settings, Mapping):
        raise ConfigurationError("session_settings", f"must be a mapping, not {type(settings).__name__}")
    unknown = next((name for name in settings if name not in {field.name for field in fields(SessionSettings)}), None)
    if unknown is not None:
        raise ConfigurationError(f"session_settings.{unknown}", "there is no such field")
    try:
        return SessionSettings(**settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(".".join(["session_settings", *map(str, first["loc"])]), first["msg"]) from None


@lru_cache(maxsize=32)
def _from_url(url: str) -> HAConfig:
    """Read a URL once: web workers make a session a request."""
    return HAConfig.from_url(url)
