"""What a worker did: one `Call` for each call of a session, as the caller saw it. Pure."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Literal

from tests.failover.campaign.marks import Mark

BatchId = tuple[str, int]
Ending = Literal["answered", "lost", "cancelled", "failed", "open"]


class Op(str, enum.Enum):
    """What was called."""

    APPEND = "append"
    READ = "read"
    POP = "pop"
    CLEAR = "clear"
    REPLACE = "replace"
    """All items gone and a batch in their place, in one step."""


class Status(str, enum.Enum):
    """How it ended."""

    OK = "ok"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"
    """Also of a call whose worker was killed on the way."""
    UNCONFIRMED = "unconfirmed"
    """It is on the primary, but on fewer replicas than asked for."""
    HISTORY_LOST = "history_lost"
    """Instead the caller was told that confirmed changes are gone; not applied, unless an earlier attempt was."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call.

    Attributes:
        worker: The process.
        number: The how-manieth call of that process.
        session: The session's name.
        handle: The session object within the process.
        op: What was called.
        begin: When, in seconds; one clock for all processes of the machine.
        end: When it returned or raised; infinite if it never did.
        status: How it ended.
        items: What it was to write.
        result: What it returned: the items read, or the item popped. None stands for an element without a mark.
        limit: The limit of a read; None means all.
        lost_versions: How many versions a `HistoryLostError` named.
        is_open: Whether that error left open what became of the change: an earlier attempt had left.
        error: Type and text of the error, if any.
        foreign_error: Whether the error is none that the library documents.
    """

    worker: str
    number: int
    session: str
    handle: str
    op: Op
    begin: float
    end: float = math.inf
    status: Status = Status.UNKNOWN
    items: tuple[Mark, ...] = ()
    result: tuple[Mark | None, ...] = ()
    limit: int | None = None
    lost_versions: int = 0
    is_open: bool = False
    error: str | None = None
    foreign_error: bool = False

    @property
    def finished(self) -> bool:
        """Whether the caller got an answer at all."""
        return self.end < math.inf

    @property
    def may_be_applied(self) -> bool:
        """Whether its change may be there, now or later."""
        return self.is_open or self.status in (Status.OK, Status.UNKNOWN, Status.UNCONFIRMED)

    @property
    def settled(self) -> float:
        """When its change was there at the latest; infinite if nobody can tell."""
        return self.end if self.status in (Status.OK, Status.UNCONFIRMED) else math.inf

    @property
    def writes(self) -> bool:
        """Whether it adds a batch."""
        return self.op in (Op.APPEND, Op.REPLACE)

    @property
    def removes_all(self) -> bool:
        """Whether it takes away everything that was there."""
        return self.op in (Op.CLEAR, Op.REPLACE)


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """A tool that has run in a turn.

    Attributes:
        session: The session's name.
        batch: What names the turn.
        round: Which round of it, from 0.
        attempt: In which attempt of the turn.
        began: When.
        saved: When the draft with its output was saved; None if that was not confirmed.
        resumes: Whether the turn goes on from what is saved.
    """

    session: str
    batch: BatchId
    round: int
    attempt: int
    began: float
    saved: float | None
    resumes: bool


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One delivery of a turn.

    Attributes:
        session: The session's name.
        batch: What names the turn.
        answer: What this delivery would answer; no other one's answer is the same.
        ending: What became of it: ``answered`` by this delivery or before it; ``lost``; ``cancelled`` by another turn;
            ``failed``: nothing is stored of it; ``open``: it may be stored.
        result: What the turn was answered with, if that was told.
        within_lease: Whether it took less time than a lease, waiting included: then its lease was not over.
    """

    session: str
    batch: BatchId
    answer: str
    ending: Ending
    result: str | None = None
    within_lease: bool = False
