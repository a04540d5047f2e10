"""One typed function a script: what can be done to a session, each in one round trip.

A changing operation carries an id that the caller drew once; sent again under the same id it changes nothing more and
answers as the first time. The scripts are in ``lua/``, one file each, behind a common prelude.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

from redis.exceptions import NoScriptError, ResponseError
from redis.utils import HIREDIS_AVAILABLE

from .connections.node import Argument, Node
from .keys import SessionKeys
from .verdicts import AttemptError

__all__ = [
    "Change",
    "Description",
    "Policy",
    "Popped",
    "Reading",
    "Request",
    "append",
    "clear",
    "info",
    "new_operation_id",
    "pop",
    "read",
    "replace",
]

# First element of every changing script's reply (prelude.lua).
REPEAT, APPLIED, CONFLICT, UNSURE = 0, 1, 2, 3


@dataclass(frozen=True)
class Script:
    """A Lua script as Redis knows it: its source and the SHA-1 that EVALSHA takes."""

    name: str
    source: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """Return the script of ``lua/{name}.lua`` behind the prelude."""
    folder = resources.files(__package__) / "lua"
    source = b"\n".join((folder / f"{part}.lua").read_bytes() for part in ("prelude", name))
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


@dataclass
class Request:
    """One script on the keys of one session, ready to be sent to whichever node holds them.

    Attributes:
        script: What to run.
        keys: On which session.
        arguments: Its ARGV.
        key_count: How many of the session's keys it touches: items, meta, ops, in this order. What a script does not
            need must not be declared: in a slot that is being migrated, one missing key holds up the request.
        behind: Commands on the same keys that go out behind it, in the same write.
        sent: Whether it may have reached a server since this was last set to False.
    """

    script: Script
    keys: SessionKeys
    arguments: tuple[Argument, ...]
    key_count: int = 3
    behind: tuple[tuple[Argument, ...], ...] = ()
    sent: bool = False

    async def send(self, node: Node, *, asking: bool = False, only_first_key: bool = False) -> Any:
        """Return the script's reply from a node, or with commands behind it the list of all replies.

        EVALSHA first; a node that does not know the script (a fresh replica, after SCRIPT FLUSH) is sent the source
        once, which also teaches it.

        Args:
            node: The node to ask.
            asking: Send ASKING before it, on the same connection (cluster: the slot is being imported there).
            only_first_key: Declare the first key alone; the scripts derive the others (see prelude.lua).

        Raises:
            AttemptError: No reply, or an error reply.
        """
        keys = (self.keys.items, self.keys.meta, self.keys.ops)[: 1 if only_first_key else self.key_count]
        tail = (len(keys), *keys, *self.arguments)
        try:
            return await self._call(node, ("EVALSHA", self.script.sha, *tail), asking)
        except AttemptError as error:
            if not isinstance(error.cause, NoScriptError):
                raise
        return await self._call(node, ("EVAL", self.script.source, *tail), asking)

    async def _call(self, node: Node, command: Sequence[Argument], asking: bool) -> Any:
        commands = (command, *self.behind)
        if asking:  # it holds for one command
            commands = tuple(part for each in commands for part in (("ASKING",), each))
        replies = (await node.call(*commands, on_send=self._leaves))[1 if asking else 0 :: 2 if asking else 1]
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise AttemptError(reply, node=node.name, sent=True) from reply
        return replies if self.behind else replies[0]

    def _leaves(self) -> None:
        self.sent = True


Run: TypeAlias = Callable[[Request], Awaitable[Any]]
"""Sends a request to the node that holds its keys, again if need be, and returns the reply."""


def new_operation_id() -> bytes:
    """Return a new operation id: 96 random bits as 16 characters, which keeps ``ops`` a compact listpack."""
    return base64.urlsafe_b64encode(os.urandom(12))


@dataclass(frozen=True)
class Policy:
    """What every change of a session sends along.

    Attributes:
        session_id: The session's id, as stored in ``meta``.
        ttl_ms: Milliseconds until the session expires; 0 leaves its expiry as it is.
        retention_ms: How long the operation's id is remembered.
    """

    session_id: bytes
    ttl_ms: int
    retention_ms: int

    def head(self, operation_id: bytes) -> tuple[Argument, ...]:
        """Return the first arguments of every script that changes and may begin a session."""
        return operation_id, self.retention_ms, self.ttl_ms, self.session_id


@dataclass(frozen=True)
class Change:
    """What a changing operation did.

    Attributes:
        version: The version that it made, or (conflict) the one that the session has.
        repeated: It had been applied by an earlier attempt already.
        conflict: It was not applied, since the session is not as the caller saw it.
        removed: Number of elements removed (clear).
    """

    version: int
    repeated: bool = False
    conflict: bool = False
    removed: int = 0


@dataclass(frozen=True)
class Popped(Change):
    """What a pop did.

    Attributes:
        element: The removed element, or None if there was none.
        unsure: Nothing was removed, since the newest element does not look like an item.
    """

    element: bytes | None = None
    unsure: bool = False


@dataclass(frozen=True)
class Reading:
    """The newest elements of a session.

    Attributes:
        version: The session's version, 0 if it does not exist.
        length: Number of elements that the session has.
        count: Number of elements that were read.
        joined: The elements, with the separator between two of them.
        separator: ``,<number>,`` with a number drawn at random for this reading.
    """

    version: int
    length: int
    count: int
    joined: bytes
    separator: bytes


@dataclass(frozen=True)
class Description:
    """What `info` found; times in milliseconds since 1970 by the server's clock, None where there is no session."""

    length: int
    ttl_ms: int
    created_ms: int | None
    updated_ms: int | None
    version: int
    generation: int


