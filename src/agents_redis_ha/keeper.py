"""Keeps histories whole: notices with each operation whether a server has lost what was known, and puts it back.

How it goes, and why several processes that do it at the same time do no harm, is in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar
from weakref import WeakValueDictionary

from . import operations
from .config import HAConfig
from .connections.node import Tenure
from .errors import DeadlineExceededError, HistoryLostError, OperationError, lost_in_words
from .journal import OPERATION_ID_BYTES, Effect, Journal, Record, Sight, Unit
from .operations import Change, Description, Reading
from .request import NOTHING, Knows, Run, Subject
from .restoration import Part, Plan, Survey, fork, is_gap, make_plan, parts_of, restore, survey
from .retry import Executor, Operation
from .telemetry import Observation
from .timing import take_notice, timeout_at

__all__ = ["Keeper"]

_Changed = TypeVar("_Changed", bound=Change)
_Seen = TypeVar("_Seen", Reading, Description)

# Between two looks whether others have put back what is missing here.
_SHORTEST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 0.1
# After a failover, so many sessions are looked at at the same time.
_SWEEPERS = 4


class Keeper:
    """The operations of all sessions that share an executor, with what this process knows of their histories.

    Attributes:
        executor: Sends the requests.
    """

    def __init__(self, config: HAConfig, executor: Executor, journal: Journal | None = None) -> None:
        """Make a keeper.

        Args:
            config: How much to keep, and what to do with what is lost.
            executor: Sends the requests.
            journal: What is known already; None means nothing.
        """
        self.executor = executor
        self._repair = config.repair
        self._journal = Journal(config.repair.max_changes, config.repair.max_bytes) if journal is None else journal
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()  # as long as somebody waits
        self._failovers = 0
        self._live: set[Tenure] = set()  # in which nodes have replied since something happened
        self._sweep: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Close the connections; operations under way end with an error."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.wait((self._sweep,))
        await self.executor.aclose()

    async def change(
        self,
        operation: Operation,
        subject: Subject,
        make: Callable[[Run, Knows], Awaitable[_Changed]],
        heard: bool = True,
    ) -> _Changed:
        """Make a change, on the history that this process knows; what is lost is only said if somebody hears it.

        Raises:
            HistoryLostError: That is gone, and cannot be put back; the change was not made.
            OperationError: It failed; `outcome` says whether the change may be there.
        """
        while True:
            record = self._record(subject)
            if heard:
                self._tell(operation, record)
            change = await make(operation.run, record.knows)
            if not change.behind:
                self._note_change(operation, record, change)
                return change
            await self._settle(operation, subject)

    async def look(
        self, operation: Operation, subject: Subject, make: Callable[[Run, Knows], Awaitable[_Seen]]
    ) -> _Seen:
        """Read or describe the session, never less of it than this process has seen before.

        Raises:
            HistoryLostError: What it had seen is gone, and cannot be put back.
            OperationError: It failed.
        """
        while True:
            record = self._record(subject)
            self._tell(operation, record)
            seen = await make(operation.run, record.knows)
            session = seen.session if isinstance(seen, Reading) else seen
            if not session.is_behind:
                self._see(operation, record, session)
                if isinstance(seen, Reading):
                    self._keep_reading(record, seen)
                return seen
            await self._settle(operation, subject)

    def _record(self, subject: Subject) -> Record:
        return self._journal.record(subject) if self._repair.max_changes else Record(subject)

    def _tell(self, operation: Operation, record: Record) -> None:
        """Tell the user once of what is gone."""
        versions, record.lost = record.lost, ()
        if versions and self._repair.on_loss == "raise":
            raise operation.error(HistoryLostError, lost_in_words(versions), versions=versions)

    def _note_change(self, operation: Operation, record: Record, change: Change) -> None:
        before = record.tenure
        expires_at = record.expires_at
        if record.subject.ttl_ms:
            expires_at = time.monotonic() + record.subject.ttl_ms / 1000
        unit = change.unit
        record.see(change.version, unit.id if unit else b"", change.tenure, expires_at)
        if unit is not None and self._repair.max_changes:
            self._journal.keep(record, unit)
        self._look_around(operation, before, change.tenure)

    def _keep_reading(self, record: Record, reading: Reading) -> None:
        session = reading.session
        kept = (sight for sight in (record.whole, record.tail) if sight and sight.version == session.version)
        if any(sight.count >= reading.count for sight in kept):
            return
        # With hiredis the elements are read behind the description: there may be newer ones among them.
        if 0 < reading.count <= session.length and self._repair.max_changes:
            sight = Sight(
                session.version,
                session.generation,
                session.length,
                reading.count,
                reading.joined,
                reading.separator,
                record.members_until(session.version, session.members),
            )
            self._journal.keep(record, sight)

    def _see(self, operation: Operation, record: Record, session: Description) -> None:
        before = record.tenure
        id_ = next((m for v, m in session.members if v == session.version and len(m) == OPERATION_ID_BYTES), b"")
        expires_at = time.monotonic() + session.ttl_ms / 1000 if session.ttl_ms > 0 else None
        record.see(session.version, id_, session.tenure, expires_at)
        self._look_around(operation, before, session.tenure)

    async def _settle(self, operation: Operation, subject: Subject) -> None:
        """Bring the server and what is known together; one task a session does it, the others wait."""
        lock = self._locks.setdefault(subject.keys.items, asyncio.Lock())
        try:
            async with timeout_at(operation.deadline), lock:
                await self._settle_alone(operation, subject)
        except asyncio.TimeoutError as error:
            reason = "the server lost changes that others are still putting back"
            raise operation.error(DeadlineExceededError, reason) from error

    async def _settle_alone(self, operation: Operation, subject: Subject) -> None:
        missed, parts, look = NOTHING, list[Part](), 0.0
        while True:
            found = await survey(operation.run, subject, missed, parts)
            record = self._record(subject)
            if await self._is_settled(operation, record, found):
                return
            own = parts_of(record, found)
            plan = make_plan([*found.parked, *own], found, max(record.version, found.claim))
            patient = found.claim and found.claim_age_seconds < self._repair.patience_seconds
            if plan.missing and (patient or not found.claim):
                # Others may know it: hand over what is known here, and wait for them.
                await asyncio.sleep(look * random.uniform(0.5, 1))
                look = min(max(2 * look, _SHORTEST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS)
                there = {(type(part), part.version) for part in found.parked}
                missed, parts = record.knows(), [part for part in own if (type(part), part.version) not in there]
            elif await restore(operation.run, subject, found, plan):
                self._note_restored(operation, record, found, plan)
                return

    async def _is_settled(self, operation: Operation, record: Record, found: Survey) -> bool:
        """Return whether nothing is missing, or nothing of it can come back; let others write again then."""
        known, late = record.version, list[Unit]()
        if self._was_deleted(record, found):
            self._journal.forget(record)
        elif fork(record, found) is not None:
            late = self._give_up(operation, record, found)
        elif max(known, found.claim) > found.version:
            return False
        else:
            record.see(*found.latest, found.tenure, record.expires_at)
            self._live.add(found.tenure)
        if found.claim and found.claim <= max(known, found.version):
            nothing = Plan(found.version, found.generation, (0, found.length), (), (), ())
            await restore(operation.run, record.subject, found, nothing)
        await self._put_at_the_end(operation, record, late)
        return True

    def _was_deleted(self, record: Record, found: Survey) -> bool:
        """Whether the session was deleted behind our back: the server that confirmed it lost nothing since."""
        if record.tenure != found.tenure or found.tenure[1] is None:
            return False
        split = fork(record, found)
        return found.version < record.version if split is None else not is_gap(found.ids[split])

    def _give_up(self, operation: Operation, record: Record, found: Survey) -> list[Unit]:
        """Adopt the history that others have begun to write in place of the known one; return what to put behind it."""
        there = set(found.ids.values())
        gone = {version: id_ for version, id_ in record.ids.items() if version >= (fork(record, found) or 0)}
        lost = [version for version, id_ in gone.items() if id_ not in there]
        late = list[Unit]()
        if self._repair.written_on == "append":
            late = [unit for version, unit in sorted(record.units.items()) if version in lost and unit.appends]
        self._journal.forget(record)
        record.see(*found.latest, found.tenure, None)
        self._lose(operation, record, tuple(sorted({*lost} - {unit.version for unit in late})))
        return late

    async def _put_at_the_end(self, operation: Operation, record: Record, units: list[Unit]) -> None:
        subject, done = replace(record.subject, confirmation=None), 0  # a shortfall would count as the operation's own
        try:
            for unit in units:
                push = unit.effect.push if unit.effect else ()
                change = await operations.append(operation.run, subject, unit.id, lambda: NOTHING, push)
                if change.behind:  # lost again meanwhile
                    break
                self._note_change(operation, record, change)
                done += 1
        finally:
            if done:
                operation.observation.restored(done)
            self._lose(operation, record, tuple(unit.version for unit in units[done:]))

    def _note_restored(self, operation: Operation, record: Record, found: Survey, plan: Plan) -> None:
        ids = {version: id_ for version, id_ in plan.members if len(id_) == OPERATION_ID_BYTES}
        lost = {version for version in plan.missing if version <= record.version}
        own = [unit for version, unit in record.units.items() if version > found.version and version not in lost]
        replaced = {unit.version for unit in own if ids.get(unit.version, unit.id) != unit.id}
        if replaced:  # by what somebody knew who went on from another primary
            self._journal.forget(record)
        record.see(plan.version, ids.get(plan.version, b""), found.tenure, record.expires_at)
        if plan.missing and self._repair.max_changes:
            gaps = [Unit(version, id_, b"", Effect()) for version, id_ in plan.members if is_gap(id_)]
            self._journal.close(record, gaps)
        count = plan.version - found.version - len(plan.missing) - bool(plan.missing)
        if count:
            operation.observation.restored(count)
        self._lose(operation, record, tuple(sorted(lost | replaced)))

    def _lose(self, operation: Operation, record: Record, versions: tuple[int, ...]) -> None:
        if versions:
            record.lost = tuple(sorted({*record.lost, *versions}))
            operation.observation.lost(versions)

    def _look_around(self, operation: Operation, before: Tenure | None, now: Tenure) -> None:
        """After a failover or a restart, look at the other sessions too: nobody may use them again for long."""
        happened = len(self.executor.locator.failovers)
        if happened == self._failovers and (before is None or before == now):
            self._live.add(now)
            return
        self._failovers = happened
        self._live = {now}
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.ensure_future(self._look_at_all(operation.observation))
            self._sweep.add_done_callback(take_notice)

    async def _look_at_all(self, cause: Observation) -> None:
        sweepers = asyncio.Semaphore(_SWEEPERS)

        async def look_at(record: Record) -> None:
            async with sweepers:
                if record.version and record.tenure not in self._live:
                    await self._check(record.subject, cause)

        await asyncio.gather(*(look_at(record) for record in reversed(list(self._journal))))

    async def _check(self, subject: Subject, cause: Observation) -> None:
        topology = self.executor.locator.topology
        observation = Observation("check", topology, subject.session_id, subject.show_id, cause=cause)
        operation = self.executor.begin(observation, changes=False)
        try:
            await self._settle(operation, subject)
        except OperationError as error:  # the session's next operation looks again
            observation.finish(error)
        except BaseException as error:
            observation.finish(error)
            raise
        else:
            observation.finish()
