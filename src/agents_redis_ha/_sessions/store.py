"""`SessionStore`: connections with an explicit owner, and what concerns all sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from agents.memory import SessionSettings

from .._config import HAConfig
from .._connections import Client, Health, check_health
from .._recovery import RecoveryCoordinator
from ..errors import ClosedError
from .factory import resolve_config, sdk_settings
from .session import RedisHASession
from .shared_connections import owned_coordinator

__all__ = ["SessionStore"]


class SessionStore:
    """Makes sessions that share its connections, which it closes.

    It belongs to the event loop in which it is used first. Use it as ``async with SessionStore(config) as store``.
    """

    def __init__(
        self,
        config: HAConfig | str | Mapping[str, Any] | None = None,
        *,
        client: Client | None = None,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Make a store without I/O.

        Args:
            config: As for `ha_session`.
            client: As for `ha_session`.
            session_settings: The SDK's settings of its sessions.
            **options: As for `ha_session`.

        Raises:
            ConfigurationError: The configuration cannot work.
        """
        self._config = resolve_config(config, client, options)
        self._client = client
        self._settings = session_settings
        self._coordinator: RecoveryCoordinator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def session(
        self,
        session_id: str | None = None,
        *,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
    ) -> RedisHASession:
        """Return a session over this store's connections; None as id means a new conversation."""
        settings = self._settings if session_settings is None else session_settings
        return RedisHASession(self._config, session_id, self._source, session_settings=sdk_settings(settings))

    async def delete(self, session_id: str) -> bool:
        """Remove a session, once; return whether it had any items.

        Raises:
            OperationError: It failed; ``outcome`` says whether the session may be gone all the same.
        """
        return await self.session(session_id).clear()

    async def health(self, timeout_seconds: float = 1.0) -> Health:
        """Return whether writes can be taken now: a demoted primary is not healthy, however well it answers.

        Args:
            timeout_seconds: After this, a node that has not answered counts as not answering.

        Raises:
            ClosedError: The store was closed. What is wrong with the servers is in the result instead.
        """
        return await check_health(self._source().executor.locator, timeout_seconds)

    async def close(self) -> None:
        """Close the connections; later operations of the store and its sessions raise `ClosedError`."""
        self._closed = True
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.aclose()

    async def __aenter__(self) -> SessionStore:
        """Return the store."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        await self.close()

    def _source(self) -> RecoveryCoordinator:
        if self._closed:
            raise ClosedError("the session store was closed")
        loop = asyncio.get_running_loop()
        if self._coordinator is None:
            self._coordinator, self._loop = owned_coordinator(self._config, self._client), loop
        elif self._loop is not loop:
            raise ClosedError("this session store belongs to another event loop: make one for each loop")
        return self._coordinator
