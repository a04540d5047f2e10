"""Histories that servers lose and workers put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest

from agents_redis_ha import (
    HistoryLostError,
    RedisHASession,
    RetryConfig,
    SessionKeys,
    SessionStore,
    lab,
    session_keys,
)

PATIENT = RetryConfig(deadline_seconds=60)
"""For operations that have to succeed however busy the machine is, and many at once."""


def message(text: str) -> Any:
    return {"role": "user", "content": text}


async def say(session: RedisHASession, *said: str) -> None:
    """Append messages, each by itself."""
    for text in said:
        await session.add_items([message(text)])


async def texts(session: RedisHASession) -> list[Any]:
    items: list[Any] = await session.get_items()
    return [item["content"] for item in items]


def forget_all(session: RedisHASession) -> None:
    """Let the session's process know nothing of any session any more."""
    journal = session._operations._source()._journal
    for log in journal:
        journal.forget(log)


@contextmanager
def told_of_lost(*versions: int) -> Iterator[pytest.ExceptionInfo[HistoryLostError]]:
    """The block is told that these versions of the session are gone."""
    with pytest.raises(HistoryLostError) as caught:
        yield caught
    assert caught.value.versions == versions


class History:
    """A session's keys on the servers, which can be thrown back to an earlier state as a failover does."""

    def __init__(self, servers: lab.Lab, session_id: str) -> None:
        self._servers = servers
        self._keys: SessionKeys = session_keys("agents:ha", session_id)
        self._dumps: dict[bytes, Any] = {}

    @asynccontextmanager
    async def losing(self) -> AsyncIterator[None]:
        """Lose what the block changes: at its end another server takes over, which knows no more than at its begin."""
        await self.save()
        yield
        await self.lose()

    async def save(self) -> None:
        """Note the state that the replica has which will be promoted."""
        await asyncio.to_thread(self._save)

    async def lose(self) -> None:
        """Let another server take over that knows no more than what was saved, or nothing if nothing was."""
        await asyncio.to_thread(self._lose)

    async def delete(self) -> None:
        """Delete the session by hand."""
        await asyncio.to_thread(lambda: self._primary().delete(*self._names))

    async def evict(self, *parts: str) -> None:
        """Let the server evict some of the session's keys: ``items``, ``meta``, ``ops``, ``turns``."""
        keys = [getattr(self._keys, part) for part in parts]
        await asyncio.to_thread(lambda: self._primary().delete(*keys))

    async def meta(self) -> dict[bytes, bytes]:
        """Return what the server keeps of the session."""
        found: dict[bytes, bytes] = await asyncio.to_thread(lambda: self._primary().hgetall(self._keys.meta))
        return found

    async def ops(self) -> list[bytes]:
        """Return what the server remembers of the session's changes."""
        found: list[bytes] = await asyncio.to_thread(lambda: self._primary().lrange(self._keys.ops, 0, -1))
        return found

    async def turns(self) -> dict[bytes, bytes]:
        """Return what the server keeps of the session's turns."""
        found: dict[bytes, bytes] = await asyncio.to_thread(lambda: self._primary().hgetall(self._keys.turns))
        return found

    async def set_meta(self, **fields: str | int) -> None:
        """Write into what the server keeps of the session."""
        await asyncio.to_thread(lambda: self._primary().hset(self._keys.meta, mapping=fields))

    async def forget_in_meta(self, *fields: str) -> None:
        """Delete something of what the server keeps of the session."""
        await asyncio.to_thread(lambda: self._primary().hdel(self._keys.meta, *fields))

    async def bytes_of(self, part: str) -> int:
        """Return how many bytes a key takes: ``items``, ``meta``, ``ops``, ``turns``."""
        key = getattr(self._keys, part)
        used: int = await asyncio.to_thread(lambda: self._primary().memory_usage(key, samples=0) or 0)
        return used

    def _save(self) -> None:
        with self._primary().pipeline(transaction=True) as pipeline:
            for key in self._names:
                pipeline.dump(key)
            self._dumps = dict(zip(self._names, pipeline.execute(), strict=True))

    def _lose(self) -> None:
        if self._servers.topology != "standalone":
            self._servers.promote(self._servers.replicas_of(self._servers.primary(self._keys.items))[0])
        with self._primary().pipeline(transaction=True) as pipeline:  # in one step: nobody writes meanwhile
            pipeline.delete(*self._names)
            for key, dump in self._dumps.items():
                if dump:
                    pipeline.restore(key, 0, dump)
            if self._servers.topology == "standalone":
                for source in (("127.0.0.1", "1"), ("NO", "ONE")):
                    pipeline.execute_command("REPLICAOF", *source)
            pipeline.execute()

    def _primary(self) -> Any:
        return self._servers.client(self._servers.primary(self._keys.items))

    @property
    def _names(self) -> tuple[bytes, ...]:
        return self._keys.items, self._keys.meta, self._keys.ops, self._keys.turns


class Workers:
    """Makes sessions of the same id that know nothing of each other, as in different processes."""

    def __init__(self, servers: lab.Lab, session_id: str, stores: AsyncExitStack) -> None:
        self._servers, self._session_id, self._stores = servers, session_id, stores

    async def make(self, patience_seconds: float = 0.3, **settings: Any) -> RedisHASession:
        settings["repair"] = {"patience_seconds": patience_seconds, **settings.get("repair", {})}
        store = await self._stores.enter_async_context(SessionStore(self._servers.config(**settings)))
        return store.session(self._session_id)
