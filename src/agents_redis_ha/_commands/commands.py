"""One function a script: each returns a command, which does its work in one round trip.

A changing command carries an id, drawn when it is made. Sent again under this id it changes nothing more, and
answers as the first time.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis.utils import HIREDIS_AVAILABLE

from .. import _ambient as ambient
from .change import (
    NO_POSITION,
    Change,
    ListEdit,
    LogEntry,
    LogPosition,
    OpsRecord,
    PublishedTurn,
    Status,
    published_unseen,
)
from .command import REPLICATION_INFO, Argument, Command, Reply, SessionSpec, load_script
from .state import Description, Reading, ServerState, turn_that_holds

__all__ = [
    "READ_CHANGES",
    "ChangeCommand",
    "append",
    "clear",
    "description_of",
    "info",
    "inspect",
    "new_operation_id",
    "pop",
    "read",
    "replace",
    "restore",
]


READ_CHANGES = 128
"""Changes that a reading names at most, for a repeat to find their ids where the reading puts them back.

What a failover drops is a few seconds' work.
"""

_STATUS = tuple(Status)  # by its number; the lookup of an enumeration takes ten times as long
# What is kept as the result of a pop that removed nothing, for its repeats.
_NOTHING_REMOVED = {b"": Status.UNCHANGED, b"?": Status.UNSURE}
_DIGEST_BYTES = 12  # of a note in ops; the number of elements follows


def new_operation_id() -> bytes:
    """Return a new operation id: 96 random bits as 16 characters, which keeps ``ops`` a compact listpack."""
    return base64.urlsafe_b64encode(ambient.random_bytes(12))


@dataclass(slots=True)
class ChangeCommand(Command[Change]):
    """A command that changes the session, once.

    Attributes:
        id: Drawn once for this command.
        edit: What it does to the list; None if that cannot be told beforehand.
        has_result: Whether the server keeps a result for a repeat.
        repeats: Whether it follows attempts of which nothing is known here.
    """

    changes: ClassVar[bool] = True

    id: bytes = b""
    edit: ListEdit | None = None
    has_result: bool = False
    repeats: bool = False

    def decode(self, reply: Reply) -> Change:
        """Return what the script did: it replies {status, version, digest, result}."""
        code, version, *rest = reply.value
        if not rest or code == Status.BUSY:
            return Change(_STATUS[code], version, b"", reply.history, holder=b"".join(rest))
        digest, result = rest[0], rest[1] if len(rest) > 1 else None
        if result in _NOTHING_REMOVED:
            entry = LogEntry(version, self.id, digest, ListEdit(), result)
            return Change(_NOTHING_REMOVED[result], version, digest, reply.history, entry)
        entry = LogEntry(version, self.id, digest, self.edit, result)
        lost = self.has_result and result is None
        return Change(_STATUS[code], version, digest, reply.history, entry, lost)


def append(
    spec: SessionSpec,
    items: Sequence[bytes],
    *,
    expected: LogPosition | None = None,
    operation_id: bytes | None = None,
) -> ChangeCommand:
    """Add items to the end, all or none.

    Args:
        spec: The session.
        items: The elements to add.
        expected: None means any; otherwise a session whose log ends elsewhere is left alone (CONFLICT). Without a
            digest only the version counts.
        operation_id: The id of a change that is made again; None means a new one.
    """
    arguments = (*_expected(expected), *items)
    return _change("append", spec, arguments, ListEdit(push=tuple(items)), operation_id, len(items))


def pop(
    spec: SessionSpec,
    at: tuple[int, Description] | None = None,
    *,
    acknowledged: LogPosition | None = None,
    operation_id: bytes | None = None,
) -> ChangeCommand:
    """Remove the newest element; the result is that element.

    Args:
        spec: The session.
        at: None for the newest element. Else the index from the end (-1 is the newest) of an element that the caller
            has read, and the session then (CONFLICT if it was changed since); there is no result.
        acknowledged: The position of an earlier pop whose result has arrived: no repeat will ask for it.
        operation_id: As in `append`.
    """
    where: tuple[Argument, ...] = ("", 0, b"", 0)
    if at is not None:
        where = (at[0], *at[1].position, at[1].length)
    edit = ListEdit(keep=(0, -1)) if at is None or at[0] == -1 else None
    arguments = (*where, *_expected(acknowledged))
    return _change("pop", spec, arguments, edit, operation_id, has_result=at is None)


def clear(spec: SessionSpec, *, operation_id: bytes | None = None) -> ChangeCommand:
    """Remove all items, and the results and drafts of turns; the result is the number of items."""
    command = _change("clear", spec, (spec.turn_retention_ms,), ListEdit(keep=(0, 0)), operation_id, has_result=True)
    command.key_count, command.key_count_on_tryagain = 4, 3
    return command


def replace(
    spec: SessionSpec,
    items: Sequence[bytes],
    *,
    expected: LogPosition | None = None,
    keep: tuple[int, int] = (0, 0),
    operation_id: bytes | None = None,
) -> ChangeCommand:
    """Replace the elements outside ``keep`` by ``items`` behind it.

    Args:
        spec: The session.
        items: What to put behind the kept elements.
        expected: As in `append`.
        keep: First index to keep and the first behind it, from 0; an empty range keeps nothing.
        operation_id: As in `append`.
    """
    arguments = (*_expected(expected), *keep, *items)
    return _change("replace", spec, arguments, ListEdit(keep, tuple(items)), operation_id)


def _change(
    name: str,
    spec: SessionSpec,
    arguments: tuple[Any, ...],
    edit: ListEdit | None,
    operation_id: bytes | None,
    batch_size: int | None = None,
    *,
    has_result: bool = False,
) -> ChangeCommand:
    id_ = operation_id or new_operation_id()
    return ChangeCommand(
        name=name,
        script=load_script(name),
        spec=spec,
        arguments=arguments,
        head=spec.head(id_),
        confirmation=spec.confirmation,
        batch_size=batch_size,
        id=id_,
        edit=edit,
        has_result=has_result,
        repeats=operation_id is not None,
    )


def _expected(position: LogPosition | None) -> tuple[Argument, ...]:
    return ("", b"") if position is None else position  # as the scripts read it


@dataclass(slots=True)
class _InfoCommand(Command[Description]):
    def decode(self, reply: Reply) -> Description:
        return description_of(reply.value, reply)


@dataclass(slots=True)
class _ReadCommand(Command[Reading]):
    separator: bytes = b""

    def decode(self, reply: Reply) -> Reading:
        if self.trailing:
            value, (elements, digest_then) = reply.value, reply.trailing
            count, pieces = len(elements), elements
        else:
            value, count, pieces = reply.value
        session = description_of(value, reply)
        is_of_version = not self.trailing or (digest_then or b"") == session.digest
        return Reading(session, count, self.separator.join(pieces), self.separator, is_of_version)


def info(spec: SessionSpec) -> Command[Description]:
    """Describe the session."""
    return _InfoCommand("info", load_script("info"), spec, (READ_CHANGES,), key_count_on_tryagain=2)


def read(spec: SessionSpec, newest: int) -> Command[Reading]:
    """Read the ``newest`` elements (0 means all).

    With hiredis, LRANGE behind a small script is the fastest: Lua takes longer to join 1,000 elements than hiredis to
    read them. Without it, redis-py reads one long reply several times faster than 1,000 short ones. The version is that
    before the elements or of them, so that a replacement at this version never passes over a change. A server may serve
    others in between, if the request arrives in parts: the digest behind the elements tells.
    """
    separator = b",%d," % int.from_bytes(ambient.random_bytes(7), "big")
    if HIREDIS_AVAILABLE:
        elements = ("LRANGE", spec.keys.items, -newest if newest else 0, -1)
        arguments: tuple[Argument, ...] = (READ_CHANGES,)
        return _ReadCommand(
            "read",
            load_script("info"),
            spec,
            arguments,
            key_count_on_tryagain=2,
            trailing=(elements, ("HGET", spec.keys.meta, "digest")),
            separator=separator,
        )
    arguments = (READ_CHANGES, newest, separator)
    return _ReadCommand("read", load_script("read"), spec, arguments, key_count_on_tryagain=2, separator=separator)


def description_of(fields: Sequence[Any], reply: Reply) -> Description:
    """Return what reading.lua's `description` says."""
    length, ttl_ms, created, updated, version, generation, digest, retention, mismatch, changes, *holder = fields
    return Description(
        length,
        ttl_ms,
        _number(created),
        _number(updated),
        version,
        generation,
        digest,
        _number(retention),
        bool(mismatch),
        _records(changes, version),
        reply.history,
        turn_that_holds(holder[0], int(holder[1])) if holder else None,
    )


