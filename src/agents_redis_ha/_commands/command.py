"""A command is a value: one script on the keys of one session, with its id, and how its reply is read.

It is executed downwards: recovery adds the log position, the retry loop sends it, the locator finds the node, the node
writes it. Sent again, it is the same command under the same id. The scripts are the ``.lua`` files beside this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from .._config import DurabilityConfig, HAConfig
from .._storage import SessionKeys, session_keys
from .change import NO_POSITION, LogPosition, ReplicationHistory

__all__ = [
    "PARTS",
    "REPLICATION_INFO",
    "Argument",
    "Command",
    "Confirmation",
    "EarlierAttempts",
    "Reply",
    "Script",
    "SessionSpec",
    "load_script",
    "read_source",
]

Argument: TypeAlias = "bytes | str | int"

_NO_ATTEMPT = LogPosition(2**53, b"")  # beyond it, Lua's numbers are not exact

_Result_co = TypeVar("_Result_co", covariant=True)

REPLICATION_INFO: tuple[Argument, ...] = ("INFO", "replication")
"""Asks a server for its replication id."""


@dataclass(frozen=True)
class Script:
    """A Lua script as Redis knows it: its source and the SHA-1 that EVALSHA takes."""

    name: str
    source: bytes
    sha: bytes


PARTS: Mapping[str, tuple[str, ...]] = {
    "append": (),
    "pop": ("editing",),
    "clear": ("editing", "turning"),
    "replace": ("editing",),
    "restore": ("editing", "turning"),
    "inspect": ("reading", "editing"),
    "info": ("reading",),
    "read": ("reading",),
    "turn_begin": ("reading", "turning"),
    "turn_save": ("turning",),
    "turn_finish": ("editing", "turning"),
    "turn_end": ("turning",),
    "turn_list": ("reading", "turning"),
}
"""What stands between the prelude and a script: each function costs it 0.16 µs, whether it is called or not."""


def read_source(part: str) -> bytes:
    """Return what is in ``{part}.lua``."""
    return (resources.files(__package__) / f"{part}.lua").read_bytes()


@cache
def load_script(name: str) -> Script:
    """Return the script of ``{name}.lua`` behind the prelude and the parts that it needs."""
    source = b"".join(map(read_source, ("prelude", *PARTS[name], name)))
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


@dataclass(frozen=True)
class Confirmation:
    """WAIT or WAITAOF behind a change, in the same write: how a change is known to be on replicas or on disk.

    Attributes:
        replicas: So many replicas must have it.
        fsync: Whether on disk, the primary's own too.
        timeout_ms: Longest wait of the server for them, in milliseconds.
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
class SessionSpec:
    """A session, with what every change of it needs.

    Attributes:
        keys: Its keys.
        session_id: Its id.
        show_id: Whether the id may be shown.
        ttl_ms: Milliseconds until it expires after a change; 0 leaves its expiry as it is.
        retention_ms: Milliseconds for which an operation's id is remembered.
        confirmation: When a change is confirmed; None means when the primary has made it.
        turn_retention_ms: Milliseconds for which a turn is remembered.
    """

    keys: SessionKeys = field(repr=False)
    session_id: str = field(repr=False)
    show_id: Literal["hashed", "plain", "off"] = "hashed"
    ttl_ms: int = 0
    retention_ms: int = 120_000
    confirmation: Confirmation | None = None
    turn_retention_ms: int = 86_400_000

    @classmethod
    def of(cls, config: HAConfig, session_id: str) -> SessionSpec:
        """Return the session of this id under a configuration.

        Raises:
            ConfigurationError: The id cannot be used.
        """
        keys = session_keys(config.key_prefix, session_id)
        ttl_ms, retention_ms = (config.ttl or 0) * 1000, config.op_retention_seconds * 1000
        confirmation = Confirmation.of(config.durability)
        turn_retention_ms = config.turn_retention_seconds * 1000
        return cls(keys, session_id, config.trace_session_id, ttl_ms, retention_ms, confirmation, turn_retention_ms)

    def head(self, operation_id: bytes) -> tuple[Argument, ...]:
        """Return the first arguments of every script that changes a session; position and attempts follow."""
        return operation_id, self.retention_ms, self.ttl_ms, self.session_id.encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class EarlierAttempts:
    """What is known of the attempts to make a change before the present one.

    Attributes:
        since: The lowest position that was known when one was made: none of them made this version or an older one.
            Above every version if there was none.
        may_be_applied: Whether one of them may have been applied.
    """

    since: LogPosition = _NO_ATTEMPT
    may_be_applied: bool = False

    def since_this_one(self, position: LogPosition) -> LogPosition:
        """Return the same as of an attempt that is made now, with this position."""
        if self.since.version <= position.version:
            return self.since
        # What is known went back: the log began anew. Behind evicted keys it may hold elements of the one before.
        return NO_POSITION if self.may_be_applied else position


