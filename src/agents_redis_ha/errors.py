"""What can go wrong, and what state the data is in afterwards.

    AgentsRedisError
    ├── ConfigurationError          the configuration cannot work; nothing was sent
    ├── InvalidItemError            an item is not JSON; nothing was sent
    ├── ConflictError               another writer changed the session first; nothing was added
    ├── ClosedError                 the session or store was closed; nothing was sent
    ├── InvalidResultError          what a turn was answered with is not small JSON; the turn goes on
    ├── TurnNotFoundError           no turn of this id waits to be claimed; nothing was run
    ├── TurnMismatchError           there is a turn of this id with another message; nothing was run
    ├── TurnCancelledError          the turn was cancelled by another one, for good; nothing was run
    └── OperationError              an operation failed; `outcome` says what became of it
        ├── DeadlineExceededError   the retry deadline passed
        ├── ConnectionsClosedError  the connections were closed meanwhile
        ├── AuthenticationFailedError
        ├── PermissionDeniedError   the ACL user lacks a command or the key pattern
        ├── TLSError                certificate, host name or plain text against a TLS port
        ├── NotPrimaryError         a replica where a primary was expected
        ├── WrongTopologyError      the servers are of another topology than configured
        ├── PrimaryNotFoundError    no Sentinel knows the service
        ├── UnconfirmedError        stored, but on fewer replicas (or disks) than asked for
        ├── HistoryLostError        the servers lost confirmed changes that cannot be put back
        ├── OutcomeLostError        the server evicted what would tell the outcome, or what was popped
        ├── TurnBusyError           another turn has the session
        ├── TurnLostError           the session was given to another turn, or changed; nothing of the turn is stored
        ├── UnsupportedFormatError  another version of this library wrote the session
        ├── WrongKeyTypeError       a key of this session holds another type
        └── ServerRefusedError      the server refused for another permanent reason

A message names the operation, the topology, the node, the state of the data and what to do. It never holds a
password, a URL, an item or a raw session id.
"""

from __future__ import annotations

import enum
from typing import Any

__all__ = [
    "AgentsRedisError",
    "AuthenticationFailedError",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionsClosedError",
    "DeadlineExceededError",
    "HistoryLostError",
    "InvalidItemError",
    "InvalidResultError",
    "NotPrimaryError",
    "OperationError",
    "Outcome",
    "OutcomeLostError",
    "PermissionDeniedError",
    "PrimaryNotFoundError",
    "ServerRefusedError",
    "TLSError",
    "TurnBusyError",
    "TurnCancelledError",
    "TurnLostError",
    "TurnMismatchError",
    "TurnNotFoundError",
    "UnconfirmedError",
    "UnsupportedFormatError",
    "WrongKeyTypeError",
    "WrongTopologyError",
    "lost_in_words",
]


class Outcome(str, enum.Enum):
    """What became of a failed operation's change."""

    NOT_APPLIED = "not_applied"
    """The change is not there and will not appear; it is safe to send it again."""
    APPLIED = "applied"
    """The change is there, but less safely than was asked for; do not send it again."""
    UNKNOWN = "unknown"
    """The change may be there, or may still appear; read before sending it again."""


class AgentsRedisError(Exception):
    """Root of every error that this package raises."""


class ConfigurationError(AgentsRedisError, ValueError):
    """The configuration cannot work. Nothing was sent.

    Attributes:
        field: The dotted name of the offending field, such as ``tls.check_hostname``.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, str]]:
        return type(self), (self.field, self.reason)


class InvalidItemError(AgentsRedisError, ValueError):
    """An item cannot be stored as a JSON object. Nothing of its batch was sent.

    Attributes:
        index: Position of the item in its batch, counted from 0.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"item {index} of the batch cannot be stored: {reason}; nothing was sent")
        self.index = index
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidItemError], tuple[int, str]]:
        return type(self), (self.index, self.reason)


class ConflictError(AgentsRedisError):
    """The session has another version than the caller expected: another writer changed it first. Nothing was added.

    Attributes:
        expected: The version that it was to have.
        version: The version that it has.
    """

    def __init__(self, expected: int, version: int) -> None:
        super().__init__(
            f"the session has version {version}, not {expected} as expected: another writer changed it; "
            "nothing was added now. Read the session before you decide what to add"
        )
        self.expected = expected
        self.version = version

    def __reduce__(self) -> tuple[type[ConflictError], tuple[int, int]]:
        return type(self), (self.expected, self.version)


class ClosedError(AgentsRedisError, RuntimeError):
    """The session or store was closed before this call. Nothing was sent."""


class InvalidResultError(AgentsRedisError, ValueError):
    """What a turn was to be answered with is no JSON, or too large. The turn goes on, and is not answered."""


class TurnMismatchError(AgentsRedisError, ValueError):
    """There is a turn of this id with another message: two requests have one id. Nothing was run or stored."""


class TurnNotFoundError(AgentsRedisError, LookupError):
    """No turn of this id waits to be claimed: it was never suspended, was forgotten, or goes on. Nothing was run."""


class TurnCancelledError(AgentsRedisError):
    """The turn was cancelled by another one (``if_busy``), for good. Nothing was run.

    What it had saved is in the history (``interrupt``) or was dropped (``rollback``).
    """