def _number(value: bytes | int) -> int | None:
    return int(value) if value else None


def _records(newest: Sequence[bytes], version: int) -> tuple[OpsRecord, ...]:
    """Return what the newest elements of ``ops`` say: in turn ids and notes, maybe with the header before them."""
    flat = newest[len(newest) % 2 :]
    first = version - len(flat) // 2 + 1
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return tuple(OpsRecord(at, id_, note[:_DIGEST_BYTES]) for at, (id_, note) in enumerate(pairs, first))


def _before(changes: Sequence[bytes]) -> LogPosition:
    """Return what the header of ``ops`` says, in front of an even number of elements."""
    version, _, digest = changes[0].rstrip(b"!").partition(b":") if len(changes) % 2 else (b"", b"", b"")
    return LogPosition(int(version), digest) if version.isdigit() else NO_POSITION


@dataclass(slots=True)
class _InspectCommand(Command[ServerState]):
    def decode(self, reply: Reply) -> ServerState:
        version, generation, digest, length, expected_length, fence, age_ms, evicted_at, changes, hints = reply.value
        return ServerState(
            version,
            generation,
            digest,
            length,
            expected_length,
            int(fence or 0),
            age_ms / 1000,
            int(evicted_at or 0),
            _records(changes, version),
            tuple(hints[1::2]),
            reply.history,
            _before(changes),
        )


