"""The commands of turns: begin, save, finish, end. What a turn is, and how it is fenced, is in docs/turns.md."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from .. import _ambient as ambient
from .change import (
    MOST_TURNS,
    Change,
    ListEdit,
    LogPosition,
    PublishedTurn,
    ReplicationHistory,
    Status,
    publication_of,
)
from .command import Argument, Command, Reply, SessionSpec, load_script
from .commands import READ_CHANGES, ChangeCommand, description_of
from .state import Description, Reading

__all__ = [
    "SuspendedTurns",
    "TurnReply",
    "TurnSpec",
    "TurnStatus",
    "begin_turn",
    "end_turn",
    "finish_turn",
    "list_turns",
    "release_turn",
    "save_turn",
]

# So long a place in the queue holds without being asked for. It is kept anew when a quarter of that is over: with the
# longest pause between two questions, a second, half of it is always left to one who lives.
_PLACE_HOLDS_MS = 4000


class TurnStatus(enum.IntEnum):
    """What a script of turns did: the first element of its reply."""

    GRANTED = 1
    """The turn has the session, or still has it."""
    LOST = 2
    """Another turn was granted the session meanwhile, or the session was changed."""
    LOG_MISMATCH = 4
    """The server's log does not hold the position that the caller knows; nothing was granted."""
    HELD = 8
    """A turn has the session, or is before this one in the queue."""
    ANSWERED = 9
    """The turn was answered before."""
    CANCELLED = 10
    """The turn was cancelled, for good."""
    OTHER_MESSAGE = 11
    """There is a turn of this id with another message."""
    INCOMPLETE = 12
    """The server does not have the beginning of the draft."""
    SUSPENDED = 13
    """The turn waits to be claimed."""
    UNKNOWN = 14
    """There is no such turn that waits to be claimed."""


@dataclass(frozen=True)
class TurnSpec:
    """One attempt to run a turn, with what its commands need.

    Attributes:
        session: Its session.
        id: The turn's id.
        token: Drawn for this attempt.
        message_digest: What tells its message from others; ``-`` where it is not known.
        lease_ms: Milliseconds for which it has the session unless it renews that.
        retention_ms: Milliseconds for which the turn is remembered.
    """

    session: SessionSpec
    id: bytes
    token: bytes
    message_digest: bytes
    lease_ms: int
    retention_ms: int

    @property
    def publication_id(self) -> bytes:
        """The id of the change that publishes it, as turning.lua makes it: it begins alike for each attempt.

        It differs in what follows, so that two attempts never make one history of two.
        """
        return publication_of(self.id) + self.token[:6]

    @property
    def head(self) -> tuple[Argument, ...]:
        """The first of a script's own arguments."""
        return self.id, self.retention_ms, MOST_TURNS


@dataclass(frozen=True)
class TurnReply:
    """What a server says of a turn.

    Attributes:
        status: What was done.
        position: The end of the session's log; its digest is empty where it was not told.
        history: Which server's data that is.
        reading: The session's elements, of a turn that was granted it.
        attempt: Which attempt of the turn this or the last one is, counted from 1.
        saves: How often its draft was begun anew.
        pieces: Its draft.
        payload: What is kept of it, if that is known.
        place: Its place in the queue, counted from 1; 0 for none.
        is_same: Whether it is this very turn that has the session, in another attempt.
        holder: The token of the turn that has it; empty if none has.
        taken_from: From what a turn that was granted the session took it, in a word; empty for nothing.
        lost_to: To what a turn is lost, in a word.
    """

    status: TurnStatus
    position: LogPosition
    history: ReplicationHistory
    reading: Reading | None = None
    attempt: int = 0
    saves: int = 0
    pieces: tuple[bytes, ...] = field(default=(), repr=False)
    payload: bytes = field(default=b"", repr=False)
    place: int = 0
    is_same: bool = False
    holder: bytes = b""
    taken_from: str = ""
    lost_to: str = ""

    @property
    def shown(self) -> Reading | None:
        """What it shows of the session."""
        return self.reading

    @property
    def log_mismatch(self) -> bool:
        """Whether the server's log does not hold the position that was sent along."""
        return self.status is TurnStatus.LOG_MISMATCH


