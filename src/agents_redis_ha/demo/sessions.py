"""Where a worker gets its sessions from: this library, or the SDK's own Redis session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agents.items import TResponseInputItem
from agents.memory import Session

from .. import HAConfig, Turn

SessionKind = Literal["ha", "sdk"]

SDK_TIMEOUT_SECONDS = 3.0
"""The socket timeout of the SDK's client; redis-py's default is to wait for ever."""

LEASE_SECONDS = 10.0
"""How long the turns of a killed worker wait for it; no shorter than the deadline of an operation."""


@dataclass(frozen=True)
class SessionPlan:
    """How a worker opens its sessions.

    Attributes:
        kind: ``ha`` for this library, ``sdk`` for ``agents.extensions.memory.RedisSession``.
        config: The servers; both kinds are built from it.
    """

    kind: SessionKind
    config: HAConfig


@dataclass(frozen=True)
class PlainTurn:
    """A turn on a session that knows no turns: delivered again, it is run again."""

    session: Session
    input: list[TResponseInputItem]
    is_answered = False

    def answer(self, result: Any) -> None:
        """Keep nothing."""


class SessionSource(Protocol):
    """Opens sessions; one for each process, within one event loop."""

    def session(self, conversation_id: str) -> AbstractAsyncContextManager[Session]:
        """A new session object for a conversation."""
        ...

    def turn(
        self, conversation_id: str, turn_id: str, message: list[TResponseInputItem]
    ) -> AbstractAsyncContextManager[Turn | PlainTurn]:
        """A turn on a new session object; the id is the same when it is delivered again."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def open_source(plan: SessionPlan) -> SessionSource:
    """The source of sessions that a plan names. Does no I/O."""
    return HASource(plan.config) if plan.kind == "ha" else SDKSource(plan.config)


class HASource:
    """Sessions of this library; sessions of equal configs share their connections."""

    def __init__(self, config: HAConfig) -> None:
        self._config = config

    @asynccontextmanager
    async def session(self, conversation_id: str) -> AsyncIterator[Session]:
        """A session, made anew as a web worker makes one for a request."""
        from .. import ha_session

        async with ha_session(self._config, conversation_id) as session:
            yield session

    @asynccontextmanager
    async def turn(
        self, conversation_id: str, turn_id: str, message: list[TResponseInputItem]
    ) -> AsyncIterator[Turn | PlainTurn]:
        """A turn of this library: answered once, however often it is delivered."""
        from .. import ha_turn

        lease_seconds = max(LEASE_SECONDS, self._config.retry.deadline_seconds)
        async with self.session(conversation_id) as session:
            async with ha_turn(session, turn_id, message, lease_seconds=lease_seconds) as turn:
                yield turn

    async def close(self) -> None:
        """Close the connections that the sessions shared."""
        from .. import close_shared_connections

        await close_shared_connections()


class SDKSource:
    """The SDK's sessions on one client of the process, as its documentation recommends."""

    def __init__(self, config: HAConfig) -> None:
        self._client, self._sentinel = sdk_client(config)

    @asynccontextmanager
    async def session(self, conversation_id: str) -> AsyncIterator[Session]:
        """A session on the shared client, which it does not own and so does not close."""
        from agents.extensions.memory import RedisSession

        yield RedisSession(conversation_id, redis_client=self._client)

    @asynccontextmanager
    async def turn(
        self, conversation_id: str, turn_id: str, message: list[TResponseInputItem]
    ) -> AsyncIterator[Turn | PlainTurn]:
        """A run on the session itself, whatever the id."""
        async with self.session(conversation_id) as session:
            yield PlainTurn(session, message)

    async def close(self) -> None:
        """Close the client and those of the Sentinels."""
        await self._client.aclose()
        if self._sentinel is not None:
            for client in self._sentinel.sentinels:
                await client.aclose()


def sdk_client(config: HAConfig) -> tuple[Any, Any]:
    """The redis-py client that a careful user would hand to the SDK's session.

    It has timeouts, because without them a frozen server hangs a turn for ever. It has none of
    redis-py's own retries, as ``Redis.from_url`` and ``Sentinel.master_for`` have none: the
    session's writes are transactions, and sending one again after a lost reply stores it twice.

    Args:
        config: The servers.

    Returns:
        The client, and the ``Sentinel`` behind it or ``None``. ``Any``, because redis-py's own
        types do not cover what its three clients have in common.
    """
    from redis.asyncio import Redis
    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.sentinel import Sentinel

    timeouts: dict[str, Any] = {
        "socket_timeout": SDK_TIMEOUT_SECONDS,
        "socket_connect_timeout": SDK_TIMEOUT_SECONDS,
    }
    secret = config.password.get_secret_value() if config.password else None
    login: dict[str, Any] = {"username": config.username, "password": secret}
    node = config.nodes[0]
    if config.topology == "sentinel":
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]  # as redis-py has it
            list(config.nodes), sentinel_kwargs=timeouts, **timeouts, **login
        )
        return sentinel.master_for(config.service_name), sentinel
    if config.topology == "cluster":
        return RedisCluster(host=node.host, port=node.port, **timeouts, **login), None
    if config.tls is not None:
        trust: dict[str, Any] = {
            "ssl_ca_certs": config.tls.ca_file,
            "ssl_certfile": config.tls.cert_file,
            "ssl_keyfile": config.tls.key_file,
        }
        return Redis.from_url(f"rediss://{node}/0", **trust, **timeouts, **login), None
    return Redis.from_url(f"redis://{node}/0", **timeouts, **login), None


def items_key(kind: SessionKind, config: HAConfig, conversation_id: str) -> bytes:
    """The key of the list that holds a conversation's items."""
    from .. import session_keys

    if kind == "ha":
        return session_keys(config.key_prefix, conversation_id).items
    return f"agents:session:{conversation_id}:messages".encode()


def slot_of(kind: SessionKind, config: HAConfig, conversation_id: str) -> int:
    """The cluster slot of a conversation."""
    from redis.crc import key_slot

    return int(key_slot(items_key(kind, config, conversation_id)))
