"""One function a script: each returns a command, which does its work in one round trip.

A changing command carries an id, drawn when it is made. Sent again under this id it changes nothing more, and
answers as the first time.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis.utils import HIREDIS_AVAILABLE

from .change import Change, ListEdit, LogEntry, Status
from .command import REPLICATION_INFO, Argument, Command, Reply, SessionSpec, load_script
from .state import Description, Member, Reading, ServerState

__all__ = [
    "ChangeCommand",
    "append",
    "clear",
    "info",
    "inspect",
    "new_operation_id",
    "pop",
    "read",
    "replace",
    "restore",
]


# Changes that a reading names at most: what a failover drops is a few seconds' work.
_READ_CHANGES = 128
_INSPECTED_CHANGES = 4096


def new_operation_id() -> bytes:
    """Return a new operation id: 96 random bits as 16 characters, which keeps ``ops`` a compact listpack."""
    return base64.urlsafe_b64encode(os.urandom(12))


@dataclass(frozen=True, slots=True)
class ChangeCommand(Command[Change]):
    """A command that changes the session, once.

    Attributes:
        id: Drawn once for this command.
        edit: What it does to the list; None if that cannot be told beforehand.
    """

    changes: ClassVar[bool] = True

    id: bytes = b""
    edit: ListEdit | None = None

    def decode(self, reply: Reply) -> Change:
        """Return what the script did: it replies {status, version, id of the change before, result}."""
        code, version, *rest = reply.value
        status, entry = Status(code), None
        if rest:
            position = reply.position
            follows = status is Status.APPLIED and position.version == version - 1
            previous_id = rest[0] or (position.id if follows else b"")
            entry = LogEntry(version, self.id, previous_id, self.edit, rest[1] if len(rest) > 1 else None)
        return Change(status, version, reply.history, entry)


def append(
    spec: SessionSpec,
    items: Sequence[bytes],
    *,
    expected_version: int | None = None,
    operation_id: bytes | None = None,
) -> ChangeCommand:
    """Add items to the end, all or none.

    Args:
        spec: The session.
        items: The elements to add.
        expected_version: None means any; otherwise a session with another version is left alone (CONFLICT).
        operation_id: The id of a change that is made again; None means a new one.
    """
    arguments = (_expected(expected_version), *items)
    return _change("append", spec, arguments, ListEdit(push=tuple(items)), operation_id, len(items))


def pop(spec: SessionSpec, at: tuple[int, bytes] | None = None, *, operation_id: bytes | None = None) -> ChangeCommand:
    """Remove the newest element; the result is that element.

    Args:
        spec: The session.
        at: None for the newest element, else the index from the end (-1 is the newest) and the element that must
            stand there (CONFLICT otherwise).
        operation_id: As in `append`.
    """
    arguments = ("", b"") if at is None else (at[0], _sha1(at[1]))
    edit = ListEdit(keep=(0, -1)) if at is None or at[0] == -1 else None
    return _change("pop", spec, arguments, edit, operation_id)


def clear(spec: SessionSpec, *, operation_id: bytes | None = None) -> ChangeCommand:
    """Remove all items; the result is their number."""
    return _change("clear", spec, (), ListEdit(keep=(0, 0)), operation_id)


def replace(
    spec: SessionSpec,
    items: Sequence[bytes],
    *,
    expected_version: int | None = None,
    keep: tuple[int, int] = (0, 0),
    operation_id: bytes | None = None,
) -> ChangeCommand:
    """Replace the elements outside ``keep`` by ``items`` behind it.

    Args:
        spec: The session.
        items: What to put behind the kept elements.
        expected_version: As in `append`.
        keep: First index to keep and the first behind it, from 0; an empty range keeps nothing.
        operation_id: As in `append`.
    """
    arguments = (_expected(expected_version), *keep, *items)
    return _change("replace", spec, arguments, ListEdit(keep, tuple(items)), operation_id)


def _change(
    name: str,
    spec: SessionSpec,
    arguments: tuple[Any, ...],
    edit: ListEdit | None,
    operation_id: bytes | None,
    batch_size: int | None = None,
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
    )


def _expected(version: int | None) -> int | str:
    return "" if version is None else version  # as the scripts read it


def _sha1(element: bytes) -> bytes:
    return hashlib.sha1(element, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class _InfoCommand(Command[Description]):
    def decode(self, reply: Reply) -> Description:
        return _description(reply.value, reply)


@dataclass(frozen=True, slots=True)
class _ReadCommand(Command[Reading]):
    separator: bytes = b""

    def decode(self, reply: Reply) -> Reading:
        if self.trailing:
            session, elements = reply.value, reply.trailing[0]
            count, pieces = len(elements), elements
        else:
            session, count, pieces = reply.value
        return Reading(_description(session, reply), count, self.separator.join(pieces), self.separator)


def info(spec: SessionSpec) -> Command[Description]:
    """Describe the session."""
    return _InfoCommand("info", load_script("info"), spec, (_READ_CHANGES,), key_count_on_tryagain=2)


def read(spec: SessionSpec, newest: int) -> Command[Reading]:
    """Read the ``newest`` elements (0 means all).

    With hiredis, LRANGE behind a small script is the fastest: Lua takes longer to join 1,000 elements than hiredis to
    read them. Without it, redis-py reads one long reply several times faster than 1,000 short ones. The version is that
    before the elements or of them, so that a replacement at this version never passes over a change.
    """
    separator = b",%d," % int.from_bytes(os.urandom(7), "big")
    if HIREDIS_AVAILABLE:
        elements = ("LRANGE", spec.keys.items, -newest if newest else 0, -1)
        arguments: tuple[Argument, ...] = (_READ_CHANGES,)
        return _ReadCommand(
            "read",
            load_script("info"),
            spec,
            arguments,
            key_count_on_tryagain=2,
            trailing=(elements,),
            separator=separator,
        )
    arguments = (_READ_CHANGES, newest, separator)
    return _ReadCommand("read", load_script("read"), spec, arguments, key_count_on_tryagain=2, separator=separator)


def _description(fields: Sequence[Any], reply: Reply) -> Description:
    length, ttl_ms, *rest, members = fields
    created, updated, version, generation, fence = (int(value) if value else None for value in rest)
    return Description(
        length,
        ttl_ms,
        created,
        updated,
        version or 0,
        generation or 0,
        fence or 0,
        _members(members),
        reply.history,
        reply.position,
    )


def _members(flat: Sequence[bytes]) -> tuple[Member, ...]:
    """Return what ZREVRANGEBYSCORE … WITHSCORES replied."""
    return tuple((int(version), member) for member, version in zip(flat[::2], flat[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class _InspectCommand(Command[ServerState]):
    def decode(self, reply: Reply) -> ServerState:
        version, generation, length, fence, age_ms, members, hints = reply.value
        return ServerState(
            version,
            generation,
            length,
            int(fence or 0),
            age_ms / 1000,
            _members(members),
            tuple(hints[1::2]),
            reply.history,
        )


def inspect(spec: SessionSpec, hints: Mapping[str, bytes]) -> Command[ServerState]:
    """Ask what a server has of a session, and raise a write fence there if it misses the position that is sent.

    Args:
        spec: The session.
        hints: What the caller knows of the missing changes, packed, by a name: for other processes that miss them.
    """
    fields = [field for hint in hints.items() for field in hint]
    arguments = (spec.retention_ms, _INSPECTED_CHANGES, *fields)
    return _InspectCommand(
        "inspect", load_script("inspect"), spec, arguments, trailing=(REPLICATION_INFO,), allow_trailing_errors=True
    )


@dataclass(frozen=True, slots=True)
class _RestoreCommand(Command[bool]):
    def decode(self, reply: Reply) -> bool:
        return bool(reply.value[0] == Status.APPLIED)


def restore(
    spec: SessionSpec,
    *,
    fence: int,
    version: int,
    generation: int,
    keep: tuple[int, int],
    push: Sequence[bytes],
    members: Iterable[Member],
    abandons: bool,
) -> Command[bool]:
    """Put lost changes back, and lift the write fence; False without a change if the session has another position.

    It waits for replicas once, whatever they answer: its shortfall must not count as one of the user's operation.

    Args:
        spec: The session.
        fence: The fence that is answered; a higher one stays.
        version: The version that the session has afterwards.
        generation: Its generation then.
        keep: The elements to keep: the first index and the one behind the last.
        push: The elements to put behind them.
        members: What to add to ``ops``.
        abandons: Whether changes are given up with it.
    """
    ids = [field for member in members for field in member]
    arguments = (fence, version, generation, *keep, int(abandons), len(ids) // 2, *ids, *push)
    wait = (spec.confirmation.command,) if spec.confirmation and ids else ()
    return _RestoreCommand(
        "restore", load_script("restore"), spec, arguments, spec.head(b""), trailing=wait, allow_trailing_errors=True
    )