async def append(run: Run, keys: SessionKeys, policy: Policy, operation_id: bytes, items: Sequence[bytes]) -> Change:
    """Add items to the end, all or none."""
    arguments = (*policy.head(operation_id), *items)
    status, version = await run(Request(script("append"), keys, arguments))
    return Change(version, repeated=status == REPEAT)


async def read(run: Run, keys: SessionKeys, newest: int) -> Reading:
    """Return the ``newest`` elements (0 means all).

    With hiredis, LRANGE behind a small script is the fastest: Lua takes longer to join 1,000 elements than hiredis to
    read them. Without it, redis-py reads one long reply several times faster than 1,000 short ones. The version is that
    before the elements or of them, so that a replacement at this version never passes over a change.
    """
    separator = b",%d," % int.from_bytes(os.urandom(7), "big")
    if HIREDIS_AVAILABLE:
        behind = (("LRANGE", keys.items, -newest if newest else 0, -1),)
        found, elements = await run(Request(script("info"), keys, (), key_count=2, behind=behind))
        return Reading(int(found[4] or 0), found[0], len(elements), separator.join(elements), separator)
    version, length, count, pieces = await run(Request(script("read"), keys, (newest, separator), key_count=2))
    return Reading(version, length, count, separator.join(pieces), separator)


async def pop(
    run: Run, keys: SessionKeys, policy: Policy, operation_id: bytes, at: tuple[int, bytes] | None = None
) -> Popped:
    """Remove the newest element and return it.

    Args:
        run: Sends the request.
        keys: The session's keys.
        policy: What every change sends along.
        operation_id: Drawn once for this operation.
        at: None for the newest element, else the index from the end (-1 is the newest) and the element that must
            stand there.
    """
    index, digest = ("", b"") if at is None else (at[0], _sha1(at[1]))
    arguments = (*policy.head(operation_id), index, digest)
    status, version, *rest = await run(Request(script("pop"), keys, arguments))
    return Popped(
        version,
        repeated=status == REPEAT,
        conflict=status == CONFLICT,
        unsure=status == UNSURE,
        element=rest[0] if rest else None,
    )


async def clear(run: Run, keys: SessionKeys, policy: Policy, operation_id: bytes) -> Change:
    """Remove all items."""
    status, version, removed = await run(Request(script("clear"), keys, (operation_id, policy.retention_ms)))
    return Change(version, repeated=status == REPEAT, removed=removed)


async def replace(
    run: Run,
    keys: SessionKeys,
    policy: Policy,
    operation_id: bytes,
    items: Sequence[bytes],
    *,
    expected_version: int | None = None,
    keep: tuple[int, int] = (0, 0),
) -> Change:
    """Replace the elements outside ``keep`` by ``items`` behind it, if the session has the expected version.

    Args:
        run: Sends the request.
        keys: The session's keys.
        policy: What every change sends along.
        operation_id: Drawn once for this operation.
        items: What to put behind the kept elements.
        expected_version: None means any; otherwise a session with another version is left alone (conflict).
        keep: First index to keep and the first behind it, from 0; an empty range keeps nothing.
    """
    expected = "" if expected_version is None else expected_version
    arguments = (*policy.head(operation_id), expected, *keep, *items)
    status, version = await run(Request(script("replace"), keys, arguments))
    return Change(version, repeated=status == REPEAT, conflict=status == CONFLICT)


async def info(run: Run, keys: SessionKeys) -> Description:
    """Describe the session."""
    length, ttl_ms, *rest = await run(Request(script("info"), keys, (), key_count=2))
    created, updated, version, generation = (int(value) if value else None for value in rest)
    return Description(length, ttl_ms, created, updated, version or 0, generation or 0)


def _sha1(element: bytes) -> bytes:
    return hashlib.sha1(element, usedforsecurity=False).hexdigest().encode()
