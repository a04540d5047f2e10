"""Calls one session and records every call: what was asked before it begins, what came back when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from agents.items import TResponseInputItem

from agents_redis_ha import AgentsRedisError, HistoryLostError, OperationError, Outcome, RedisHASession
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, find_mark
from tests.failover.campaign.record import Recorder

_MESSAGE_LENGTH = 300
_WHOLE = 1_000_000  # items; more than any session of the campaign has
_BY_OUTCOME = {
    Outcome.APPLIED: Status.UNCONFIRMED,
    Outcome.NOT_APPLIED: Status.NOT_APPLIED,
    Outcome.UNKNOWN: Status.UNKNOWN,
}

Items = Sequence[dict[str, Any]]


class Caller:
    """One session object and its record.

    Args:
        session: The session.
        name: Its name in the record.
        worker: The process.
        recorder: Takes the calls.
    """

    def __init__(self, session: RedisHASession, name: str, worker: str, recorder: Recorder) -> None:
        self.name = name
        self._session = session
        self._handle = f"{worker}/{name}"
        self._recorder = recorder

    @property
    def session(self) -> RedisHASession:
        """The session."""
        return self._session

    def begin_turn(self, batch: Sequence[Mark]) -> Call:
        """Note that a turn is asked for, whose call goes on through all its deliveries."""
        return self._recorder.begin(self.name, self._handle, Op.APPEND, items=batch)

    async def append(self, batch: Sequence[Mark], items: Items) -> Call:
        """Add a batch."""
        return await self._record(Op.APPEND, batch, lambda: self._session.add_items(_as_input(items)))

    async def replace(self, batch: Sequence[Mark], items: Items) -> Call:
        """Put a batch in the place of the whole history, in one step, as the SDK's compaction does."""

        async def replaced() -> bool:
            return await self._session._atomic_replace_items(_as_input(items))

        return await self._record(Op.REPLACE, batch, replaced)

    async def compact(self, batch: Sequence[Mark], items: Items) -> Call:
        """Do the same if nobody wrote meanwhile."""

        async def compacted() -> bool:
            snapshot = await self._session._get_compaction_snapshot(_WHOLE)
            return snapshot is not None and await snapshot.replace_suffix(0, _as_input(items))

        return await self._record(Op.REPLACE, batch, compacted)

    async def pop(self) -> Call:
        """Take the newest item."""
        return await self._record(Op.POP, (), self._session.pop_item)

    async def clear(self) -> Call:
        """Remove all items."""
        return await self._record(Op.CLEAR, (), self._session.clear_session)

    async def read(self, limit: int | None = None) -> Call:
        """Read the newest items, or all."""
        return await self._record(Op.READ, (), lambda: self._session.get_items(limit), limit)

    async def _record(self, op: Op, batch: Sequence[Mark], work: Any, limit: int | None = None) -> Call:
        call = self._recorder.begin(self.name, self._handle, op, items=batch, limit=limit)
        try:
            answer = await work()
        except Exception as error:  # noqa: BLE001 (the record holds it, and the checker judges it)
            return self._recorder.end(call, **outcome_of(error))
        if answer is False:  # a replacement that found another version: nothing was changed
            return self._recorder.end(call, Status.NOT_APPLIED)
        items = answer if isinstance(answer, list) else [] if op is not Op.POP or answer is None else [answer]
        return self._recorder.end(call, Status.OK, result=tuple(find_mark(item, self.name) for item in items))


def outcome_of(error: Exception) -> dict[str, Any]:
    """Return what an error says became of the call, in the record's terms."""
    described = {"error": f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH]}
    if isinstance(error, HistoryLostError):
        is_open = error.outcome is not Outcome.NOT_APPLIED
        return {
            **described,
            "status": Status.HISTORY_LOST,
            "lost_versions": len(error.versions),
            "is_open": is_open,
        }
    if isinstance(error, OperationError):
        return {**described, "status": _BY_OUTCOME[error.outcome]}
    if isinstance(error, AgentsRedisError):
        return {**described, "status": Status.NOT_APPLIED}
    return {**described, "status": Status.UNKNOWN, "foreign_error": True}


def _as_input(items: Items) -> list[TResponseInputItem]:
    # The SDK's type is a union of typed dicts; these are recorded ones with a mark added.
    return cast("list[TResponseInputItem]", list(items))
