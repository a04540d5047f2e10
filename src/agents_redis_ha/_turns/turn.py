"""One attempt to answer a message: what its block is given."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from agents import RunState
from agents.items import TResponseInputItem
from agents.memory import Session

from .._commands import TurnReply, TurnStatus
from ..errors import ConfigurationError
from .grant import TurnGrant
from .staging import RunSession, StagedSession
from .wrapping import Host

__all__ = ["Turn"]


class Turn:
    """One attempt to answer a message; see `ha_turn`.

    Attributes:
        id: The turn's id.
        attempt: Which attempt it is, counted from 1; of a turn that was answered before, the one that did it.
        is_resumed: Whether it goes on from what an attempt before it had saved.
        is_suspended: Whether it waits for a claim: since an attempt before this one, or by `suspend`.
        stored_result: What is kept of the result, as it is stored; None until the turn is answered.
        state: Of a claimed turn, the SDK's state of the run that was suspended; else None.
    """

    state: RunState[Any] | None = None

    def __init__(
        self,
        turn_id: str,
        message: str | list[TResponseInputItem] | None,
        host: Host,
        reply: TurnReply,
        granted: tuple[TurnGrant, StagedSession] | None = None,
    ) -> None:
        """Take what was granted, or found; see `ha_turn`."""
        self.id, self.attempt = turn_id, reply.attempt
        self.is_resumed = bool(reply.pieces)
        self.is_suspended = reply.status is TurnStatus.SUSPENDED
        self.stored_result = reply.payload if reply.status is TurnStatus.ANSWERED else None
        self._message, self._host, self._granted = message, host, granted
        self._session = RunSession(host.wrap(granted[1]), message) if granted else None

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer: from an attempt before this one, or by `answer`."""
        return self.stored_result is not None

    @property
    def input(self) -> str | list[TResponseInputItem]:
        """What to give to the Runner: the message, or nothing where the draft has it already.

        It has where the turn is resumed, and where an earlier run in this block failed: another run goes on from there.
        That run reads all of the draft, whatever the limit of its session: it has the message from nowhere else.
        """
        is_there = self.is_resumed or (self._session is not None and self._session.has_message)
        if is_there and self._granted is not None:
            self._granted[1].shows_draft = True
        return [] if is_there or self._message is None else self._message

    @property
    def session(self) -> Session:
        """The session to give to the Runner.

        Raises:
            ConfigurationError: The turn was answered before, or is suspended: there is nothing to run.
        """
        if self._session is None or self.is_suspended:
            what = "is suspended: claim it (claim_turn)" if self.is_suspended else "was answered before (is_answered)"
            raise ConfigurationError("session", f"there is nothing to run: the turn {what}")
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
        return self._host.decode(self.stored_result)

    def answer(self, result: Any = None) -> None:
        """Answer the turn. It is published when its block is left.

        Args:
            result: What a repeat gets: any JSON of 64 KiB at most; a pydantic model is kept as its fields.

        Raises:
            InvalidResultError: It is not that. The turn is not answered.
            ConfigurationError: The turn does not run: it was answered before, is suspended, or its block was left.
        """
        if not self._runs:
            raise ConfigurationError("answer", "the turn does not run: it was answered before, or its block was left")
        self.stored_result = self._host.encode_result(result)

    async def suspend(self, state: RunState[Any]) -> None:
        """Keep a run that waits for an approval, and let other turns go ahead; `claim_turn` goes on with it.

        The state and what the run has stored so far are kept for ``turn_retention_seconds``, and are no part of the
        history until the turn is answered. Nothing more can be done in this block.

        Args:
            state: ``result.to_state()``; a MiB of JSON at most.

        Raises:
            InvalidResultError: It is larger. The turn goes on.
            TurnLostError: The turn is lost. Nothing of it is stored.
            OperationError: It failed; the turn may be suspended all the same: `list_suspended` tells.
        """
        if self._granted is None or not self._runs or self.is_answered:
            raise ConfigurationError("suspend", "the turn does not run: there is nothing to suspend")
        grant, staged = self._granted
        payload = self._host.encode_state(state.to_json())
        await grant.suspend(staged.draft, payload)
        self.is_suspended = staged.closed = True

    def idempotency_key(self, call_id: str) -> str:
        """Return a key for what a tool does outside: the same whenever the same call of this turn is made again.

        Args:
            call_id: The tool call's id, or any other name of what is done once a turn.
        """
        name = json.dumps([self._host.session.session_id, self.id, call_id])
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def _runs(self) -> bool:
        return self._granted is not None and not self.is_suspended and not self._granted[1].closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} attempt={self.attempt} is_answered={self.is_answered}>"
