"""Keeps histories whole: notices with each operation whether a server has lost what was known, and puts it back.

How it goes, and why several processes that do it at the same time do no harm, is in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from .. import _ambient as ambient
from .._asyncio import timeout_at
from .._commands import (
    NO_POSITION,
    Change,
    Command,
    Description,
    ListEdit,
    LogEntry,
    LogPosition,
    Reading,
    ReplicationHistory,
    ServerState,
    SessionSpec,
    SuspendedTurns,
    TurnReply,
    append,
    chain,
    inspect,
    new_operation_id,
)
from .._config import HAConfig
from .._retry import Executor, Operation
from .._telemetry import OperationSpan
from ..errors import DeadlineExceededError, OperationError
from .busy import wait_for_turn
from .journal import Journal
from .replay import (
    Plan,
    first_divergence,
    fragments_of,
    given_up,
    has_beginning,
    hint_name,
    is_noop,
    make_plan,
    pack,
    replay_command,
    unpack,
    was_deleted,
)
from .session_log import SessionLog, Snapshot
from .sweep import Sweep
from .telling import Known, check_told

__all__ = ["RecoveryCoordinator"]

_Result = TypeVar("_Result", Change, Reading, Description, TurnReply, SuspendedTurns)

# So many changes at most were made to a session beside those that one process knows of.
_UNKNOWN_CHANGES = 1024
# Between two looks whether other processes have put back what is missing here.
_SHORTEST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 0.1
# So often is a read sent between whose parts others change the session, and asked again what was answered late.
_MOST_TIMES = 3


class RecoveryCoordinator:
    """The operations of all sessions that share an executor, with what this process knows of their histories.

    Attributes:
        executor: Sends the commands.
    """

    def __init__(self, config: HAConfig, executor: Executor, journal: Journal | None = None) -> None:
        """Make a coordinator.

        Args:
            config: How much to keep.
            executor: Sends the commands.
            journal: What is known already; None means nothing.
        """
        self.executor = executor
        self._journal = Journal(config.repair.max_changes, config.repair.max_bytes) if journal is None else journal
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()  # as long as a task waits
        self._unkept: WeakKeyDictionary[Operation, SessionLog] = WeakKeyDictionary()  # of clients that keep nothing
        self._sweep = Sweep(self._journal, self._check)

    @property
    def sweeps(self) -> bool:
        """Whether sessions are looked at in the background."""
        return self._sweep.is_under_way

    async def aclose(self) -> None:
        """Close the connections; operations under way end with an error."""
        try:
            await self._sweep.aclose()
        finally:
            await self.executor.aclose()

    async def execute(self, operation: Operation, command: Command[_Result], *, report_loss: bool = True) -> _Result:
        """Execute a command on the history that this process knows, never on less of it.

        Args:
            operation: The operation that it is for.
            command: What to do.
            report_loss: Whether the caller can be told of a loss; a cancelled one cannot.

        Raises:
            HistoryLostError: What was known is gone, and cannot be put back; the command was not executed.
            OutcomeLostError: The server evicted what would tell the outcome of an earlier attempt.
            OperationError: It failed; `outcome` says whether its change may be there.
        """
        again = doubts = _MOST_TIMES
        while True:
            log = self._log(operation, command.spec)
            known = Known(log, operation, tells=report_loss)
            if log.lost:
                known.tell()
            try:
                reply = await operation.run(command, known)
            except OperationError:
                if operation.applied is not None:  # the change is there, and is put back as any other
                    self._meet(operation, operation.applied.history)
                    self._note(operation, log, command.decode(operation.applied))
                raise
            self._meet(operation, reply.history)
            result = command.decode(reply)
            told = result.session if isinstance(result, Reading) else result
            if doubts and self._journal.is_outdated(log, told.position, told.history):
                doubts -= 1
                operation.doubt()
                continue  # the server that took over is asked; of a change that it has, that is a repeat
            if result.log_mismatch:
                await self._reconcile(operation, command.spec)
                continue
            self._note(operation, log, result)
            if isinstance(result, Reading) and not result.is_of_version and again > 1:
                again -= 1  # what is shown to the caller is to be known here, too
            elif isinstance(result, Change) and result.holder:
                await wait_for_turn(operation, result.holder)
            else:
                check_told(operation, result)
                return result

    def _log(self, operation: Operation, spec: SessionSpec) -> SessionLog:
        if not operation.options.repair.max_changes:  # to the others it is as a client in another process
            return self._unkept.setdefault(operation, SessionLog(spec))
        log = self._journal.log(spec)
        log.options = operation.options
        log.is_told |= operation.options.repair.on_loss == "raise"
        return log

    def _note(self, operation: Operation, log: SessionLog, result: _Result) -> None:
        told = result.shown if isinstance(result, (TurnReply, SuspendedTurns)) else result
        if isinstance(told, Change):
            self._note_change(operation, log, told)
        elif isinstance(told, Reading):
            self._note_description(operation, log, told.session)
            if operation.options.repair.max_changes:
                self._keep_snapshot(log, told)
        elif told is not None:
            self._note_description(operation, log, told)

    def _note_change(self, operation: Operation, log: SessionLog, change: Change) -> None:
        entry, expires_at = change.entry, log.expires_at
        is_late = change.history not in self._journal.live  # the reply of a server that was replaced
        if is_late and self._journal.is_outdated(log, change.position, change.history):
            if change.version in log.digests:  # another change was made in its place
                self._lose(operation, log, (change.version,))
                return
            log.history = None  # it is looked at, although it was used since
        if log.spec.ttl_ms and (entry is not None or expires_at is None):  # what changes nothing prolongs nothing
            expires_at = ambient.monotonic() + log.spec.ttl_ms / 1000
        if change.digest:
            log.see(change.position, change.history, expires_at)
            log.retention_ms = None  # the server keeps at least what this process asked for
        if entry is not None and operation.options.repair.max_changes:
            self._journal.keep(log, entry)
            if is_late:
                self._journal.let_wait(log)  # it may be lost by now
                self._meet(operation, change.history)

    def _keep_snapshot(self, log: SessionLog, reading: Reading) -> None:
        session = reading.session
        kept = (snapshot for snapshot in log.snapshots if snapshot.version == session.version)
        if any(snapshot.count >= reading.count for snapshot in kept):
            return
        if session.version and reading.is_of_version:
            self._journal.keep(log, Snapshot.of(reading))

    def _note_description(self, operation: Operation, log: SessionLog, session: Description) -> None:
        expires_at = ambient.monotonic() + session.ttl_ms / 1000 if session.ttl_ms > 0 else None
        log.see(session.position, session.history, expires_at)
        log.retention_ms = session.retention_ms
        if operation.options.repair.max_changes:
            self._journal.learn(log, session.records)  # they are not told again: put back, each needs its id

    async def _reconcile(self, operation: Operation, spec: SessionSpec) -> None:
        """Bring the server and what is known together; one task a session does it, the others wait."""
        lock = self._locks.setdefault(spec.keys.items, asyncio.Lock())
        try:
            async with timeout_at(operation.deadline), lock:
                await self._reconcile_alone(operation, spec)
        except asyncio.TimeoutError as error:
            reason = "the server lost changes that other processes are still putting back"
            raise operation.error(DeadlineExceededError, reason) from error

    async def _reconcile_alone(self, operation: Operation, spec: SessionSpec) -> None:
        missed, hints, pause = NO_POSITION, dict[str, bytes](), 0.0
        had_evicted, known, doubts = False, 0, _MOST_TIMES
        while True:
            command = inspect(spec, hints)
            found = command.decode(await operation.run(command, missed))
            self._meet(operation, found.history)
            if doubts and found.history not in self._journal.live:
                doubts -= 1
                continue  # it came late, and tells of a server that was replaced
            log = self._log(operation, spec)
            had_evicted |= found.lacks_elements
            if found.lacks_log:
                if await self._adopt_elements(operation, log, found):
                    return
                continue
            known = max(known, log.version)  # also of a history that turned out to be deleted: its fence is this one's
            if await self._reconcile_without_replay(operation, log, found, had_evicted=had_evicted):
                return
            hinted, own = [unpack(hint) for hint in found.hints], fragments_of(log, found)
            others_know = found.fence if found.fence > known else 0
            plan = make_plan([*hinted, *own], found, max(log.version, others_know))
            patient = found.fence and found.fence_age_seconds < operation.options.repair.patience_seconds
            if plan.gives_up and (patient or not found.fence):
                # Other processes may know it: leave hints of what is known here, and wait for them.
                await asyncio.sleep(pause * ambient.uniform(0.5, 1))
                pause = min(max(2 * pause, _SHORTEST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS)
                there = set(map(hint_name, hinted))
                missed = log.position
                hints = {hint_name(part): pack(part) for part in own if hint_name(part) not in there}
            elif await self._restore(operation, spec, found, plan):
                self._note_restored(operation, log, found, plan)
                return

    async def _restore(self, operation: Operation, spec: SessionSpec, found: ServerState, plan: Plan) -> bool:
        command = replay_command(spec, found, plan)
        return command.decode(await operation.run(command, found))

    async def _reconcile_without_replay(
        self, operation: Operation, log: SessionLog, found: ServerState, *, had_evicted: bool
    ) -> bool:
        """Adopt the server's history and lift the fence; return False where changes are missing that may come back.

        Where elements were evicted a moment ago, the rest was evicted, too, and not deleted by a client.
        """
        known, late, evicted = log.version, list[LogEntry](), tuple[int, ...]()
        is_deleted = was_deleted(log, found)
        if is_deleted:
            evicted = log.lose_elements(known) if had_evicted else ()
            self._journal.forget(log)
            if found.version:  # another one was begun in its place: from this look on, what that one loses is told
                log.see(found.position, found.history, None)
        if found.lacks_elements:
            self._leave_another_history(operation, log, found)
            return False
        if is_deleted:
            self._lose(operation, log, evicted)
        elif first_divergence(log, found) is not None:
            late = self._abandon(operation, log, found)
        elif max(known, found.fence) > found.version:
            return False
        else:
            log.see(found.position, found.history, log.expires_at)
            if 0 < known < found.evicted_at:
                self._lose(operation, log, log.lose_elements(known))
        try:
            if found.fence and found.fence <= max(known, found.version):
                nothing = Plan(found.position, found.generation, (0, found.length), ())
                await self._restore(operation, log.spec, found, nothing)
            await self._append_late(operation, log, late)
        finally:  # what is not back by now, because one of them was refused or cancelled, is lost
            self._lose(operation, log, tuple(entry.version for entry in late))
        return True

    def _leave_another_history(self, operation: Operation, log: SessionLog, found: ServerState) -> None:
        """Adopt a history that lacks elements, if nothing of the known one is of it: none of that is put back there."""
        is_another = first_divergence(log, found) is not None and not has_beginning(log, found)
        if is_another and operation.options.repair.on_divergence == "report":
            self._abandon(operation, log, found)

    async def _adopt_elements(self, operation: Operation, log: SessionLog, found: ServerState) -> bool:
        """Begin a new log behind the elements that a server has without one; False if they have changed meanwhile.

        They may be of any version, so that nothing is replayed behind them. The new log's versions are above all that
        were made before: no process takes its changes for older ones. Repeats of those find that ids are missing.
        """
        known = log.version
        version = max(known, found.fence) + _UNKNOWN_CHANGES
        position = LogPosition(version, chain(log.position.digest, new_operation_id()))
        if not await self._restore(operation, log.spec, found, Plan(position, version, (0, found.length), ())):
            return False
        had_history = log.history
        self._journal.forget(log)
        log.see(position, found.history, None)
        if known and had_history != found.history:  # the server may have lost changes before
            self._lose(operation, log, (known,))
        return True

    def _abandon(self, operation: Operation, log: SessionLog, found: ServerState) -> list[LogEntry]:
        """Adopt the history that was begun in place of the known one; return the entries to put behind it."""
        there = {id_: version for version, id_ in found.ids.items()}
        diverges_at = first_divergence(log, found) or 0
        lost = [version for version, id_ in log.ids.items() if version >= diverges_at and id_ not in there]
        lost += given_up(log, found, diverges_at)
        if not lost and log.version not in log.ids:
            lost.append(log.version)  # all that is known of it is its digest
        late = list[LogEntry]()
        if operation.options.repair.on_divergence == "append":
            # A published turn may have been delivered again, and have run again, where its loss was not known.
            may_follow = (entry for entry in log.entries.values() if entry.appends and not entry.turn)
            late = sorted((entry for entry in may_follow if entry.version in lost), key=lambda entry: entry.version)
        kept = [entry for entry in log.entries.values() if there.get(entry.id) == entry.version]
        self._journal.forget(log)
        for entry in kept:  # they were put back behind other changes than before
            self._journal.keep(log, replace(entry, digest=found.digests[entry.version]))
        log.see(found.position, found.history, None)
        self._lose(operation, log, tuple(sorted({*lost} - {entry.version for entry in late})))
        return late

    async def _append_late(self, operation: Operation, log: SessionLog, late: list[LogEntry]) -> None:
        """Append entries to the history that was begun without them, and take from the list what is there."""
        spec, number = replace(log.spec, confirmation=None), len(late)  # a shortfall would count as the operation's own
        try:
            while late:
                entry = late[0]
                command = append(spec, entry.edit.push if entry.edit else (), operation_id=entry.id)
                change = command.decode(await operation.run(command, NO_POSITION))
                if change.log_mismatch:  # lost again meanwhile
                    break
                if change.holder:
                    await wait_for_turn(operation, change.holder)
                    continue
                self._note_change(operation, log, change)
                del late[0]
        finally:
            if len(late) < number:
                operation.span.restored(number - len(late))

    def _note_restored(self, operation: Operation, log: SessionLog, found: ServerState, plan: Plan) -> None:
        records = {record.version: record for record in plan.records}
        lost = {version for version in plan.missing if version <= log.version}
        if plan.lacks_elements:
            lost.update(log.lose_elements(found.version))
        own = [entry for version, entry in log.entries.items() if version > found.version and version not in lost]
        now_there = ((entry, records.get(entry.version, entry.record).id) for entry in own)
        replaced = {entry.version for entry, id_ in now_there if id_ not in (entry.id, b"")}
        if replaced:  # by the changes of a process that went on from another primary
            self._journal.forget(log)
        log.see(plan.position, found.history, log.expires_at)
        if plan.gives_up and operation.options.repair.max_changes:
            for entry in own:  # behind a no-op entry, the same change has another digest
                if entry.version in log.entries and entry.version in records:
                    log.entries[entry.version] = replace(entry, digest=records[entry.version].digest)
            noops = [LogEntry(r.version, r.id, r.digest, ListEdit()) for r in plan.records if is_noop(r.id)]
            self._journal.abandon(log, noops)
        count = plan.position.version - found.version - len(plan.missing) - plan.gives_up
        if count or (found.lacks_elements and not plan.lacks_elements):
            operation.span.restored(max(count, 1))
        self._lose(operation, log, tuple(sorted(lost | replaced)))

    def _lose(self, operation: Operation, log: SessionLog, versions: tuple[int, ...]) -> None:
        if versions:
            if log.is_told:
                log.lost = tuple(sorted({*log.lost, *versions}))
            operation.span.lost(versions)

    def _meet(self, operation: Operation, history: ReplicationHistory) -> None:
        self._sweep.note(history, len(self.executor.locator.failovers), operation.span)

    async def _check(self, log: SessionLog, cause: OperationSpan) -> bool:
        spec, topology = log.spec, self.executor.locator.topology
        if (lock := self._locks.get(spec.keys.items)) is not None:  # an operation on it, or a look, is doing that
            async with lock:
                pass
            if self._journal.is_settled(log):
                return True
        span = OperationSpan("check", topology, spec.session_id, spec.show_id, cause=cause)
        operation = self.executor.begin(span, changes=False, options=log.options)
        try:
            await self._reconcile(operation, spec)
        except OperationError as error:  # what is refused is left to the session's next operation
            span.finish(error)
            return not isinstance(error, DeadlineExceededError)
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()
        return True
