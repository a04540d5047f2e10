"""One typed function a script: what can be done to a session, each in one round trip.

A changing operation carries an id that the caller drew once; sent again under the same id it changes nothing more and
answers as the first time. It also carries the latest version that the caller knows: a server that does not know it has
lost history, and changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.utils import HIREDIS_AVAILABLE

from .connections.node import Tenure
from .connections.wire import Argument
from .journal import OPERATION_ID_BYTES, Effect, Unit
from .request import APPLIED, BEHIND, CONFLICT, REPEAT, UNSURE, Known, Knows, Request, Run, Subject, script

__all__ = [
    "Change",
    "Description",
    "Popped",
    "Reading",
    "append",
    "clear",
    "info",
    "members_of",
    "new_operation_id",
    "pop",
    "read",
    "replace",
]

_Change = TypeVar("_Change", bound="Change")

# Changes that a reading names at most: what a failover drops is a few seconds' work.
_READ_CHANGES = 128


def new_operation_id() -> bytes:
    """Return a new operation id: 96 random bits as 16 characters, which keeps ``ops`` a compact listpack."""
    return base64.urlsafe_b64encode(os.urandom(12))


@dataclass(slots=True)
class Change:
    """What a changing operation did.

    Attributes:
        version: The version that it made, or the one that the session has.
        tenure: Who said so.
        unit: The change as it can be made again; None if nothing was changed.
        repeated: It had been applied by an earlier attempt already.
        conflict: It was not applied, since the session is not as the caller saw it.
        behind: It was not applied, since the server does not know what the caller knows.
    """

    version: int
    tenure: Tenure
    unit: Unit | None = None
    repeated: bool = False
    conflict: bool = False
    behind: bool = False

    @property
    def result(self) -> bytes | None:
        """What the change returned."""
        return self.unit.result if self.unit else None


@dataclass(slots=True)
class Popped(Change):
    """What a pop did; its result is the removed element, None if there was none.

    Attributes:
        unsure: Nothing was removed, since the newest element does not look like an item.
    """

    unsure: bool = False


@dataclass(frozen=True)
class Description:
    """What a session is; times in milliseconds since 1970 by the server's clock, None where there is no session.

    Attributes:
        length: Number of its elements.
        ttl_ms: Milliseconds until it expires; -1 never, -2 there is none.
        created_ms: When it began.
        updated_ms: When it was changed last.
        version: Its version, 0 if there is none.
        generation: Its generation.
        claim: The highest version that somebody misses; 0 if nobody does.
        members: The newest changes, as in ``ops``, back to the version that the caller knew; empty if nothing is new.
        tenure: Who said so.
        knew: What the caller knew.
    """

    length: int
    ttl_ms: int
    created_ms: int | None
    updated_ms: int | None
    version: int
    generation: int
    claim: int
    members: tuple[tuple[int, bytes], ...]
    tenure: Tenure
    knew: Known

    @property
    def is_behind(self) -> bool:
        """Whether it is not what the caller knew, or others say that something is missing."""
        version, id_ = self.knew
        if self.claim or self.version < version:
            return True
        there = [member for at, member in self.members if at == version and len(member) == OPERATION_ID_BYTES]
        return bool(id_ and there and id_ not in there)


@dataclass(frozen=True)
class Reading:
    """The newest elements of a session.

    Attributes:
        session: The session that they are of.
        count: Number of elements that were read.
        joined: The elements, with the separator between two of them.
        separator: ``,<number>,`` with a number drawn at random for this reading.
    """

    session: Description
    count: int
    joined: bytes
    separator: bytes

    @property
    def version(self) -> int:
        """The session's version, 0 if it does not exist."""
        return self.session.version

    @property
    def length(self) -> int:
        """Number of elements that the session has."""
        return self.session.length


async def append(
    run: Run,
    subject: Subject,
    operation_id: bytes,
    knows: Knows,
    items: Sequence[bytes],
    *,
    expected_version: int | None = None,
) -> Change:
    """Add items to the end, all or none; to a session that has another version than expected none (conflict)."""
    arguments = (_expected(expected_version), *items)
    return await _change(run, subject, operation_id, knows, "append", arguments, Effect(push=tuple(items)))


async def pop(
    run: Run,
    subject: Subject,
    operation_id: bytes,
    knows: Knows,
    at: tuple[int, bytes] | None = None,
) -> Popped:
    """Remove the newest element and return it.

    Args:
        run: Sends the request.
        subject: The session.
        operation_id: Drawn once for this operation.
        knows: Returns the latest version that the caller knows.
        at: None for the newest element, else the index from the end (-1 is the newest) and the element that must
            stand there.
    """
    arguments = ("", b"") if at is None else (at[0], _sha1(at[1]))
    effect = Effect(keep=(0, -1)) if at is None or at[0] == -1 else None
    return await _change(run, subject, operation_id, knows, "pop", arguments, effect, Popped)


