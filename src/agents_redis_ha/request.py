"""A script on the keys of one session, as it is sent to a node, and when its change counts as confirmed.

The scripts are in ``lua/``, one file each, behind a common prelude.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any, Literal, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError, TryAgainError

from .config import HAConfig
from .connections.node import Node, Tenure
from .connections.wire import Argument
from .keys import SessionKeys, session_keys
from .settings import DurabilityConfig
from .verdicts import DEMOTED, AttemptError, ShortfallError, classify

__all__ = [
    "APPLIED",
    "BEHIND",
    "CONFLICT",
    "NOTHING",
    "REPEAT",
    "UNSURE",
    "Confirmation",
    "Known",
    "Knows",
    "Request",
    "Run",
    "Subject",
    "script",
]

# First element of every changing script's reply (prelude.lua).
REPEAT, APPLIED, CONFLICT, UNSURE, BEHIND = 0, 1, 2, 3, 4


Known: TypeAlias = "tuple[int, bytes]"
"""A version and the id of the change that made it."""

Knows: TypeAlias = "Callable[[], Known]"

NOTHING: Known = (0, b"")


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


@dataclass(frozen=True)
class Confirmation:
    """WAIT or WAITAOF behind a change, in the same write: how a change is known to be on replicas or on disk.

    Attributes:
        replicas: So many replicas must have it.
        fsync: Whether on disk, the primary's own too.
        timeout_ms: Longest wait of the server for them.
    """

    replicas: int
    fsync: bool
    timeout_ms: int

    @classmethod
    def of(cls, durability: DurabilityConfig) -> Confirmation | None:
        """Return what is asked for; None if the primary alone is enough."""
        if not durability.replicas and not durability.fsync:
            return None
        return cls(durability.replicas, durability.fsync, max(1, round(durability.timeout_seconds * 1000)))

    @property
    def command(self) -> tuple[Argument, ...]:
        """The command; its timeout is below the connection's, so that its answer arrives."""
        if self.fsync:
            return "WAITAOF", 1, self.replicas, self.timeout_ms
        return "WAIT", self.replicas, self.timeout_ms

    def shortfall(self, answer: Any) -> str:
        """Return what is missing, in words; empty if nothing is."""
        local, replicas = answer if self.fsync else (0, answer)
        where = "on disk" if self.fsync else "in memory"
        parts = [] if not self.fsync or local else ["not on the primary's disk"]
        if replicas < self.replicas:
            parts.append(f"{where} on {replicas} of {self.replicas} replicas")
        return f"within {self.timeout_ms} ms the change was {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Subject:
    """A session, as every change of it needs it.

    Attributes:
        keys: Its keys.
        session_id: Its id.
        show_id: Whether the id may be shown.
        ttl_ms: Milliseconds until it expires after a change; 0 leaves its expiry as it is.
        retention_ms: How long an operation's id is remembered.
        confirmation: When a change is confirmed; None means when the primary has made it.
    """

    keys: SessionKeys
    session_id: str
    show_id: Literal["hashed", "plain", "off"] = "hashed"
    ttl_ms: int = 0
    retention_ms: int = 120_000
    confirmation: Confirmation | None = None

    @classmethod
    def of(cls, config: HAConfig, session_id: str) -> Subject:
        """Return the session of this id under a configuration.

        Raises:
            ConfigurationError: The id cannot be used.
        """
        keys = session_keys(config.key_prefix, session_id)
        ttl_ms, retention_ms = (config.ttl or 0) * 1000, config.op_retention_seconds * 1000
        confirmation = Confirmation.of(config.durability)
        return cls(keys, session_id, config.trace_session_id, ttl_ms, retention_ms, confirmation)

    def head(self, operation_id: bytes) -> tuple[Argument, ...]:
        """Return the first arguments of every script that changes a session; what the caller knows follows."""
        return operation_id, self.retention_ms, self.ttl_ms, self.session_id.encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Request:
    """One script on the keys of one session, ready to be sent to whichever node holds them.

    Attributes:
        script: What to run.
        keys: On which session.
        arguments: Its ARGV behind the following two.
        knows: Returns the latest version that the caller knows, asked anew for each attempt; it stands behind the head.
        head: What comes first.
        key_count: How many of the session's keys it touches: items, meta, ops, in this order. What a script does not
            need must not be declared: in a slot that is being migrated, one missing key holds up the request.
        spare_key: How many it can do with where a missing one holds it up.
        behind: Commands on the same keys that go out behind it, in the same write.
        lenient: Whether they may fail, and stand as errors among the replies then.
        confirmation: How it is confirmed, behind these.
        knew: What `knows` returned last.
        node: Who replied last.
        sent: Whether it may have reached a server since this was last set to False.
        on_sent: Called with the node's name each time that it has left.
    """

    script: Script
    keys: SessionKeys
    arguments: tuple[Argument, ...]
    knows: Knows
    head: tuple[Argument, ...] = ()
    key_count: int = 3
    spare_key: int | None = None
    behind: tuple[tuple[Argument, ...], ...] = ()
    lenient: bool = False
    confirmation: Confirmation | None = None
    knew: Known = NOTHING
    node: Node | None = None
    sent: bool = False
    on_sent: Callable[[str], None] | None = None

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
        try:
            return await self._send(node, asking, 1 if only_first_key else self.key_count)
        except AttemptError as error:
            if self.spare_key is None or only_first_key or not isinstance(error.cause, TryAgainError):
                raise
        return await self._send(node, asking, self.spare_key)

    async def _send(self, node: Node, asking: bool, key_count: int) -> Any:
        keys = (self.keys.items, self.keys.meta, self.keys.ops)[:key_count]
        self.knew = self.knows()
        tail = (len(keys), *keys, *self.head, *self.knew, *self.arguments)
        try:
            return await self._call(node, ("EVALSHA", self.script.sha, *tail), asking)
        except AttemptError as error:
            if not isinstance(error.cause, NoScriptError):
                raise
        return await self._call(node, ("EVAL", self.script.source, *tail), asking)

    async def _call(self, node: Node, command: Sequence[Argument], asking: bool) -> Any:
        commands = (command, *self.behind)
        if self.confirmation is not None:
            commands = (*commands, self.confirmation.command)
        if asking:  # it holds for one command
            commands = tuple(part for each in commands for part in (("ASKING",), each))
        on_sent = self.on_sent and partial(self.on_sent, node.name)
        replies = await node.call(*commands, on_send=self._leaves, on_sent=on_sent)
        if asking:
            replies = replies[1::2]
        if node.retired:  # while it answered: it may have been replaced before that
            raise AttemptError(RedisConnectionError("another node took over"), node=node.name, sent=True)
        self.node = node
        if self.confirmation is not None and not isinstance(replies[0], ResponseError):
            self._confirm(self.confirmation, replies[0], replies.pop(), node)
        for reply in replies[:1] if self.lenient else replies:
            if isinstance(reply, ResponseError):
                raise AttemptError(reply, node=node.name, sent=True) from reply
        return replies if self.behind else replies[0]

    def _confirm(self, confirmation: Confirmation, reply: Any, answer: Any, node: Node) -> None:
        if reply[0] not in (APPLIED, REPEAT):
            return
        if isinstance(answer, ResponseError):
            there = classify(answer, sent=True) != DEMOTED
            raise AttemptError(answer, node=node.name, sent=True, applied=there) from answer
        shortfall = confirmation.shortfall(answer)
        if shortfall:
            raise AttemptError(
                ShortfallError(shortfall, reply, confirmation.timeout_ms / 1000),
                node=node.name,
                sent=True,
                applied=True,
            )

    @property
    def tenure(self) -> Tenure:
        """Who replied, and in which tenure; only after a reply."""
        if self.node is None:
            raise RuntimeError("nobody replied")
        return self.node.name, self.node.replication_id

    def _leaves(self) -> None:
        self.sent = True


Run: TypeAlias = Callable[[Request], Awaitable[Any]]
"""Sends a request to the node that holds its keys, again if need be, and returns the reply."""
