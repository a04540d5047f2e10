"""What is compared: four ways to keep a conversation in Redis, each with the client that a careful user gives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import openai_agents_session
from agents.extensions.memory import RedisSession
from redis.asyncio import Redis

from agents_redis_ha import HAConfig, close_shared_connections, ha_session
from agents_redis_ha._storage import encode_items

TTL_SECONDS = 3600


class History(Protocol):
    """What the contenders have in common."""

    async def add_items(self, items: list[Any]) -> None:
        """Append."""

    async def get_items(self) -> Sequence[Any]:
        """Read everything."""


@dataclass(frozen=True)
class Contender:
    """One way to keep a conversation.

    Attributes:
        open: Returns the history of a session id; does no I/O.
        prepare: Turns items into what the history's ``add_items`` takes.
        close: Closes the connections.
        save: Of one that keeps a run in a turn, when its draft is saved; None of one that does without turns.
    """

    open: Callable[[str], History]
    prepare: Callable[[list[Any]], list[Any]]
    close: Callable[[], Awaitable[None]]
    save: Literal["steps", "end"] | None = None


class BareCommands:
    """The floor: what the same work costs with redis-py's own commands and elements that are bytes already."""

    def __init__(self, client: Redis, key: str, replicas: int) -> None:
        self._client = client
        self._key = key
        self._replicas = replicas

    async def add_items(self, items: list[bytes]) -> None:
        """RPUSH and EXPIRE, and WAIT where replicas have to confirm, in one write."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.rpush(self._key, *items)
        pipeline.expire(self._key, TTL_SECONDS)
        if self._replicas:
            pipeline.execute_command("WAIT", self._replicas, 1000)
        await pipeline.execute()

    async def get_items(self) -> Sequence[Any]:
        """LRANGE; the elements stay bytes."""
        elements: Sequence[Any] = await self._client.lrange(self._key, 0, -1)
        return elements


def contenders(url: str, floor_address: str, floor_tag: str) -> dict[str, Contender]:
    """Return the contenders by name: ``ours``, ``floor``, ``end`` and ``steps`` (turns that are saved so), and, on a
    standalone server, ``sdk`` and ``other``.

    Args:
        url: The servers, for `ha_session`.
        floor_address: ``host:port`` of the primary that keeps the floor's keys.
        floor_tag: Their hash tag.
    """
    config = HAConfig.from_url(url, ttl=TTL_SECONDS)
    bare, replicas = _client(config, floor_address), config.durability.replicas

    def floor_key(id_: str) -> str:
        return f"floor:{{{floor_tag}}}:{id_}"

    ours = Contender(lambda id_: ha_session(config, id_), list, close_shared_connections)
    found = {
        "ours": ours,
        "end": replace(ours, save="end"),
        "steps": replace(ours, save="steps"),
        "floor": Contender(lambda id_: BareCommands(bare, floor_key(id_), replicas), encode_items, bare.aclose),
    }
    if config.topology == "standalone":
        for name, session, prefix in (
            ("sdk", RedisSession, "agents:session"),
            ("other", openai_agents_session.RedisSession, "openai_agents_session"),
        ):
            client = _client(config, floor_address)
            found[name] = Contender(_opener(session, client, prefix), list, client.aclose)
    return found


def _opener(session: Callable[..., Any], client: Redis, prefix: str) -> Callable[[str], History]:
    """All sessions of a process on one client that is given to them, as both projects' documentation recommends."""
    return lambda id_: session(id_, redis_client=client, key_prefix=prefix, ttl=TTL_SECONDS)


def _client(config: HAConfig, address: str) -> Redis:
    tls: dict[str, Any] = {"ssl_ca_certs": config.tls.ca_file} if config.tls else {}
    scheme = "rediss" if config.tls else "redis"
    return Redis.from_url(f"{scheme}://{address}", socket_timeout=3.0, socket_connect_timeout=3.0, **tls)
