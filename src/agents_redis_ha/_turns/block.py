"""The block in which a turn runs: begun, published, left."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, TypeAlias

from agents import Agent, RunState
from agents.items import TResponseInputItem

from .._asyncio import Interruption, run_shielded
from .._commands import Reading, TurnReply, TurnSpec, TurnStatus, new_operation_id
from .._recovery import OWN_TURNS
from .._telemetry import TurnEnd, TurnSpan
from ..errors import (
    AgentsRedisError,
    ConfigurationError,
    OperationError,
    Outcome,
    TurnBusyError,
    TurnCancelledError,
    TurnLostError,
    TurnMismatchError,
    TurnNotFoundError,
)
from .grant import TurnGrant, ask_for_session
from .staging import StagedSession
from .turn import Turn
from .wrapping import Host

__all__ = ["OnError", "TurnBlock", "TurnOptions"]

OnError: TypeAlias = "Literal['keep', 'rollback'] | Callable[[BaseException], Literal['keep', 'rollback']]"

_log = logging.getLogger("agents_redis_ha")

_REFUSED: dict[TurnStatus, tuple[type[AgentsRedisError], str]] = {
    TurnStatus.OTHER_MESSAGE: (TurnMismatchError, "there is a turn of this id with another message"),
    TurnStatus.CANCELLED: (TurnCancelledError, "the turn was cancelled by another one (if_busy), for good"),
    TurnStatus.UNKNOWN: (TurnNotFoundError, "no turn of this id waits to be claimed"),
}

_NOT_BEGUN: dict[type[BaseException], TurnEnd] = {
    TurnCancelledError: "cancelled",
    TurnMismatchError: "refused",
    TurnNotFoundError: "refused",
    TurnBusyError: "refused",
    asyncio.CancelledError: "withdrawn",
}


@dataclass(frozen=True)
class TurnOptions:
    """How a turn is run; see `ha_turn`.

    Attributes:
        wait_seconds: How long to wait for the session.
        if_busy: What to do while another turn has it.
        if_unanswered: What to do about an attempt before this one.
        on_error: What becomes of the turn when its block raises.
        saves: Whether rounds whose tools have run are saved.
        agent: Of a turn that is claimed, the agent of its run.
    """

    wait_seconds: float
    if_busy: str
    if_unanswered: str = "resume"
    on_error: OnError = "keep"
    saves: bool = False
    agent: Agent[Any] | None = None


class TurnBlock:
    """The block of one attempt: ``async with ha_turn(…) as turn``.

    Leaving it raises:
        TurnLostError: The session was given to another turn, or changed after the lease. Nothing is stored. The block
            is cancelled as soon as that is known.
        OperationError: The turn could not be published; `outcome` says whether it may be all the same. Begin it again
            under its id: that tells.
    """

    def __init__(
        self,
        host: Host,
        spec: TurnSpec,
        message: str | list[TResponseInputItem] | None,
        options: TurnOptions,
    ) -> None:
        """Make it without I/O; see `ha_turn`."""
        self._host, self._spec, self._message, self._options = host, spec, message, options
        self._begun = False
        self._turn: Turn | None = None
        self._grant: TurnGrant
        self._span: TurnSpan
        self._became: TurnEnd | None = None

    async def __aenter__(self) -> Turn:
        """Wait for the session and return the turn.

        Raises:
            TurnBusyError: Another one had the session for longer than was to be waited.
            TurnMismatchError: There is a turn of this id with another message.
            TurnCancelledError: The turn was cancelled by another one.
            TurnNotFoundError: No turn of this id waits to be claimed.
            OperationError: The session could not be asked for.
        """
        if self._begun:
            raise ConfigurationError("turn", "it was begun already: make one for each attempt")
        self._begun = True
        self._spec = replace(self._spec, token=new_operation_id())
        operations, claims = self._host.operations, self._options.agent is not None
        session = operations.spec
        self._span = TurnSpan(operations.topology, session.session_id, self._id, session.show_id, claims=claims)
        try:
            return await self._open()
        except BaseException as error:
            self._span.finish(self._became or _NOT_BEGUN.get(type(error), "failed"), error)
            raise

    @property
    def _id(self) -> str:
        return self._spec.id.decode("utf-8", "surrogatepass")

    async def _open(self) -> Turn:
        options = self._options
        settings = self._host.session.session_settings
        limit = settings.limit if settings else None
        reply = await ask_for_session(
            self._host.operations,
            self._spec,
            self._span,
            wait_seconds=options.wait_seconds,
            if_busy=options.if_busy,
            if_unanswered=options.if_unanswered,
            newest=max(limit or 0, 0),
            claims=options.agent is not None,
        )
        if reply.status in _REFUSED:
            kind, reason = _REFUSED[reply.status]
            raise kind(f"{reason}: nothing was run")
        if reply.reading is None:
            self._span.told(reply.attempt)
            self._became = "suspended" if reply.status is TurnStatus.SUSPENDED else "repeated"
            return Turn(self._id, self._message, self._host, reply)
        granted = self._begin(reply, reply.reading)
        try:
            turn = self._turn = Turn(self._id, self._message, self._host, reply, granted)
            if options.agent is not None:
                turn.state = await RunState.from_json(options.agent, self._host.decode(reply.payload))
        except BaseException as error:
            await self._end(error, None)
            raise
        return turn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish the turn, or leave it unanswered."""
        try:
            if self._turn is not None:
                await self._end(error, self._turn)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._span.finish(self._became or "failed", error)

    async def _end(self, error: BaseException | None, turn: Turn | None) -> None:
        grant, staged = self._grant, self._staged
        staged.closed = True
        self._renewal.cancel()
        with contextlib.suppress(ValueError):  # left in another context
            OWN_TURNS.reset(self._own)
        result = turn.stored_result if turn else None
        if turn:
            turn.stored_result = None
        if grant.is_lost:
            self._became = "lost"
            is_ours = self._interruption.take_back() or not isinstance(error, asyncio.CancelledError)
            if is_ours and not isinstance(error, TurnLostError):
                raise grant.lost_error("turn") from error
        elif error is None and turn is not None and result is not None:
            await self._publish(turn, result)
        elif turn is not None and turn.is_suspended:
            self._became = "suspended"
        else:
            forgets = self._forgets(error)
            self._became = "rolled_back" if forgets else "kept"
            await grant.leave(forget=forgets)

    async def _publish(self, turn: Turn, result: bytes) -> None:
        staged = self._staged
        # In a task of its own (20 µs): also where this one is cancelled, what became of the turn is known at its end.
        publishing = asyncio.ensure_future(self._grant.finish(staged.draft, keep=staged.keep, payload=result))
        try:
            await asyncio.wait((publishing,))
        except asyncio.CancelledError:
            await run_shielded(asyncio.wait((publishing,)))
            with contextlib.suppress(Exception, asyncio.CancelledError):  # the caller's cancellation goes on
                await self._end_publication(publishing, turn, result, (Outcome.NOT_APPLIED, Outcome.UNKNOWN))
            raise
        await self._end_publication(publishing, turn, result, (Outcome.NOT_APPLIED,))

    async def _end_publication(
        self, publishing: asyncio.Future[None], turn: Turn, result: bytes, gives_back: tuple[Outcome, ...]
    ) -> None:
        """Note what became of a publication; give the session back where it failed with one of these outcomes."""
        try:
            publishing.result()
        except OperationError as error:
            if self._grant.is_lost:
                self._became = "lost"
            elif error.outcome in gives_back:
                await self._grant.leave(forget=False)
            raise
        turn.stored_result, self._became = result, "computed"

    def _begin(self, reply: TurnReply, reading: Reading) -> tuple[TurnGrant, StagedSession]:
        """Take what was granted."""
        self._span.granted(reply.attempt, resumed=bool(reply.pieces), taken_from=reply.taken_from)
        grant = TurnGrant(self._host.operations, self._spec, reply, self._span)
        resumed = [element for piece in reply.pieces for element in piece.split(b"\n") if element]
        grant.has_saved(len(reply.pieces), len(resumed))
        session = self._host.session
        settings = session.session_settings
        self._staged = StagedSession(session.session_id, settings, grant, reading, resumed, saves=self._options.saves)
        self._grant = grant
        self._own = OWN_TURNS.set(OWN_TURNS.get() | {self._spec.token})
        self._interruption = Interruption(asyncio.current_task())
        self._renewal = asyncio.ensure_future(grant.keep(self._cancel_block))
        return grant, self._staged

    def _cancel_block(self) -> None:
        """Cancel the block, unless it was left: then publishing tells that the turn is lost."""
        if not self._staged.closed:
            self._interruption.cancel_task()

    def _forgets(self, error: BaseException | None) -> bool:
        decision = "keep" if error is None else self._options.on_error
        if callable(decision) and error is not None:
            try:
                decision = decision(error)
                if inspect.iscoroutine(decision):  # of a function that does not show that it is one
                    decision.close()
                    raise TypeError("on_error returned a coroutine, which is not awaited")
            except Exception:  # noqa: BLE001 (it must not hide the block's error)
                _log.exception("on_error of a turn failed; the turn is kept")
                decision = "keep"
        return decision == "rollback"