@dataclass(frozen=True)
class SuspendedTurns:
    """The turns of a session that wait to be claimed.

    Attributes:
        session: The session.
        turns: Of each its id, its attempts, and when it was begun (milliseconds since 1970, the server's clock).
    """

    session: Description
    turns: tuple[tuple[bytes, int, int], ...]

    @property
    def shown(self) -> Description:
        """What it shows of the session."""
        return self.session

    @property
    def position(self) -> LogPosition:
        """The end of the session's log."""
        return self.session.position

    @property
    def history(self) -> ReplicationHistory:
        """Which server's data that is."""
        return self.session.history

    @property
    def log_mismatch(self) -> bool:
        """Whether the server's log does not hold the position that was sent along."""
        return self.session.log_mismatch


@dataclass(slots=True)
class _TurnCommand(Command[TurnReply]):
    changes: ClassVar[bool] = True

    def decode(self, reply: Reply) -> TurnReply:
        code, version, *digest = reply.value[:3]
        lost_to = reply.value[3].decode() if code == TurnStatus.LOST else ""
        return TurnReply(TurnStatus(code), LogPosition(version, b"".join(digest)), reply.history, lost_to=lost_to)


@dataclass(slots=True)
class _BeginCommand(_TurnCommand):
    separator: bytes = b""

    def decode(self, reply: Reply) -> TurnReply:
        if reply.value[0] == TurnStatus.GRANTED:
            return self._granted(reply)
        told, rest = _TurnCommand.decode(self, reply), reply.value[3:]
        if told.status is TurnStatus.HELD:
            _, place, is_same, holder = rest
            return replace(told, place=place, is_same=bool(is_same), holder=holder)
        if told.status is TurnStatus.ANSWERED:
            return replace(told, attempt=rest[0], payload=rest[1])
        return replace(told, attempt=rest[0]) if told.status is TurnStatus.SUSPENDED else told

    def _granted(self, reply: Reply) -> TurnReply:
        _, attempt, saves, pieces, payload, taken_from, description, count, joined = reply.value
        session = description_of(description, reply)
        return TurnReply(
            TurnStatus.GRANTED,
            session.position,
            reply.history,
            Reading(session, count, self.separator.join(joined), self.separator),
            attempt,
            saves,
            tuple(pieces),
            payload,
            taken_from=taken_from.decode(),
        )


def _turn_command(name: str, turn: TurnSpec, arguments: tuple[Argument, ...]) -> dict[str, Any]:
    spec = turn.session
    return {
        "name": name,
        "script": load_script(name),
        "spec": spec,
        "arguments": (*turn.head, *arguments),
        "head": spec.head(turn.token),
        "key_count": 4,
        "confirmation": spec.confirmation,
    }


def begin_turn(
    turn: TurnSpec, *, if_busy: str, if_unanswered: str, newest: int, claims: bool = False
) -> Command[TurnReply]:
    """Ask for the session.

    Args:
        turn: The attempt.
        if_busy: What to do while another turn has it: ``reject``, ``enqueue``, ``interrupt`` or ``rollback``.
        if_unanswered: What to do with the draft of an attempt before this one: ``resume`` or ``restart``.
        newest: How many elements to read, 0 for all.
        claims: Whether it is a turn that is suspended.
    """
    separator = b",%d," % int.from_bytes(ambient.random_bytes(7), "big")
    numbers = (turn.message_digest, turn.lease_ms, if_busy, _PLACE_HOLDS_MS, if_unanswered)
    arguments = (*numbers, newest, separator, READ_CHANGES, int(claims))
    return _BeginCommand(**_turn_command("turn_begin", turn, arguments), separator=separator)


