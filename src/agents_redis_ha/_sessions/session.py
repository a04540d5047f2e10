"""`RedisHASession`: the SDK's Session protocol over the commands. It knows no topology."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any

from agents.items import TResponseInputItem
from agents.memory import SessionSettings

from .. import _ambient as ambient
from .. import _commands as commands
from .._commands import LogPosition, Reading, Status
from .._config import HAConfig
from .._recovery import CoordinatorSource, SessionOperations
from .._storage import decode_item, decode_joined, encode_items
from .._telemetry import note_corrupt
from ..errors import ConflictError, OperationError
from .compaction import CompactionSnapshot, make_snapshot
from .info import SessionInfo, expected_position, session_info

__all__ = ["RedisHASession"]

_CHANGED_MEANWHILE: Any = {}  # in the place of an item, told by its identity


class RedisHASession:
    """One conversation in Redis; implements the SDK's ``Session`` protocol.

    Made by `ha_session` or `SessionStore.session`. Usable from any event loop and after a fork. A change that was begun
    is seen through when its caller is cancelled, as the SDK's own sessions do; the cancellation is raised then.

    Attributes:
        session_id: The conversation's id.
        session_settings: The SDK's settings; ``limit`` is the default of `get_items`.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        config: HAConfig,
        session_id: str | None,
        source: CoordinatorSource,
        *,
        session_settings: SessionSettings | None = None,
    ) -> None:
        """Make a session without I/O; see `ha_session`."""
        self.session_id = uuid.UUID(bytes=ambient.random_bytes(16), version=4).hex if session_id is None else session_id
        self.session_settings = session_settings or SessionSettings()
        self._operations = SessionOperations(
            config, self.session_id, source, is_of_subclass=type(self) is not RedisHASession
        )
        self._popped: LogPosition | None = None  # of the last pop whose result has arrived

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the conversation, oldest item first.

        Elements that are no items are skipped, counted (``agents_redis_ha.corrupt_items``) and left where they are.

        Args:
            limit: The newest so many items; None means ``session_settings.limit``, or all. 0 or less means none.

        Raises:
            OperationError: The history could not be read.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit <= 0:
            self._operations.check_open()
            return []
        window = limit or 0
        while True:
            reading, items = await self._read(window)
            valid = [item for item in items if item is not None]
            # Corrupt elements among the newest do not count against the limit: look further back for them.
            if limit is None or len(valid) >= limit or reading.count >= reading.length:
                note_corrupt(self._operations.topology, len(items) - len(valid))
                return valid[-limit:] if limit else valid
            window *= 2

    async def add_items(self, items: list[TResponseInputItem], *, expected_version: int | str | None = None) -> None:
        """Add items to the end of the conversation: all of them, once, or none.

        Args:
            items: JSON objects.
            expected_version: Add them only if the conversation still has this version (`info`, or the ``token`` of
                that version): with items, each change adds 1 to it. None means in any case.

        Raises:
            ConfigurationError: `expected_version` is no version; nothing was sent.
            InvalidItemError: An item is not JSON; nothing was sent.
            ConflictError: The conversation has another version; nothing was added.
            OperationError: It failed; ``outcome`` says whether the items may be stored all the same.
        """
        self._operations.check_open()
        elements, expected = encode_items(items), expected_position(expected_version)
        if not elements:
            return
        change = await self._operations.execute(commands.append(self._operations.spec, elements, expected=expected))
        if change.status is Status.CONFLICT and expected is not None:
            raise ConflictError(expected.version, change.version)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it, or None if there is none. It is handed out once.

        Elements that are no items are left where they are.

        Raises:
            OperationError: It failed; ``outcome`` says whether the item may have been removed all the same.
        """
        while True:
            popped = await self._operations.execute(commands.pop(self._operations.spec, acknowledged=self._popped))
            if popped.status is Status.UNCHANGED:
                return None
            if popped.status is Status.UNSURE:
                item = await self._pop_newest_item()
                if item is not _CHANGED_MEANWHILE:
                    return item
                continue
            self._popped = popped.position
            item = decode_item(popped.result or b"")
            if item is not None:
                return item
            # Lua took for JSON what Python does not (such as a hexadecimal number): it is gone, look for the next one.
            note_corrupt(self._operations.topology, 1)

    async def clear_session(self) -> None:
        """Remove all items, once: items added by others meanwhile are not removed by a repeat.

        Raises:
            OperationError: It failed; ``outcome`` says whether the items may have been removed all the same.
        """
        await self.clear()

    async def clear(self) -> bool:
        """Remove all items like `clear_session`; return whether there were any."""
        change = await self._operations.execute(commands.clear(self._operations.spec))
        return int(change.result or 0) > 0

    async def info(self) -> SessionInfo:
        """Return what Redis keeps about the session besides its items.

        Raises:
            OperationError: It could not be read.
        """
        return session_info(self.session_id, await self._operations.execute(commands.info(self._operations.spec)))

    async def ping(self) -> bool:
        """Return whether the node that holds this session answers as a primary now."""
        try:
            await self.info()
        except OperationError:
            return False
        return True

    async def close(self) -> None:
        """Close the session: later calls raise `ClosedError`. Shared connections stay open for the other sessions."""
        self._operations.closed = True

    async def __aenter__(self) -> RedisHASession:
        """Return the session."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    # The SDK's OpenAIResponsesCompactionSession (openai-agents 0.24) looks for the two methods below by their names.

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace the whole history in one step; False for a subclass, whose own methods must not be bypassed."""
        if type(self) is not RedisHASession:
            return False
        await self._operations.execute(commands.replace(self._operations.spec, encode_items(items)))
        return True

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> CompactionSnapshot | None:
        """Return the newest ``limit`` items and a way to replace a suffix of them, unless they change in between."""
        if type(self) is not RedisHASession:
            return None
        return await make_snapshot(self._read, self._replace_range, limit, prune_prefix)

    async def _replace_range(
        self, items: list[TResponseInputItem], expected: LogPosition, keep: tuple[int, int]
    ) -> bool:
        command = commands.replace(self._operations.spec, encode_items(items), expected=expected, keep=keep)
        change = await self._operations.execute(command)
        return change.status is not Status.CONFLICT

    async def _pop_newest_item(self) -> TResponseInputItem | None:
        """Find the newest element that is an item, which the script did not judge, and remove just that one."""
        window = 1  # it may be a large one
        while True:
            reading, items = await self._read(window)
            newest = next((i for i in range(1, len(items) + 1) if items[-i] is not None), None)
            if newest is not None:
                note_corrupt(self._operations.topology, newest - 1)
                command = commands.pop(self._operations.spec, (-newest, reading.session), acknowledged=self._popped)
                popped = await self._operations.execute(command)
                return _CHANGED_MEANWHILE if popped.status is Status.CONFLICT else items[-newest]
            if reading.count >= reading.length:
                note_corrupt(self._operations.topology, len(items))
                return None
            window *= 4

    async def _read(self, newest: int) -> tuple[Reading, list[TResponseInputItem | None]]:
        reading = await self._operations.execute(commands.read(self._operations.spec, newest))
        return reading, decode_joined(reading.joined, reading.count, reading.separator)
