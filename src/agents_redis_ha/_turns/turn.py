"""`ha_turn`: one message and its answer, stored once and whole however often it is delivered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, TypeAlias

from agents.items import TResponseInputItem
from agents.memory import Session

from .. import _ambient as ambient
from .._asyncio import Interruption
from .._commands import Reading, TurnReply, TurnSpec, TurnStatus, new_operation_id
from .._recovery import OWN_TURNS
from .._storage import encode_value
from ..errors import ConfigurationError, TurnCancelledError, TurnLostError, TurnMismatchError
from .grant import TurnGrant, ask_for_session
from .staging import RunSession, StagedSession
from .wrapping import Host, Wrap, find_host

__all__ = ["IfBusy", "IfUnanswered", "OnError", "Save", "Turn", "ha_turn"]

IfBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "rollback"]
IfUnanswered: TypeAlias = Literal["resume", "restart"]
Save: TypeAlias = Literal["steps", "end"]
OnError: TypeAlias = "Literal['keep', 'rollback'] | Callable[[BaseException], Literal['keep', 'rollback']]"

_LONGEST_ID_BYTES = 512
_log = logging.getLogger("agents_redis_ha")


class Turn:
    """One attempt to answer a message; see `ha_turn`.

    Attributes:
        id: The turn's id.
        attempt: Which attempt it is, counted from 1; of a turn that was answered before, the one that did it.
        is_resumed: Whether it goes on from what an attempt before it had saved.
        stored_result: What is kept of the result, as it is stored; None until the turn is answered.
    """

    def __init__(
        self,
        turn_id: str,
        message: str | list[TResponseInputItem] | None,
        host: Host,
        reply: TurnReply,
        session: RunSession | None = None,
    ) -> None:
        """Take what was granted, or found; see `ha_turn`."""
        self.id, self.attempt = turn_id, reply.attempt
        self.is_resumed = bool(reply.pieces)
        self.stored_result = reply.payload if reply.status is TurnStatus.ANSWERED else None
        self._message, self._host, self._session = message, host, session

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer: from an attempt before this one, or by `answer`."""
        return self.stored_result is not None

    @property
    def input(self) -> str | list[TResponseInputItem]:
        """What to give to the Runner: the message, or nothing where the resumed history has it already."""
        return [] if self.is_resumed or self._message is None else self._message

    @property
    def session(self) -> Session:
        """The session to give to the Runner.

        Raises:
            ConfigurationError: The turn was answered before: there is nothing to run.
        """
        if self._session is None:
            raise ConfigurationError("session", "the turn was answered before: there is nothing to run (is_answered)")
        return self._session

    @property
    def result(self) -> Any:
        """What the turn was answered with, as JSON keeps it: the same on the first call and on a repeat.

        Raises:
            OutcomeLostError: It is not known any more: cleared with the session, or lost by the servers.
            ConfigurationError: The turn is not answered.
        """
        if self.stored_result is None:
            raise ConfigurationError("result", "the turn is not answered: call turn.answer first")
        return self._host.decode_result(self.stored_result)

    def answer(self, result: Any = None) -> None:
        """Answer the turn. It is published when its block is left.

        Args:
            result: What a repeat gets: any JSON of 64 KiB at most; a pydantic model is kept as its fields.

        Raises:
            InvalidResultError: It is not that. The turn is not answered.
        """
        self.stored_result = self._host.encode_result(result)

    def idempotency_key(self, call_id: str) -> str:
        """Return a key for what a tool does outside: the same whenever the same call of this turn is made again.

        Args:
            call_id: The tool call's id, or any other name of what is done once a turn.
        """
        name = json.dumps([self._host.session.session_id, self.id, call_id])
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} attempt={self.attempt} is_answered={self.is_answered}>"