def save_turn(
    turn: TurnSpec, granted: LogPosition, attempt: int, *, saves: int = 0, number: int = 0, piece: bytes = b""
) -> Command[TurnReply]:
    """Save a piece of the draft, and keep the session for another lease.

    Args:
        turn: The attempt.
        granted: The position at which the session was granted.
        attempt: Which attempt it is.
        saves: How often the draft was begun anew.
        number: The piece's number, counted from 1; 0 saves nothing.
        piece: The piece.
    """
    arguments = (*granted, turn.message_digest, attempt, turn.lease_ms, saves, number, piece)
    return _TurnCommand(**_turn_command("turn_save", turn, arguments))


def end_turn(
    turn: TurnSpec,
    granted: LogPosition | None,
    *,
    state: Literal["unanswered", "suspended", ""],
    payload: bytes = b"",
    saves: int = 0,
    number: int = 0,
    piece: bytes = b"",
) -> Command[TurnReply]:
    """Give the session back without an answer.

    Args:
        turn: The attempt.
        granted: The position at which the session was granted; None if it is not known whether it was.
        state: What the turn is then: ``unanswered`` can be begun again, ``suspended`` can be claimed; empty is as if it
            had never been seen.
        payload: What is kept of a suspended turn.
        saves: As in `save_turn`.
        number: As in `save_turn`.
        piece: The last piece of its draft.
    """
    arguments = (*(granted or ("", "")), state, payload, saves, number, piece)
    return _TurnCommand(**_turn_command("turn_end", turn, arguments))


def release_turn(spec: SessionSpec, turn_id: bytes, token: bytes) -> Command[TurnReply]:
    """Take the session from an attempt that does not know of it; what is saved of the turn can be resumed.

    Args:
        spec: The session.
        turn_id: The turn's id.
        token: The token of the attempt.
    """
    turn = TurnSpec(spec, turn_id, token, b"-", 0, spec.turn_retention_ms)
    command = end_turn(turn, None, state="unanswered")
    return replace(command, name="turn_release", arguments=(*command.arguments, 1))


@dataclass(slots=True)
class _ListCommand(Command[SuspendedTurns]):
    def decode(self, reply: Reply) -> SuspendedTurns:
        description, found = reply.value
        turns = tuple(zip(found[::3], found[1::3], map(int, found[2::3]), strict=True))
        return SuspendedTurns(description_of(description, reply), turns)


def list_turns(spec: SessionSpec) -> Command[SuspendedTurns]:
    """Name the turns of a session that wait to be claimed."""
    return _ListCommand("turn_list", load_script("turn_list"), spec, (READ_CHANGES,), key_count=4)


@dataclass(slots=True)
class _FinishCommand(ChangeCommand):
    published: PublishedTurn | None = None

    def decode(self, reply: Reply) -> Change:
        if reply.value[0] == Status.CONFLICT:
            _, version, _, lost_to = reply.value
            return Change(Status.CONFLICT, version, b"", reply.history, lost_to=lost_to.decode())
        change = ChangeCommand.decode(self, reply)
        if change.entry is not None and self.published is not None and change.result == self.published.token:
            change.entry.turn = self.published
        return change


def finish_turn(
    turn: TurnSpec,
    granted: LogPosition,
    attempt: int,
    items: Sequence[bytes],
    *,
    keep: int | None,
    payload: bytes,
) -> ChangeCommand:
    """Publish the turn; the result is the token of the attempt that did it.

    Args:
        turn: The attempt.
        granted: The position at which the session was granted.
        attempt: Which attempt it is.
        items: The elements to put behind those that the session has.
        keep: How many of these to keep, from the first one; None keeps all.
        payload: The turn's result.
    """
    kept: tuple[Argument, ...] = ("", "") if keep is None else (0, keep)
    arguments = (*granted, turn.token, turn.message_digest, attempt, payload, *kept, *items)
    fields = _turn_command("turn_finish", turn, arguments)
    id_ = turn.publication_id
    fields["head"] = turn.session.head(id_)
    edit = ListEdit(push=tuple(items)) if keep is None else ListEdit((0, keep), tuple(items))
    published = PublishedTurn(turn.id, attempt, turn.message_digest, turn.token, payload, turn.retention_ms, MOST_TURNS)
    return _FinishCommand(**fields, batch_size=len(items), id=id_, edit=edit, has_result=True, published=published)