class OperationError(AgentsRedisError):
    """An operation on a session failed.

    Attributes:
        outcome: Whether the change is absent for certain, is there, or may be there.
        operation: The operation's name, such as ``append``.
        topology: ``standalone``, ``sentinel`` or ``cluster``.
        node: ``host:port`` of the node that was asked last, or None if none was found.
        attempts: How often it was tried, counted from 1.
    """

    hint = ""

    def __init__(
        self,
        reason: str,
        *,
        operation: str,
        topology: str,
        outcome: Outcome,
        node: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.operation = operation
        self.topology = topology
        self.outcome = outcome
        self.node = node
        self.attempts = attempts

    def __str__(self) -> str:
        where = f"{self.topology} node {self.node}" if self.node else self.topology
        state = {
            Outcome.NOT_APPLIED: "the data is unchanged by it",
            Outcome.APPLIED: "its change is stored on the primary: do not send it again",
            Outcome.UNKNOWN: "its change may or may not be stored: read the session before sending it again",
        }[self.outcome]
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.operation} failed on {where} after {times}: {self.reason}; {state}.{hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by their args; the keyword-only fields travel as state.
        return _rebuild, (type(self), self.reason, self.__dict__.copy())


def _rebuild(kind: type[OperationError], reason: str, state: dict[str, object]) -> OperationError:
    error = kind.__new__(kind, reason)
    error.args = (reason,)
    error.__dict__.update(state)
    return error


class DeadlineExceededError(OperationError, TimeoutError):
    """No attempt succeeded within ``retry.deadline_seconds``. `outcome` says whether one may have been applied."""

    hint = "Raise retry.deadline_seconds above the failover time of your servers if a failover was under way."


class ConnectionsClosedError(OperationError):
    """The store or the shared connections were closed while the operation was under way; see `outcome`."""

    hint = "Let operations end before closing what they run on."


class AuthenticationFailedError(OperationError):
    """The server did not accept the user name or password; `outcome` covers earlier attempts of the operation."""

    hint = "Check username and password (for Sentinels: sentinel.username and sentinel.password)."


class PermissionDeniedError(OperationError):
    """The ACL user may not do this; `outcome` covers earlier attempts of the operation."""

    hint = "docs/topologies.md lists the ACL rule that a session needs."


class TLSError(OperationError):
    """No trusted TLS connection could be made. The data is unchanged."""

    hint = "Check tls.ca_file, tls.check_hostname and whether the port speaks TLS."


class NotPrimaryError(OperationError):
    """The configured standalone server is a replica. The data is unchanged."""

    hint = "Point the configuration at the primary, or at the Sentinels."


class WrongTopologyError(OperationError):
    """The servers are not of the configured topology. The data is unchanged."""

    hint = "Use the scheme (topology) that fits the servers: redis, redis+sentinel or redis+cluster."


class PrimaryNotFoundError(OperationError):
    """The Sentinels answered, but none knows the service. The data is unchanged."""

    hint = "Check service_name against SENTINEL MASTERS."


class UnconfirmedError(OperationError):
    """Before the deadline, fewer replicas (or disks) had the change than ``durability`` asks for.

    The change is on the primary. The message says on how many replicas it is too. A failover may drop it.
    """

    hint = "Check the replicas (SessionStore.health), or lower durability.replicas or set on_shortfall to degrade."


class HistoryLostError(OperationError):
    """The servers lost changes that had been confirmed, and no process could put all of them back.

    Raised once for each loss, by the next operation of this process on the session. That operation was not applied; if
    an attempt of it had left before the loss, its outcome is ``unknown``. The next call goes on from what is stored.

    Attributes:
        versions: The versions of the session that are lost, counted from 1.
    """

    hint = "Read the session, and repeat what is missing if you can; docs/guarantees.md names the causes."

    def __init__(self, reason: str, *, versions: tuple[int, ...], **details: Any) -> None:
        super().__init__(reason, **details)
        self.versions = versions


def lost_in_words(versions: tuple[int, ...]) -> str:
    """Return what `HistoryLostError` says: the number of lost changes, and the first few ranges of their versions."""
    ranges: list[list[int]] = []
    for version in versions:
        if ranges and version == ranges[-1][1] + 1:
            ranges[-1][1] = version
        else:
            ranges.append([version, version])
    named = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:8])
    changes = "1 change" if len(versions) == 1 else f"{len(versions)} changes"
    return f"the servers lost {changes} that had been confirmed (versions {named}{', …' if len(ranges) > 8 else ''})"


class OutcomeLostError(OperationError):
    """The server has evicted what would tell an operation's outcome.

    With outcome ``unknown``, an earlier attempt may have been applied; it is not sent again, since it could be stored
    twice. With ``applied``, the change is there, and what it returned (an item that was popped) is gone.
    """

    hint = "Read the session before going on, and set the servers' maxmemory-policy to noeviction."


class TurnBusyError(OperationError):
    """Another turn has the session. What failed with it has changed nothing, as far as its ``outcome`` says."""

    hint = "Wait for the turn that has the session, or take it over (ha_turn's if_busy)."


class TurnLostError(OperationError):
    """The turn was taken over or cancelled by another one, or the session was changed, or expired, after its lease.

    Nothing of this attempt is stored. Where another turn has interrupted it, the rounds that it had saved are.
    """

    hint = "Begin the turn again under its id: that tells what became of it."


class UnsupportedFormatError(OperationError):
    """The session's keys have a format that this version of the library does not know. They are unchanged."""

    hint = "Use the version of openai-agents-redis-ha that wrote the session, or a newer one."


class WrongKeyTypeError(OperationError):
    """A key of this session holds a value of another type. The data is unchanged."""

    hint = "Another application writes under this key prefix: choose another key_prefix."


class ServerRefusedError(OperationError):
    """The server refused the operation for a reason that another attempt cannot change."""