class ha_turn:  # noqa: N801 (used as a function, like asyncio.timeout)
    """Run one turn of a conversation: ``async with ha_turn(session, request_id, "Where is my order?") as turn``.

    While the block runs, no other turn and no other change gets between: what the run stores stays in a draft, and is
    published in one piece, with its result, when the block is left after `Turn.answer`. A turn that was answered before
    is not run again: `Turn.is_answered` is true at once, and `Turn.result` is what it was answered with.

    Leaving the block raises:
        TurnLostError: The session was given to another turn, or changed after the lease. Nothing is stored. The block
            is cancelled as soon as that is known.
        OperationError: The turn could not be published; `outcome` says whether it may be all the same. Begin it again
            under its id: that tells.
    """

    def __init__(
        self,
        session: object,
        turn_id: str | None,
        message: str | list[TResponseInputItem] | None = None,
        *,
        wait_seconds: float = 60.0,
        lease_seconds: float = 30.0,
        if_busy: IfBusy = "enqueue",
        if_unanswered: IfUnanswered = "resume",
        on_error: OnError = "keep",
        save: Save = "steps",
        wrap: Wrap | None = None,
    ) -> None:
        """Make a turn without I/O.

        Args:
            session: The conversation: a session of this library, or the SDK's `EncryptedSession` around one.
            turn_id: The caller's key for it (request, message, job), 512 bytes at most. None is a turn that only this
                call can take.
            message: The user's message, as `Runner.run` takes it; None leaves it to the block.
            wait_seconds: How long to wait for other turns of the session, and for this one if it runs elsewhere.
            lease_seconds: How long other turns wait for this one after its worker was last heard of; it is renewed
                meanwhile. At least ``retry.deadline_seconds``.
            if_busy: What to do while a turn of another id runs: ``enqueue`` waits in the order of arrival; ``reject``
                raises TurnBusyError; ``interrupt`` publishes what that turn has saved, and cancels it; ``rollback``
                cancels it and drops that.
            if_unanswered: What to do about an attempt before this one that did not end: ``resume`` goes on from what it
                had saved, ``restart`` drops that.
            on_error: What becomes of the turn when its block raises: ``keep`` leaves it unanswered, with what is saved
                of it; ``rollback`` is as if it had never been; or a function of the exception that returns one of them.
            save: ``steps`` saves each round whose tools have run, in one round trip; ``end`` keeps all of it in the
                process until the turn is published.
            wrap: Puts the SDK's wrappers around the session of the run: ``lambda s: EncryptedSession(…, s, …)``.

        Raises:
            ConfigurationError: One of them cannot be. Nothing was sent.
        """
        self._host = find_host(session, wrap)
        config = self._host.operations.config
        _check("if_busy", if_busy, ("enqueue", "reject", "interrupt", "rollback"))
        _check("if_unanswered", if_unanswered, ("resume", "restart"))
        _check("save", save, ("steps", "end"))
        if not callable(on_error):
            _check("on_error", on_error, ("keep", "rollback"))
        if not config.retry.deadline_seconds <= lease_seconds <= 86_400:
            raise ConfigurationError("lease_seconds", "must be at least retry.deadline_seconds, and a day at most")
        if not wait_seconds >= 0:
            raise ConfigurationError("wait_seconds", "must not be negative")
        self._id, self._message = _turn_id(turn_id), message
        self._wait_seconds, self._if_busy, self._if_unanswered = wait_seconds, if_busy, if_unanswered
        self._on_error, self._saves = on_error, save == "steps"
        self._spec = TurnSpec(
            self._host.operations.spec,
            self._id.encode("utf-8", "surrogatepass"),
            b"",
            _digest(message),
            round(lease_seconds * 1000),
            config.turn_retention_seconds * 1000,
        )
        self._turn: Turn | None = None
        self._grant: TurnGrant | None = None

    async def __aenter__(self) -> Turn:
        """Wait for the session and return the turn.

        Raises:
            TurnBusyError: Another one had the session for longer than was to be waited.
            TurnMismatchError: There is a turn of this id with another message.
            TurnCancelledError: The turn was cancelled by another one.
            OperationError: The session could not be asked for.
        """
        if self._grant is not None:
            raise ConfigurationError("turn", "it was begun already: make one for each attempt")
        spec = self._spec = replace(self._spec, token=new_operation_id())
        operations = self._host.operations
        settings = self._host.session.session_settings
        limit = settings.limit if settings else None
        reply = await ask_for_session(
            operations,
            spec,
            wait_seconds=self._wait_seconds,
            if_busy=self._if_busy,
            if_unanswered=self._if_unanswered,
            newest=max(limit or 0, 0),
        )
        if reply.status is TurnStatus.OTHER_MESSAGE:
            raise TurnMismatchError("there is a turn of this id with another message: nothing was run")
        if reply.status is TurnStatus.CANCELLED:
            raise TurnCancelledError("the turn was cancelled by another one (if_busy), for good: nothing was run")
        session = None if reply.reading is None else self._begin(reply, reply.reading)
        self._turn = Turn(self._id, self._message, self._host, reply, session)
        return self._turn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish the turn, or leave it unanswered."""
        grant, turn = self._grant, self._turn
        if grant is None or turn is None:
            return
        self._renewal.cancel()
        with contextlib.suppress(ValueError):  # left in another context
            OWN_TURNS.reset(self._own)
        if grant.is_lost:
            is_ours = self._interruption.take_back() or not isinstance(error, asyncio.CancelledError)
            if is_ours and not isinstance(error, TurnLostError):
                raise grant.lost_error("turn") from error
        elif error is None and turn.stored_result is not None:
            await grant.finish(self._staged.draft, keep=self._staged.keep, payload=turn.stored_result)
        else:
            await grant.leave(forget=self._forgets(error))

    def _begin(self, reply: TurnReply, reading: Reading) -> RunSession:
        """Take what was granted; return the session of the run."""
        grant = TurnGrant(self._host.operations, self._spec, reply.position, reply.attempt, reply.saves)
        resumed = [element for piece in reply.pieces for element in piece.split(b"\n")]
        grant.has_saved(len(reply.pieces), len(resumed))
        session = self._host.session
        settings = session.session_settings
        self._staged = StagedSession(session.session_id, settings, grant, reading, resumed, saves=self._saves)
        run_session = RunSession(self._host.wrap(self._staged))
        self._grant = grant
        self._own = OWN_TURNS.set(OWN_TURNS.get() | {self._spec.token})
        self._interruption = Interruption(asyncio.current_task())
        self._renewal = asyncio.ensure_future(grant.keep(self._interruption.cancel_task))
        return run_session

    def _forgets(self, error: BaseException | None) -> bool:
        decision = "keep" if error is None else self._on_error
        if callable(decision) and error is not None:
            try:
                decision = decision(error)
            except Exception:  # noqa: BLE001 (it must not hide the block's error)
                _log.exception("on_error of a turn failed; the turn is kept")
                decision = "keep"
        return decision == "rollback"


def _turn_id(given: str | None) -> str:
    if given is None:
        return ambient.random_bytes(16).hex()
    if not isinstance(given, str) or not 0 < len(given.encode("utf-8", "surrogatepass")) <= _LONGEST_ID_BYTES:
        raise ConfigurationError("turn_id", f"must be a text of 1 to {_LONGEST_ID_BYTES} bytes, or None")
    return given


def _digest(message: str | list[TResponseInputItem] | None) -> bytes:
    if message is None:
        return b"-"
    try:
        text = json.dumps(json.loads(encode_value(message)), sort_keys=True).encode()
    except ValueError as error:
        raise ConfigurationError("message", f"must be a text or a list of JSON objects: {error}") from None
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _check(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(name, f"must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")
