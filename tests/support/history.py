"""Histories that servers lose and workers put back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from agents_redis_ha import RedisHASession, SessionKeys, SessionStore, lab, session_keys


def message(text: str) -> Any:
    return {"role": "user", "content": text}


async def texts(session: RedisHASession) -> list[Any]:
    return [item["content"] for item in await session.get_items()]  # type: ignore[typeddict-item,misc]


class History:
    """A session's keys on the servers, which can be thrown back to an earlier state as a failover does."""

    def __init__(self, servers: lab.Lab, session_id: str) -> None:
        self._servers = servers
        self._keys: SessionKeys = session_keys("agents:ha", session_id)
        self._dumps: dict[bytes, Any] = {}

    def save(self) -> None:
        """Note the state that the replica has which will be promoted."""
        client = self._servers.client(self._servers.primary(self._keys.items))
        self._dumps = {key: client.dump(key) for key in self._names()}

    def lose(self) -> None:
        """Let another server take over that knows no more than what was saved."""
        old = self._servers.primary(self._keys.items)
        if self._servers.topology == "standalone":
            client = self._servers.client(old)
            client.replicaof("127.0.0.1", "1")  # type: ignore[no-untyped-call]  # redis-py
            client.replicaof("NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py
        else:
            self._servers.promote(self._servers.replicas_of(old)[0])
        client = self._servers.client(self._servers.primary(self._keys.items))
        with client.pipeline(transaction=True) as state:  # no replica has half of it
            for key in self._names():
                state.delete(key)
                if self._dumps.get(key):
                    state.restore(key, 0, self._dumps[key])
            state.execute()

    def flush(self) -> None:
        """Delete the session by hand."""
        self._servers.client(self._servers.primary(self._keys.items)).delete(*self._names())

    def _names(self) -> tuple[bytes, ...]:
        return self._keys.items, self._keys.meta, self._keys.ops


class Workers:
    """Makes sessions of the same id that know nothing of each other, as in different processes."""

    def __init__(self, servers: lab.Lab, session_id: str, stores: AsyncExitStack) -> None:
        self._servers, self._session_id, self._stores = servers, session_id, stores

    async def make(self, **settings: Any) -> RedisHASession:
        settings.setdefault("repair", {})
        settings["repair"].setdefault("patience_seconds", 0.3)
        store = await self._stores.enter_async_context(SessionStore(self._servers.config(**settings)))
        return store.session(self._session_id)
