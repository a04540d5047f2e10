"""A turn as a job: delivered until it is answered, by one process or several. The simulation uses it, too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agents_redis_ha import (
    HistoryLostError,
    OperationError,
    Outcome,
    OutcomeLostError,
    RedisHASession,
    Turn,
    TurnCancelledError,
    TurnLostError,
    ha_turn,
)
from tests.failover.campaign.caller import outcome_of
from tests.failover.campaign.history import Attempt, Call, Ending, Op, Status, ToolRun
from tests.failover.campaign.marks import Mark, find_mark, put_mark

_DELIVERED_FOR_SECONDS = 30.0
_AGAIN_SECONDS = 0.2


class TurnRecord(Protocol):
    """Takes what turns do."""

    def begin(self, session: str, handle: str, op: Op, *, items: Sequence[Mark] = ()) -> Call:
        """Note that a call begins now."""

    def end(self, call: Call, status: Status, **outcome: Any) -> Call:
        """Note that it has ended: of a turn, that its deliveries have."""

    def note_tool(self, tool: ToolRun) -> None:
        """Note that a tool has run."""

    def note_attempt(self, attempt: Attempt) -> None:
        """Note how a delivery ended."""

    def note_front(self, session: str, first: Mark, front: Mark | None) -> None:
        """Note which item a turn has read in front of its own."""

    def note_loss(self, session: str, error: HistoryLostError) -> None:
        """Note which changes of a session a delivery was told to be gone."""


def rounds_of(batch: Sequence[Mark], session: str, answer: str) -> list[list[dict[str, Any]]]:
    """Return what a run adds, one list a call of `add_items`: the message, a call with its output each, the answer."""
    items = [_item(mark, session, answer) for mark in batch]
    return [items[:1], *(items[at : at + 2] for at in range(1, len(items) - 1, 2)), items[-1:]]


def _item(mark: Mark, session: str, answer: str) -> dict[str, Any]:
    if mark.place == 0:
        item: dict[str, Any] = {"role": "user", "content": str(mark)}
    elif mark.place == mark.size - 1:
        item = {"role": "assistant", "content": answer}
    else:
        number, is_output = divmod(mark.place - 1, 2)
        item = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": f"{mark.batch}:{number}"}
        if is_output:
            item = {"type": "function_call_output", "output": str(mark), "call_id": item["call_id"]}
    return put_mark(item, mark, session)


class TurnCaller:
    """Runs one turn, and delivers it again until it is answered."""

    def __init__(
        self,
        session: RedisHASession,
        call: Call,
        options: Mapping[str, Any],
        record: TurnRecord,
        think_seconds: float = 0.0,
    ) -> None:
        """Make it of the record of the call, which goes on through the deliveries.

        Args:
            session: The session.
            call: What is recorded of the turn.
            options: Of `ha_turn`.
            record: Takes what happens.
            think_seconds: How long each step takes.
        """
        self._session, self._call, self._options, self._record = session, call, options, record
        self._think_seconds = think_seconds
        self._name = ":".join(map(str, call.items[0].batch))
        self._is_open = False
        self._number, self._began = 0, 0.0

    async def deliver(self) -> Call:
        """Deliver the turn until it is answered, or cannot be."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _DELIVERED_FOR_SECONDS
        while loop.time() < until:
            self._number += 1
            self._began = loop.time()
            answer = f"{self._name} {self._call.handle}.{self._call.number}.{self._number}"
            try:
                result = await self._attempt(answer)
            except OutcomeLostError as error:  # answered, and the answer is lost
                self._note(answer, "answered")
                return self._record.end(self._call, Status.OK, error=f"{error}"[:100])
            except OperationError as error:
                self._note_error(answer, error)
            except TurnCancelledError:
                self._note(answer, "cancelled")
                break
            else:
                self._note(answer, "answered", result)
                return self._record.end(self._call, Status.OK)
            await asyncio.sleep(_AGAIN_SECONDS)
        return self._record.end(self._call, Status.UNKNOWN if self._is_open else Status.NOT_APPLIED)

    def _note_error(self, answer: str, error: OperationError) -> None:
        may_be_stored = error.outcome is not Outcome.NOT_APPLIED and error.operation == "turn_finish"
        self._is_open |= may_be_stored
        self._note(answer, "lost" if isinstance(error, TurnLostError) else "open" if may_be_stored else "failed")
        if isinstance(error, HistoryLostError):
            call = self._call
            self._record.note_loss(call.session, error)
            told = self._record.begin(call.session, f"{call.handle}~", Op.READ)
            self._record.end(told, **outcome_of(error))

    def _note(self, answer: str, ending: Ending, result: str | None = None) -> None:
        call = self._call
        seconds = asyncio.get_running_loop().time() - self._began
        attempt = Attempt(
            session=call.session,
            batch=call.items[0].batch,
            answer=answer,
            ending=ending,
            result=result,
            within_lease=seconds < self._options["lease_seconds"],
        )
        self._record.note_attempt(attempt)

    async def _attempt(self, answer: str) -> str:
        async with ha_turn(self._session, self._name, self._name, **self._options) as turn:
            if not turn.is_answered:
                await self._run(turn, answer)
                turn.answer(answer)
        result: str = turn.result
        return result

    async def _run(self, turn: Turn, answer: str) -> None:
        session, own = self._call.session, self._call.items[0].batch
        marks = [find_mark(item, session) for item in await turn.session.get_items()]
        there = sum(mark is not None and mark.batch == own for mark in marks)
        before = marks[: len(marks) - there]
        # Nothing comes between what a turn has read and what it publishes.
        self._record.note_front(session, self._call.items[0], before[-1] if before else None)
        for number, items in enumerate(rounds_of(self._call.items, session, answer)):
            if there > 0:
                there -= len(items)
                continue
            await asyncio.sleep(self._think_seconds)
            await self._add(turn, number, items)

    async def _add(self, turn: Turn, number: int, items: list[dict[str, Any]]) -> None:
        loop, how = asyncio.get_running_loop(), self._options
        began = loop.time()
        await turn.session.add_items(items)  # type: ignore[arg-type]
        if len(items) > 1:
            run = ToolRun(
                session=self._call.session,
                batch=self._call.items[0].batch,
                round=number,
                attempt=turn.attempt,
                began=began,
                saved=loop.time() if how["save"] == "steps" else None,
                resumes=(how["if_unanswered"], how["on_error"]) == ("resume", "keep"),
            )
            self._record.note_tool(run)