def inspect(spec: SessionSpec, hints: Mapping[str, bytes]) -> Command[ServerState]:
    """Ask what a server has of a session, and raise a write fence there if it misses the position that is sent.

    Args:
        spec: The session.
        hints: What the caller knows of the missing changes, packed, by a name: for other processes that miss them.
    """
    fields = [field for hint in hints.items() for field in hint]
    arguments = (spec.retention_ms, *fields)
    return _InspectCommand(
        "inspect", load_script("inspect"), spec, arguments, trailing=(REPLICATION_INFO,), allow_trailing_errors=True
    )


@dataclass(slots=True)
class _RestoreCommand(Command[bool]):
    def decode(self, reply: Reply) -> bool:
        return bool(reply.value[0] == Status.APPLIED)


def restore(
    spec: SessionSpec,
    found: ServerState,
    *,
    position: LogPosition,
    generation: int,
    keep: tuple[int, int],
    push: Sequence[bytes],
    records: Sequence[OpsRecord],
    results: Mapping[int, bytes],
    turns: Sequence[PublishedTurn] = (),
    abandons: bool,
    evicted: bool,
) -> Command[bool]:
    """Put lost changes back, and lift the write fence; False without a change if the session has another position.

    It waits for replicas once, whatever they answer: its shortfall must not count as one of the user's operation.

    Args:
        spec: The session.
        found: As it was inspected; a higher fence than it had then stays.
        position: The end of the log afterwards.
        generation: The session's generation then.
        keep: The elements to keep: the first index and the one behind the last.
        push: The elements to put behind them.
        records: What to add to ``ops``: one of each version behind the one that was found.
        results: What repeats return, by version.
        turns: The turns that were published with them, and `WIPED` for each clear, in order.
        abandons: Whether changes are given up with it.
        evicted: Whether elements are, that the server has evicted.
    """
    length = max(keep[1] - keep[0], 0) + len(push)
    changes = [field for record in records for field in (record.id, record.digest)]
    if changes:
        changes[-1] += b"%d" % length
    kept = [field for result in results.items() for field in result]
    is_whole = any(turn.id for turn in turns)  # the record of a turn is put back with it
    turns = (*published_unseen(records, turns, spec.turn_retention_ms), *turns)
    numbers = (found.length, found.fence, *position, generation, *keep, int(abandons), int(evicted))
    published = [field for turn in turns for field in turn]
    arguments = (*numbers, len(records), *changes, len(results), *kept, len(turns), *published, *push)
    wait = (spec.confirmation.command,) if spec.confirmation and (changes or push) else ()
    return _RestoreCommand(
        "restore",
        load_script("restore"),
        spec,
        arguments,
        spec.head(b""),
        key_count=4 if turns else 3,
        key_count_on_tryagain=3 if turns and not is_whole else None,
        trailing=wait,
        allow_trailing_errors=True,
    )