@dataclass(slots=True)
class Reply:
    """What a node answered to one command.

    Attributes:
        value: What the script returned.
        trailing: The replies to the commands behind it.
        history: Which server's data that is.
        position: The log position that was sent along.
    """

    value: Any = field(repr=False)
    trailing: list[Any] = field(repr=False)
    history: ReplicationHistory
    position: LogPosition


@dataclass(slots=True)
class Command(Generic[_Result_co]):
    """One script on the keys of one session.

    Attributes:
        name: The operation's name, as users and spans are told: ``append``.
        script: What to run.
        spec: On which session.
        arguments: Its ARGV behind the log position.
        head: Its ARGV before the log position; what has one is told of earlier attempts, too.
        key_count: How many of the session's keys it touches: items, meta, ops, turns, in this order. What a script does
            not need must not be declared: in a slot that is being migrated, one missing key holds up the request.
        key_count_on_tryagain: How many it can do with where a missing one holds it up; None means all of them.
        trailing: Commands on the same keys that go out behind it, in the same write.
        allow_trailing_errors: Whether these may fail; they stand as errors among the replies then.
        confirmation: How it is confirmed, behind these; None if the primary's reply is enough.
        batch_size: How many items it adds; None where the telemetry shows no number.
    """

    changes: ClassVar[bool] = False
    """Whether it changes the session: a failed read has no outcome to worry about."""

    name: str
    script: Script = field(repr=False)
    spec: SessionSpec
    arguments: tuple[Argument, ...] = field(repr=False)
    head: tuple[Argument, ...] = field(default=(), repr=False)
    key_count: int = 3
    key_count_on_tryagain: int | None = None
    trailing: tuple[tuple[Argument, ...], ...] = field(default=(), repr=False)
    allow_trailing_errors: bool = False
    confirmation: Confirmation | None = None
    batch_size: int | None = None

    def decode(self, reply: Reply) -> _Result_co:
        """Return what the reply says."""
        raise NotImplementedError

    def on_wire(
        self, position: LogPosition, earlier: EarlierAttempts, *, key_count: int, with_source: bool = False
    ) -> list[Sequence[Argument]]:
        """Return the Redis commands to write: the script, what trails it, and WAIT or WAITAOF at the end.

        Args:
            position: What the caller knows of the session's log.
            earlier: What became of earlier attempts.
            key_count: How many keys to declare; the scripts derive the others (see prelude.lua).
            with_source: EVAL in place of EVALSHA, for a node that does not know the script.
        """
        keys = self.spec.keys
        declared = (keys.items, keys.meta, keys.ops, keys.turns)[:key_count]
        verb, which = ("EVAL", self.script.source) if with_source else ("EVALSHA", self.script.sha)
        attempts: tuple[Argument, ...] = ()
        if self.head:
            since = earlier.since_this_one(position)
            attempts = (since.version, b"!" + since.digest if earlier.may_be_applied else b"")
        script = (verb, which, key_count, *declared, *self.head, *position, *attempts, *self.arguments)
        confirmation = () if self.confirmation is None else (self.confirmation.command,)
        return [script, *self.trailing, *confirmation]
