"""Forged histories for the tests of the checker: a list that behaves, and callers who report what it did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.failover.campaign.checker import check
from tests.failover.campaign.findings import Kind, Report
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, make_batch

SESSION = "s"


@dataclass
class Story:
    """One session. Each step takes effect at a whole second; its call lasts from a little before to a little after.

    Attributes:
        calls: What the callers recorded.
        stored: What the server has.
        spread: Seconds, below 1, by which a call begins before its effect and ends after it; from 0.5 on, calls of
            different workers overlap.
    """

    calls: list[Call] = field(default_factory=list)
    stored: list[Mark] = field(default_factory=list)
    spread: float = 0.25
    now: float = 0.0
    _sequences: dict[str, int] = field(default_factory=dict)
    _free: dict[str, float] = field(default_factory=dict)
    _late: list[tuple[Mark, ...]] = field(default_factory=list)

    def append(self, writer: str = "a", size: int = 2, status: Status = Status.OK, effect: str = "now") -> Call:
        """Write a batch: `effect` is "now", "late" (see `arrive`) or "none"."""
        batch = self._batch(writer, size)
        if effect == "now":
            self.stored += batch
        elif effect == "late":
            self._late.append(batch)
        return self._call(writer, Op.APPEND, status, items=batch)

    def arrive(self) -> None:
        """Let what was late take effect."""
        self.now += 1
        for batch in self._late:
            self.stored += batch
        self._late.clear()

    def pop(self, worker: str = "a", status: Status = Status.OK, effect: str = "now") -> Call:
        """Take the newest item."""
        taken = (self.stored.pop(),) if self.stored and effect == "now" else ()
        return self._call(worker, Op.POP, status, result=taken if status is Status.OK else ())

    def clear(self, worker: str = "a", status: Status = Status.OK, effect: str = "now") -> Call:
        """Remove everything."""
        if effect == "now":
            self.stored.clear()
        return self._call(worker, Op.CLEAR, status)

    def replace(self, writer: str = "a", size: int = 2, status: Status = Status.OK, effect: str = "now") -> Call:
        """Put a batch in the place of everything."""
        batch = self._batch(writer, size)
        if effect == "now":
            self.stored[:] = batch
        return self._call(writer, Op.REPLACE, status, items=batch)

    def read(self, worker: str = "a", limit: int | None = None) -> Call:
        """Look at the newest items, or at all."""
        seen = tuple(self.stored[-limit:] if limit else self.stored)
        return self._call(worker, Op.READ, Status.OK, result=seen, limit=limit)

    def notice(self, worker: str = "a", versions: int = 1) -> Call:
        """Be told that history is gone."""
        return self._call(worker, Op.READ, Status.HISTORY_LOST, error="HistoryLostError: gone", lost_versions=versions)

    def check(self, stored: list[Mark] | None = None) -> Report:
        """Return what the checker says, of this story or with another list stored."""
        return check(self.calls, {SESSION: self.stored if stored is None else stored})

    def evict(self) -> Call:
        """Lose all keys to the server; the caller's part is the server's."""
        self.stored.clear()
        return self._call("server", Op.CLEAR, Status.UNCONFIRMED)

    def kinds(self, stored: list[Mark] | None = None) -> set[Kind]:
        """Return the kinds of violations that the checker finds."""
        return self.check(stored).kinds

    def _batch(self, writer: str, size: int) -> tuple[Mark, ...]:
        self._sequences[writer] = self._sequences.get(writer, 0) + 1
        return make_batch(writer, self._sequences[writer], size)

    def _call(self, worker: str, op: Op, status: Status, **fields: object) -> Call:
        self.now += 1
        begin = max(self.now - self.spread, self._free.get(worker, 0.0))
        end = math.inf if status is Status.UNKNOWN else self.now + self.spread
        self._free[worker] = self.now + self.spread
        call = Call(
            worker=worker,
            number=len(self.calls) + 1,
            session=SESSION,
            handle=f"{worker}/{SESSION}",
            op=op,
            begin=begin,
            end=end,
            status=status,
            **fields,  # type: ignore[arg-type]
        )
        self.calls.append(call)
        return call
