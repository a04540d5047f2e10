"""What the checker found. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


class Kind(str, enum.Enum):
    """A promise that was broken."""

    LOST = "lost"
    """A confirmed batch is not stored, and nothing removed it."""
    DUPLICATED = "duplicated"
    """An item is there more than once."""
    TORN = "torn"
    """A batch is not contiguous, not in order or not whole."""
    REORDERED = "reordered"
    """Two batches of one writer stand the wrong way round."""
    OVERTAKEN = "overtaken"
    """A batch stands behind one of another writer that began only when it had been confirmed."""
    PUT_BACK_BEHIND = "put back behind"
    """The same, where no process can have known that the other one stands in the place of what is gone."""
    GHOST = "ghost"
    """An item is there that was reported as not applied, or that nobody wrote."""
    HANDED_OUT_TWICE = "handed out twice"
    POPPED_STILL_THERE = "popped still there"
    POPPED_OUT_OF_TURN = "popped out of turn"
    """A newer item was there when it was popped."""
    CLEARED_STILL_THERE = "cleared still there"
    BACKWARDS = "backwards"
    """A session object no longer shows what it had shown, and nothing removed it."""
    STALE = "stale"
    """A read does not show what was confirmed to somebody before it began."""
    ANSWERED_TWICE = "answered twice"
    """Two deliveries of a turn were told different results, or another one is stored."""
    REFUSED_AND_STORED = "refused and stored"
    """A delivery was told that nothing of it is stored, and its answer is."""
    TAKEN_AWAY = "taken away"
    """A turn was lost within its lease, and no other turn had cancelled it."""
    CANCELLED_AND_ANSWERED = "cancelled and answered"
    """A delivery was told that its turn is cancelled for good, and it was answered."""
    TOOL_RUN_AGAIN = "tool run again"
    """A resumed turn ran a tool whose output was saved."""
    FOREIGN_ERROR = "foreign error"
    """An error that the library does not document reached the caller."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken promise.

    Attributes:
        kind: Which.
        session: Where.
        what: The item, batch or call.
        where: In what it was seen, for the first time.
        said: Whether the caller had been told that history is gone (`HistoryLostError`).
        begin: When the call began whose change is lost, put back behind another, or missing in a read; else 0.
        batch: What is lost: the writer and the number of the batch.
        in_read: Whether a read showed it, not what is stored in the end.
    """

    kind: Kind
    session: str
    what: str
    where: str = ""
    said: bool = False
    begin: float = 0.0
    batch: tuple[str, int] | None = None
    in_read: bool = False

    @property
    def is_of_stale_read(self) -> bool:
        """Whether it is one read that lacks a change: items, or the removal of some."""
        removal = self.kind in (Kind.POPPED_STILL_THERE, Kind.CLEARED_STILL_THERE)
        return self.kind is Kind.STALE or (removal and self.in_read)

    def __str__(self) -> str:
        seen = f", in {self.where}" if self.where else ""
        return f"{self.kind.value}{' (said)' if self.said else ''}: {self.session}: {self.what}{seen}"


@dataclass
class Report:
    """All that was found in one run.

    Attributes:
        violations: In the order in which they were found.
        counts: Calls by what became of them: ``confirmed``, ``not_applied``, ``unknown``, ``unconfirmed``,
            ``history_lost``, ``unfinished`` (the worker was killed on the way); ``reads`` that were answered,
            ``failed_reads``, ``stored`` items.
        slowest_seconds: The longest call that returned or raised.
    """

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0

    def of(self, kind: Kind, *, said: bool | None = None) -> list[Violation]:
        """Return the violations of a kind: all, or only those that were or were not said."""
        return [v for v in self.violations if v.kind is kind and said in (None, v.said)]

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that occur."""
        return {violation.kind for violation in self.violations}

    def add(self, other: Report) -> None:
        """Take over what another report found."""
        self.violations += other.violations
        self.counts += other.counts
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)

    def summary(self) -> dict[str, int]:
        """Return how many violations there are, by kind; those that were said stand apart."""
        return dict(Counter(f"{v.kind.value}{' (said)' if v.said else ''}" for v in self.violations))

    def to_dict(self, most: int = 50) -> dict[str, Any]:
        """Return the report as JSON values, with the first violations of each kind in words."""
        return {
            "counts": dict(self.counts),
            "slowest_seconds": round(self.slowest_seconds, 3),
            "summary": self.summary(),
            "violations": [str(v) for kind in Kind for v in self.of(kind)[:most]],
        }


def distinct(violations: Iterable[Violation]) -> list[Violation]:
    """Return each violation once in reads and once in what is stored; what was seen without a word comes first."""
    first: dict[tuple[Kind, str, str, bool], Violation] = {}
    for violation in violations:
        key = violation.kind, violation.session, violation.what, violation.in_read
        known = first.setdefault(key, violation)
        if known.said and not violation.said:
            first[key] = violation
    return list(first.values())
