"""A session's history as the checker uses it, and the views of it: what a read returned, or what is stored. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.failover.campaign.history import BatchId, Call, Op, Status
from tests.failover.campaign.marks import Mark


@dataclass(frozen=True, kw_only=True)
class View:
    """A list of items, oldest first, as somebody saw it.

    Attributes:
        items: None stands for an element without a mark of this session.
        begin: When the look began.
        end: When it had ended.
        complete: Whether it holds everything that there was, not just the newest items.
        worker: Who looked; None is the checker itself, after the run.
        handle: The session object that was read; None for the checker.
    """

    items: tuple[Mark | None, ...]
    begin: float = math.inf
    end: float = math.inf
    complete: bool = True
    worker: str | None = None
    handle: str | None = None

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The items that have a mark."""
        return tuple(mark for mark in self.items if mark is not None)

    @cached_property
    def present(self) -> frozenset[Mark]:
        """The same, as a set."""
        return frozenset(self.marks)

    @cached_property
    def batches(self) -> tuple[BatchId, ...]:
        """The batches of which it shows anything, in the order in which they begin."""
        return tuple(dict.fromkeys(mark.batch for mark in self.marks))

    def __str__(self) -> str:
        return f"the read of {self.worker} at {self.begin:.3f}" if self.worker else "what is stored"


class SessionHistory:
    """All calls of one session, whoever made them.

    Args:
        name: The session's name.
        calls: Its calls, in any order.
        removals: What the servers have deleted by themselves.
    """

    def __init__(self, name: str, calls: Iterable[Call], removals: Iterable[Call] = ()) -> None:
        self.name = name
        self.removals = tuple(removals)
        self.calls = sorted([*calls, *self.removals], key=lambda call: call.begin)
        self.writes: dict[BatchId, Call] = {call.items[0].batch: call for call in self.calls if call.items}
        self.by_begin = sorted(self.writes.items(), key=lambda pair: pair[1].begin)
        self.begins = [call.begin for _, call in self.by_begin]
        self.removers = [call for call in self.calls if call.removes_all and call.may_be_applied]
        pops = [call for call in self.calls if call.op is Op.POP]
        self.pops = [call for call in pops if call.status is Status.OK and call.result]
        self.open_pops = [call for call in pops if call.may_be_applied and call.status is not Status.OK]
        self.popped: dict[Mark, Call] = {}
        for call in self.pops:
            for mark in call.result:
                if mark is not None:
                    self.popped.setdefault(mark, call)
        self.notices = [call for call in self.calls if call.status is Status.HISTORY_LOST]

    def views(self) -> Iterator[View]:
        """Yield what the reads saw, in the order in which they began."""
        for call in self.calls:
            if call.op is Op.READ and call.status is Status.OK:
                yield View(
                    items=call.result,
                    begin=call.begin,
                    end=call.end,
                    complete=call.limit is None or len(call.result) < call.limit,
                    worker=call.worker,
                    handle=call.handle,
                )

    def stands_in_front(self, batch: BatchId, window: View) -> bool:
        """Return whether a batch is in front of a window's items: as far as the next look that shows both tells.

        A batch that was lost stands behind one that was begun later, once it is put back.
        """
        first = window.batches[0]
        for later in self.views():
            if later.begin >= window.begin and batch in later.batches and first in later.batches:
                return later.batches.index(batch) < later.batches.index(first)
        return False

    def said(self, *, before: float = math.inf, after: float = -math.inf, worker: str | None = None) -> bool:
        """Return whether somebody, or this worker, was told in that time that history is gone."""
        return any(after < call.end < before and worker in (None, call.worker) for call in self.notices)