async def clear(run: Run, subject: Subject, operation_id: bytes, knows: Knows) -> Change:
    """Remove all items; the result is their number."""
    return await _change(run, subject, operation_id, knows, "clear", (), Effect(keep=(0, 0)))


async def replace(
    run: Run,
    subject: Subject,
    operation_id: bytes,
    knows: Knows,
    items: Sequence[bytes],
    *,
    expected_version: int | None = None,
    keep: tuple[int, int] = (0, 0),
) -> Change:
    """Replace the elements outside ``keep`` by ``items`` behind it, if the session has the expected version.

    Args:
        run: Sends the request.
        subject: The session.
        operation_id: Drawn once for this operation.
        knows: Returns the latest version that the caller knows.
        items: What to put behind the kept elements.
        expected_version: None means any; otherwise a session with another version is left alone (conflict).
        keep: First index to keep and the first behind it, from 0; an empty range keeps nothing.
    """
    arguments = (_expected(expected_version), *keep, *items)
    return await _change(run, subject, operation_id, knows, "replace", arguments, Effect(keep, tuple(items)))


def _expected(version: int | None) -> int | str:
    return "" if version is None else version  # as the scripts read it


async def _change(
    run: Run,
    subject: Subject,
    operation_id: bytes,
    knows: Knows,
    name: str,
    arguments: Sequence[Argument],
    effect: Effect | None,
    kind: type[_Change] = Change,  # type: ignore[assignment]  # mypy cannot see that the default fits the variable
) -> _Change:
    head = subject.head(operation_id)
    request = Request(script(name), subject.keys, tuple(arguments), knows, head, confirmation=subject.confirmation)
    status, version, *rest = await run(request)
    unit = None
    if rest:
        known = request.knew
        before = rest[0] or (known[1] if status == APPLIED and known[0] == version - 1 else b"")
        unit = Unit(version, operation_id, before, effect, rest[1] if len(rest) > 1 else None)
    flags = {} if status != UNSURE else {"unsure": True}
    return kind(
        version,
        request.tenure,
        unit,
        repeated=status == REPEAT,
        conflict=status == CONFLICT,
        behind=status == BEHIND,
        **flags,
    )


async def read(run: Run, subject: Subject, knows: Knows, newest: int) -> Reading:
    """Return the ``newest`` elements (0 means all).

    With hiredis, LRANGE behind a small script is the fastest: Lua takes longer to join 1,000 elements than hiredis to
    read them. Without it, redis-py reads one long reply several times faster than 1,000 short ones. The version is that
    before the elements or of them, so that a replacement at this version never passes over a change.
    """
    separator = b",%d," % int.from_bytes(os.urandom(7), "big")
    if HIREDIS_AVAILABLE:
        behind = (("LRANGE", subject.keys.items, -newest if newest else 0, -1),)
        request = Request(script("info"), subject.keys, (_READ_CHANGES,), knows, spare_key=2, behind=behind)
        found, elements = await run(request)
        return Reading(_described(found, request), len(elements), separator.join(elements), separator)
    request = Request(script("read"), subject.keys, (_READ_CHANGES, newest, separator), knows, spare_key=2)
    found, count, pieces = await run(request)
    return Reading(_described(found, request), count, separator.join(pieces), separator)


async def info(run: Run, subject: Subject, knows: Knows) -> Description:
    """Describe the session."""
    request = Request(script("info"), subject.keys, (_READ_CHANGES,), knows, spare_key=2)
    return _described(await run(request), request)


def _described(found: Sequence[Any], request: Request) -> Description:
    length, ttl_ms, *rest, members = found
    created, updated, version, generation, claim = (int(value) if value else None for value in rest)
    return Description(
        length,
        ttl_ms,
        created,
        updated,
        version or 0,
        generation or 0,
        claim or 0,
        members_of(members),
        request.tenure,
        request.knew,
    )


def members_of(flat: Sequence[bytes]) -> tuple[tuple[int, bytes], ...]:
    """Return what ZREVRANGEBYSCORE … WITHSCORES replied."""
    return tuple((int(version), member) for member, version in zip(flat[::2], flat[1::2], strict=True))


def _sha1(element: bytes) -> bytes:
    return hashlib.sha1(element, usedforsecurity=False).hexdigest().encode()
