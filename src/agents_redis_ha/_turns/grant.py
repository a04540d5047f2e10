"""The session, as long as a turn has it: asked for, kept, lost, given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from .. import _ambient as ambient
from .._asyncio import retrieve_exception
from .._commands import (
    Command,
    Reading,
    Status,
    TurnReply,
    TurnSpec,
    TurnStatus,
    begin_turn,
    end_turn,
    finish_turn,
    read,
    save_turn,
)
from .._recovery import OWN_TURNS, SessionOperations
from .._telemetry import TurnSpan
from ..errors import OperationError, Outcome, TurnBusyError, TurnLostError

__all__ = ["TurnGrant", "ask_for_session"]

# Between two questions of a turn that waits, by its place in the queue: 50 that wait ask about 130 times a second. That
# takes 3 % of a core of the server, and the next turn begins 25 ms after the end of one. With 0.03 s it was 5 %.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
# So often is a lease renewed within it: two renewals may fail.
_RENEWALS = 3
_LOST_TO = {
    "attempt": "another attempt of it was granted the session",
    "turn": "another turn was granted the session",
    "cancelled": "another turn cancelled it (if_busy)",
    "released": "it was released (release_turn)",
    "change": "the session was changed after its lease, or was cleared, deleted or put back",
}
# Leaving a block with an error takes no longer than this.
_LEAVING_SECONDS = 1.0


async def _ask_for_session(
    operations: SessionOperations,
    turn: TurnSpec,
    span: TurnSpan,
    *,
    wait_seconds: float,
    if_busy: str,
    if_unanswered: str,
    newest: int,
    claims: bool = False,
) -> TurnReply:
    """Ask until the turn has the session, or there is nothing to run.

    A claim waits for other turns, and never for another claim.

    Raises:
        TurnBusyError: Another one has it, for longer than was to be waited.
        OperationError: It could not be asked.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_seconds
    command = begin_turn(turn, if_busy=if_busy, if_unanswered=if_unanswered, newest=newest, claims=claims)
    while True:
        reply = await operations.execute(command)
        if reply.status is not TurnStatus.HELD:
            return reply
        if reply.holder in OWN_TURNS.get():
            raise _busy(operations, "the session is held by the turn in whose block this one begins")
        pause = min(_PAUSE_SECONDS * max(reply.place, 1), _LONGEST_PAUSE_SECONDS) * ambient.uniform(0.5, 1)
        is_refused = claims if reply.is_same else if_busy == "reject"
        if is_refused or loop.time() + pause > until:
            what = "this very turn runs elsewhere" if reply.is_same else "another turn has the session, or waits for it"
            raise _busy(operations, what)
        span.waits(reply.place)
        await asyncio.sleep(pause)


async def ask_for_session(operations: SessionOperations, turn: TurnSpec, span: TurnSpan, **how: Any) -> TurnReply:
    """Ask until the turn has the session, or there is nothing to run; as `begin_turn` says.

    Raises:
        TurnBusyError: Another one has it, for longer than was to be waited.
        OperationError: It could not be asked; the session may be held for a lease.
    """
    try:
        return await _ask_for_session(operations, turn, span, **how)
    except BaseException:  # it may have been granted, or have a place in the queue
        await _leave(operations, end_turn(turn, None, state="unanswered"))
        raise


