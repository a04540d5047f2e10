"""The session that a run sees in a turn: the history as it was granted, and behind it the draft."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from agents.items import ItemHelpers, TResponseInputItem
from agents.memory import Session, SessionSettings

from .._commands import Reading
from .._storage import decode_item, decode_joined, encode_items
from .._telemetry import note_corrupt
from ..errors import ClosedError
from .grant import TurnGrant

__all__ = ["RunSession", "StagedSession"]

_CLOSES_ROUND: ContextVar[bool] = ContextVar("agents_redis_ha_closes_round", default=False)


class StagedSession:
    """A session whose changes stay in a draft until the turn is published.

    Attributes:
        session_id: The conversation's id.
        session_settings: The SDK's settings of the session that the turn is of.
        draft: The elements to put behind those that the session has.
        closed: Whether the turn's block was left: what comes later could not be stored any more.
        shows_draft: Whether no limit cuts the draft: from when a run begins behind it until the run changes it.
    """

    def __init__(
        self,
        session_id: str,
        settings: SessionSettings | None,
        grant: TurnGrant,
        reading: Reading,
        resumed: list[bytes],
        *,
        saves: bool,
    ) -> None:
        """Take what was read as the turn was granted the session.

        Args:
            session_id: The conversation's id.
            settings: The SDK's settings.
            grant: The turn's.
            reading: The newest elements of the session.
            resumed: The draft of an attempt before this one.
            saves: Whether rounds whose tools have run are saved.
        """
        self.session_id, self.session_settings = session_id, settings
        self.draft = list(resumed)
        self.closed = False
        self._grant, self._saves = grant, saves
        self.shows_draft = True  # what is resumed
        self._take(reading)

    @property
    def keep(self) -> int | None:
        """How many of the session's elements stay; None means all."""
        kept = self._offset + len(self._before)
        return None if kept == self._length else kept

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the newest items of the conversation, the draft's behind those that are published."""
        self._check_open()
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        staged = [item for element in self.draft if (item := decode_item(element)) is not None]
        wanted = None if limit is None else max(limit, len(staged) if self.shows_draft else 0)
        if wanted == 0:
            return []
        while True:
            before = [item for item in self._before if item is not None]
            items = before + staged
            if not self._offset or (wanted is not None and len(items) >= wanted):
                note_corrupt(self._grant.topology, len(self._before) - len(before))
                return items if wanted is None else items[-wanted:]
            await self._read_all()

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Put items into the draft; save it when the tools of a round have run.

        Raises:
            InvalidItemError: An item is not JSON; the draft is unchanged.
            TurnLostError: The turn is lost.
            OperationError: The draft could not be saved; it is still in the process.
        """
        self._check_open()
        self.draft += encode_items(items)
        self.shows_draft = False
        if self._saves and self.keep is None and _CLOSES_ROUND.get():
            await self._grant.save(self.draft)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item, in the draft or before it, and return it."""
        self._check_open()
        self.shows_draft = False
        for at in reversed(range(len(self.draft))):
            item = decode_item(self.draft[at])
            if item is not None:
                self._grant.forget_saved()
                del self.draft[at]
                return item
        while not any(self._before) and self._offset:
            await self._read_all()
        newest = next((at for at in reversed(range(len(self._before))) if self._before[at] is not None), None)
        note_corrupt(self._grant.topology, len(self._before) - (0 if newest is None else newest + 1))
        if newest is None:
            return None
        self.draft = self._elements[newest + 1 : len(self._before)] + self.draft  # what is no item stays
        popped = self._before[newest]
        del self._before[newest:]
        return popped

    async def clear_session(self) -> None:
        """Remove all items."""
        self._check_open()
        self.shows_draft = False
        self._offset, self.draft = 0, []
        self._before.clear()
        self._grant.forget_saved()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("the turn's block was left: what is added now could not be stored any more")

    def _take(self, reading: Reading) -> None:
        self._length = reading.length
        self._elements = reading.joined.split(reading.separator) if reading.count else []
        self._before: list[TResponseInputItem | None] = decode_joined(reading.joined, reading.count, reading.separator)
        self._offset = reading.length - reading.count

    async def _read_all(self) -> None:
        kept = self._offset + len(self._before)
        self._take(await self._grant.read(0))
        del self._before[kept:]


class RunSession:
    """What a run is given: it knows when the tools of a round have run, also where items are stored encrypted.

    Attributes:
        session_id: The conversation's id.
        session_settings: The SDK's settings.
        has_message: Whether the turn's message was put into the draft, and is there still.
    """

    def __init__(self, wrapped: Session, message: str | list[TResponseInputItem] | None) -> None:
        """Wrap the staged session, or the SDK's wrapper around it."""
        self._wrapped = wrapped
        self._message = ItemHelpers.input_to_new_input_list(message or [])
        self.has_message = False
        self.session_id = wrapped.session_id
        self.session_settings = getattr(wrapped, "session_settings", None)
        self._open: set[str] = set()  # calls without an output
        self._has_output = False

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the newest items of the conversation, the draft's behind those that are published."""
        return await self._wrapped.get_items(limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Put items into the draft."""
        self._note(items)
        closes = self._has_output and not self._open
        token = _CLOSES_ROUND.set(closes)
        try:
            await self._wrapped.add_items(items)
        finally:
            _CLOSES_ROUND.reset(token)
        if closes:
            self._has_output = False

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it."""
        item = await self._wrapped.pop_item()
        if item is not None:
            self.has_message &= item not in self._message
            kind, call_id = _kind_of(item)
            if kind == "call":
                self._open.discard(call_id)
            elif kind == "output":
                self._open.add(call_id)
        return item

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._wrapped.clear_session()
        self._open.clear()
        self.has_message = False

    def __getattr__(self, name: str) -> Any:
        # Compaction is the wrapper's, and is asked for by its names; items go through the methods above alone.
        if "compaction" not in name:
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def _note(self, items: list[TResponseInputItem]) -> None:
        count = len(self._message)
        self.has_message |= count > 0 and items[:count] == self._message
        for item in items:
            kind, call_id = _kind_of(item)
            if kind == "call":
                self._open.add(call_id)
            elif kind == "output":
                self._open.discard(call_id)
                self._has_output = True


def _kind_of(item: Any) -> tuple[str, str]:
    """Return whether an item is the call of a tool that runs here, or its output, and which call it is."""
    kind, call_id = (item.get("type"), item.get("call_id")) if isinstance(item, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(call_id, str):
        return "", ""
    if kind.endswith("_output"):
        return "output", call_id
    return ("call", call_id) if kind.endswith("_call") else ("", "")
