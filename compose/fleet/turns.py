"""One turn of a conversation, answered once however often it is asked for.

A request names the position of its turn: how many items of the conversation its sender has seen. What stands there
tells what to do:

| At the position stands | The turn is | What happens |
|---|---|---|
| nothing | new | run the agent on the message |
| the message, without an answer | interrupted | run the agent on the history, without new input |
| the message and its answer | answered | give that answer, run nothing |
| something else | another's | refuse: the sender has to read first |

A run adds something only if no other writer has changed the conversation since the run looked at it. So the request may
be sent again after any failure, also while a replica that was cut off still works on the first one. One of them wins.
The other (`ConflictError`) is told to come again, and finds the answer.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from agents import TResponseInputItem
from agents.memory import SessionABC, SessionSettings

from agents_redis_ha import RedisHASession

__all__ = ["PositionError", "Turn"]


class PositionError(Exception):
    """Another message, or none, stands where the sender believes its turn to be."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position
        """Where the conversation ends."""

    def __str__(self) -> str:
        return f"the turn is not at this position; the conversation ends at {self.position}"


class Turn(SessionABC):
    """A turn, and the session that its run is given.

    Attributes:
        new_input: What the run has to be given besides the history: the message, or nothing if it is stored.
    """

    def __init__(
        self, session: RedisHASession, version: int, items: list[TResponseInputItem], position: int, message: str
    ) -> None:
        """Take what was read; see `begin`."""
        self.session_id = session.session_id
        self.session_settings: SessionSettings | None = None
        self._session, self._version = session, version
        self._items, self._begin = items, position
        self._held: list[TResponseInputItem] = []
        self.new_input: list[TResponseInputItem] = [] if self._said else [{"role": "user", "content": message}]

    @classmethod
    async def begin(cls, session: RedisHASession, position: int, message: str) -> Turn:
        """Look at what is stored of a turn.

        Args:
            session: The conversation.
            position: Number of items that the sender of the message has seen.
            message: What the user says.

        Raises:
            PositionError: The turn is not at this position.
            OperationError: The conversation could not be read.
        """
        version = (await session.info()).version  # before the items: what comes between makes the first change fail
        turn = cls(session, version, await session.get_items(), position, message)
        if position > len(turn._items) or (turn._said and _user_text(turn._said[0]) != message):
            raise PositionError(len(turn._items))
        return turn

    @property
    def _said(self) -> list[TResponseInputItem]:
        """What is stored of this turn: its message and what follows up to the next one."""
        first, rest = self._items[self._begin : self._begin + 1], self._items[self._begin + 1 :]
        return first + list(takewhile(lambda item: _user_text(item) is None, rest))

    @property
    def answer(self) -> str | None:
        """The answer, None as long as it is not stored."""
        return _assistant_text(self._said[-1]) if self._said else None

    @property
    def position(self) -> int:
        """Where the next turn begins."""
        return self._begin + len(self._said)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the conversation as it was when the turn began, and what the run has added."""
        items = [*self._items, *self._held]
        return items if limit is None else items[-limit:] if limit > 0 else []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items; function calls wait for their outputs, without which they are of no use to the next run.

        Raises:
            ConflictError: Another writer changed the conversation; nothing was added.
            OperationError: As `RedisHASession.add_items`.
        """
        self._held += items
        if _open_calls(self._held):
            return
        await self._session.add_items(self._held, expected_version=self._version)
        self._version += 1
        self._items, self._held = [*self._items, *self._held], []

    async def pop_item(self) -> TResponseInputItem | None:
        """Take back the newest item that is not stored yet."""
        return self._held.pop() if self._held else None

    async def clear_session(self) -> None:
        """Refuse: a run only adds."""
        raise NotImplementedError("a turn only adds to its conversation")


def _open_calls(items: list[TResponseInputItem]) -> set[Any]:
    """Return the ids of the function calls that have no output among the items."""
    ids: dict[Any, set[Any]] = {"function_call": set(), "function_call_output": set()}
    for item in items:
        ids.get(item.get("type"), set()).add(item.get("call_id"))
    return ids["function_call"] - ids["function_call_output"]


def _user_text(item: TResponseInputItem) -> str | None:
    return str(item.get("content")) if item.get("role") == "user" else None


def _assistant_text(item: TResponseInputItem) -> str | None:
    if item.get("role") != "assistant":
        return None
    parts: Any = item.get("content")
    return parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)