class TurnGrant:
    """A session that was granted to a turn.

    Attributes:
        is_lost: Whether it is known that the turn does not have the session any more.
        topology: The servers'.
    """

    def __init__(self, operations: SessionOperations, turn: TurnSpec, reply: TurnReply, span: TurnSpan) -> None:
        """Take what was granted.

        Args:
            operations: The session's.
            turn: The attempt to which it was granted.
            reply: What the server said of it.
            span: The attempt's.
        """
        self.is_lost = self._was_given_back = False
        self._operations, self._turn, self._position = operations, turn, reply.position
        self.topology = operations.topology
        self._attempt, self._saves, self._span = reply.attempt, reply.saves, span
        self._pieces = self._saved = 0
        self._lost_to = "change"

    def has_saved(self, pieces: int, elements: int) -> None:
        """Know that the server has the beginning of the draft."""
        self._pieces, self._saved = pieces, elements

    def forget_saved(self) -> None:
        """Let the next piece begin the draft anew: what was saved is not its beginning any more."""
        self._saves, self._pieces, self._saved = self._saves + 1, 0, 0

    async def keep(self, on_loss: Callable[[], None]) -> None:
        """Renew the lease until the turn is lost. A renewal that fails is tried again.

        Args:
            on_loss: Is called then.
        """
        while not self.is_lost and not self._was_given_back:
            await asyncio.sleep(self._turn.lease_ms / 1000 / _RENEWALS)
            try:
                await self._renew()
            except TurnLostError:
                on_loss()
            except OperationError:
                continue  # a turn whose lease is over goes on, unless another one takes the session

    async def save(self, draft: Sequence[bytes]) -> None:
        """Save what is new in the draft.

        Raises:
            TurnLostError: The turn is lost.
            OperationError: It failed; the draft is still in the process, and the next call saves it.
        """
        if len(draft) > self._saved:
            await self._send_new(draft, self._save)
            self._saved = len(draft)

    async def read(self, newest: int) -> Reading:
        """Read the session, as it was granted.

        Raises:
            TurnLostError: It is another one by now.
        """
        reading = await self._operations.execute(read(self._turn.session, newest))
        if reading.session.position != self._position:
            raise self._lost("read", "change")
        return reading

    async def finish(self, draft: Sequence[bytes], *, keep: int | None, payload: bytes) -> None:
        """Publish the turn.

        Raises:
            TurnLostError: The turn is lost; nothing of this attempt is stored.
            OperationError: It failed; `outcome` says whether the turn may be published all the same.
        """
        command = finish_turn(self._turn, self._position, self._attempt, draft, keep=keep, payload=payload)
        change = await self._operations.execute(command)
        if change.status is Status.CONFLICT or change.result != self._turn.token:
            raise self._lost(command.name, change.lost_to or "attempt")
        self._span.published(len(draft))

    async def leave(self, *, forget: bool) -> None:
        """Give the session back without an answer, in a second at most, whatever becomes of it."""
        state: Literal["unanswered", ""] = "" if forget else "unanswered"
        await _leave(self._operations, end_turn(self._turn, self._position, state=state))

    async def suspend(self, draft: Sequence[bytes], payload: bytes) -> None:
        """Give the session back, and keep the draft and a state for a claim.

        Raises:
            TurnLostError: The turn is lost.
            OperationError: It failed; the turn may be suspended all the same.
        """
        self._was_given_back = True  # from now on, a renewal that is under way may be refused
        try:
            await self._send_new(draft, lambda elements: self._suspend(elements, payload))
        except BaseException:
            self._was_given_back = False
            raise

    async def _renew(self) -> None:
        command = save_turn(self._turn, self._position, self._attempt)
        reply = await self._operations.execute(command, report_loss=False)
        if reply.status is TurnStatus.LOST and not self._was_given_back:
            raise self._lost("turn_save", reply.lost_to)

    async def _send_new(self, draft: Sequence[bytes], send: Callable[[Sequence[bytes]], Awaitable[TurnStatus]]) -> None:
        """Send what is new in the draft; all of it where the server has lost its beginning.

        A piece that was not answered may come late, and would take the place of a later one of its number. So the
        draft is begun anew then: the server takes no piece of the old one any more.
        """
        try:
            if await send(draft[self._saved :]) is TurnStatus.INCOMPLETE:
                self.forget_saved()
                await send(draft)
        except BaseException:
            self.forget_saved()
            raise

    async def _suspend(self, elements: Sequence[bytes], payload: bytes) -> TurnStatus:
        command = end_turn(
            self._turn,
            self._position,
            state="suspended",
            payload=payload,
            saves=self._saves,
            number=self._pieces + 1 if elements else 0,
            piece=b"\n".join(elements),
        )
        return await self._ask(command)

    async def _save(self, elements: Sequence[bytes]) -> TurnStatus:
        command = save_turn(
            self._turn,
            self._position,
            self._attempt,
            saves=self._saves,
            number=self._pieces + 1,
            piece=b"\n".join(elements),
        )
        status = await self._ask(command)
        self._pieces += status is TurnStatus.GRANTED
        return status

    async def _ask(self, command: Command[TurnReply]) -> TurnStatus:
        reply = await self._operations.execute(command)
        if reply.status is TurnStatus.LOST:
            raise self._lost(command.name, reply.lost_to)
        return reply.status

    def _lost(self, operation: str, to: str) -> TurnLostError:
        self.is_lost, self._lost_to = True, to
        self._span.lost(to)
        return self.lost_error(operation)

    def lost_error(self, operation: str) -> TurnLostError:
        """Return the error for a turn that is lost."""
        topology = self._operations.topology
        return TurnLostError(
            _LOST_TO[self._lost_to], operation=operation, topology=topology, outcome=Outcome.NOT_APPLIED
        )


async def _leave(operations: SessionOperations, command: Command[TurnReply]) -> None:
    ending = asyncio.ensure_future(operations.execute(command, report_loss=False))
    ending.add_done_callback(retrieve_exception)
    await asyncio.wait((ending,), timeout=_LEAVING_SECONDS)
    ending.cancel()


def _busy(operations: SessionOperations, reason: str) -> TurnBusyError:
    return TurnBusyError(reason, operation="turn_begin", topology=operations.topology, outcome=Outcome.NOT_APPLIED)
