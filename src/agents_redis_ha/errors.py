"""What can go wrong, and what state the data is in afterwards.

    AgentsRedisError
    ├── ConfigurationError          the configuration cannot work; nothing was sent
    ├── InvalidItemError            an item is not JSON; nothing was sent
    ├── ClosedError                 the session or store was closed; nothing was sent
    └── OperationError              an operation failed; `outcome` says what became of it
        ├── DeadlineExceededError   the retry deadline passed
        ├── AuthenticationFailedError
        ├── PermissionDeniedError   the ACL user lacks a command or the key pattern
        ├── TLSError                certificate, host name or plain text against a TLS port
        ├── NotPrimaryError         a replica where a primary was expected
        ├── WrongTopologyError      the servers are of another topology than configured
        ├── PrimaryNotFoundError    no Sentinel knows the service
        ├── WrongKeyTypeError       a key of this session holds another type
        └── ServerRefusedError      the server refused for another lasting reason

A message names the operation, the topology, the node, the state of the data and what to do. It never holds a
password, a URL, an item or a raw session id.

The second half of this module is the one table from redis-py's errors to what the retry loop does with them.
"""

from __future__ import annotations

import asyncio
import enum
import re
import ssl
from dataclasses import dataclass
from typing import Final

from redis import exceptions as redis_errors

__all__ = [
    "READ_ONLY",
    "AgentsRedisError",
    "AttemptError",
    "AuthenticationFailedError",
    "ClosedError",
    "ConfigurationError",
    "DeadlineExceededError",
    "InvalidItemError",
    "NotPrimaryError",
    "OperationError",
    "Outcome",
    "PermissionDeniedError",
    "PrimaryNotFoundError",
    "ServerRefusedError",
    "TLSError",
    "Verdict",
    "WrongKeyTypeError",
    "WrongTopologyError",
    "classify",
]


class Outcome(str, enum.Enum):
    """What became of a failed operation's change."""

    NOT_APPLIED = "not_applied"
    """The change is not there and will not appear; it is safe to send it again."""
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


class ClosedError(AgentsRedisError, RuntimeError):
    """The session or store was closed before this call. Nothing was sent."""


class OperationError(AgentsRedisError):
    """An operation on a session failed.

    Attributes:
        outcome: Whether the change is absent for certain, or may be there.
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


class AuthenticationFailedError(OperationError):
    """The server did not accept the user name or password. The data is unchanged."""

    hint = "Check username and password (for Sentinels: sentinel.username and sentinel.password)."


class PermissionDeniedError(OperationError):
    """The ACL user may not do this. The data is unchanged."""

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


class WrongKeyTypeError(OperationError):
    """A key of this session holds a value of another type. The data is unchanged."""

    hint = "Another application writes under this key prefix: choose another key_prefix."


class ServerRefusedError(OperationError):
    """The server refused the operation for a reason that another attempt cannot change."""


@dataclass(frozen=True)
class Verdict:
    """What the retry loop does with one failed attempt.

    Attributes:
        retry: Whether another attempt can help.
        applied: Whether the attempt may have been executed all the same.
        refresh: Whether to find out anew which node to ask before the next attempt.
        reason: A short word for telemetry (low cardinality).
        error: What to raise when it is given up at once.
    """

    retry: bool
    applied: bool
    refresh: bool
    reason: str
    error: type[OperationError] = DeadlineExceededError


class AttemptError(Exception):
    """One attempt failed: the redis-py error, where, and whether the request had left. Internal.

    Attributes:
        cause: The error as redis-py raised it.
        node: ``host:port`` of the node, or None if none could be found.
        sent: Whether any byte of the request may have reached the server.
        lasting: An error class to raise at once where the topology knows that waiting cannot help.
    """

    def __init__(
        self,
        cause: BaseException,
        *,
        node: str | None,
        sent: bool,
        lasting: type[OperationError] | None = None,
    ) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.node = node
        self.sent = sent
        self.lasting = lasting


def _refused(reason: str, *, refresh: bool = False) -> Verdict:
    """Refused before execution: certainly not applied, worth another attempt."""
    return Verdict(retry=True, applied=False, refresh=refresh, reason=reason)


def _lasting(reason: str, error: type[OperationError]) -> Verdict:
    return Verdict(retry=False, applied=False, refresh=False, reason=reason, error=error)


READ_ONLY: Final = "read_only"
"""The reason of a verdict on a server that is a replica."""

# Error replies, by their first word (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
# redis-py has classes for some of them and a plain ResponseError for the others; the word is in both.
BY_FIRST_WORD: Final[dict[str, Verdict]] = {
    "ASK": _refused("ask", refresh=True),
    "BUSY": _refused("busy"),
    "CLUSTERDOWN": _refused("cluster_down", refresh=True),
    "LOADING": _refused("loading", refresh=True),
    "MASTERDOWN": _refused("primary_down", refresh=True),
    "MISCONF": _refused("misconf"),
    "MOVED": _refused("moved", refresh=True),
    "NOREPLICAS": _refused("no_replicas", refresh=True),
    "OOM": _refused("out_of_memory"),
    "READONLY": _refused(READ_ONLY, refresh=True),
    "TRYAGAIN": _refused("try_again"),
    "NOAUTH": _lasting("authentication", AuthenticationFailedError),
    "WRONGPASS": _lasting("authentication", AuthenticationFailedError),
    "NOPERM": _lasting("permission", PermissionDeniedError),
    "WRONGTYPE": _lasting("wrong_type", WrongKeyTypeError),
}

# By class, the most derived first: `isinstance` decides in this order.
BY_TYPE: Final[tuple[tuple[type[BaseException], Verdict], ...]] = (
    (redis_errors.AuthenticationWrongNumberOfArgsError, BY_FIRST_WORD["WRONGPASS"]),
    (redis_errors.AuthenticationError, BY_FIRST_WORD["WRONGPASS"]),
    (redis_errors.AuthorizationError, BY_FIRST_WORD["NOPERM"]),
    (redis_errors.ExternalAuthProviderError, _refused("credential_provider")),
    (redis_errors.NoPermissionError, BY_FIRST_WORD["NOPERM"]),
    (redis_errors.BusyLoadingError, BY_FIRST_WORD["LOADING"]),
    (redis_errors.MaxConnectionsError, _refused("pool_exhausted")),
    (redis_errors.ReadOnlyError, BY_FIRST_WORD["READONLY"]),
    (redis_errors.MovedError, BY_FIRST_WORD["MOVED"]),
    (redis_errors.AskError, BY_FIRST_WORD["ASK"]),
    (redis_errors.TryAgainError, BY_FIRST_WORD["TRYAGAIN"]),
    (redis_errors.MasterDownError, BY_FIRST_WORD["MASTERDOWN"]),
    (redis_errors.ClusterDownError, BY_FIRST_WORD["CLUSTERDOWN"]),
    (redis_errors.OutOfMemoryError, BY_FIRST_WORD["OOM"]),
    (redis_errors.InvalidResponse, Verdict(True, True, True, "protocol")),
    (redis_errors.TimeoutError, Verdict(True, True, True, "timeout")),
    (redis_errors.ConnectionError, Verdict(True, True, True, "connection")),
    (asyncio.TimeoutError, Verdict(True, True, True, "timeout")),
    (EOFError, Verdict(True, True, True, "connection")),
    (OSError, Verdict(True, True, True, "connection")),
    (redis_errors.DataError, _lasting("bad_request", ServerRefusedError)),
)


def classify(cause: BaseException, *, sent: bool) -> Verdict:
    """Return what the retry loop does with an attempt that failed with ``cause``.

    Args:
        cause: The error that redis-py (or the operating system) raised.
        sent: Whether any byte of the request may have reached the server.
    """
    if tls_error(cause) is not None:
        return _lasting("tls", TLSError)
    verdict = _by_message(cause) if isinstance(cause, redis_errors.RedisError) else None
    if verdict is None:
        verdict = next((v for kind, v in BY_TYPE if isinstance(cause, kind)), None)
    if verdict is None:
        # An error reply comes before the execution, unless a script names itself in it: it may have got half way.
        half_way = not isinstance(cause, redis_errors.ResponseError) or "user_script" in str(cause)
        verdict = Verdict(False, half_way, False, "refused", ServerRefusedError)
    if verdict.applied and not sent:
        return Verdict(verdict.retry, False, verdict.refresh, verdict.reason, verdict.error)
    return verdict


# Before 7.0 an error inside a script arrives as "Error running script (…): @user_script:7: @user_script: 7: -OOM …".
_INNER_WORD = re.compile(r"@user_script: ?\d+: -?([A-Z]+)\b")


def _by_message(cause: redis_errors.RedisError) -> Verdict | None:
    """Find the verdict for an error reply by its text; redis-py strips the first word of some classes."""
    text = str(cause)
    word = text.partition(" ")[0].rstrip(":")
    if word in BY_FIRST_WORD and isinstance(cause, redis_errors.ResponseError):
        return BY_FIRST_WORD[word]
    if isinstance(cause, redis_errors.ResponseError):
        inner = _INNER_WORD.findall(text)
        if inner and inner[-1] in BY_FIRST_WORD:
            return BY_FIRST_WORD[inner[-1]]
        if "unauthenticated" in text:  # "Protocol error: unauthenticated multibulk length", before any NOAUTH
            return BY_FIRST_WORD["NOAUTH"]
        if "Script killed by user" in text:
            return _refused("script_killed")
    if "max number of clients reached" in text:
        return _refused("max_clients")
    if text.startswith("No connection available"):
        return _refused("pool_exhausted")
    return None


def tls_error(cause: BaseException) -> ssl.SSLError | None:
    """Return the TLS error behind ``cause``: redis-py wraps it in a plain ConnectionError."""
    seen: BaseException | None = cause
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and not isinstance(
            seen, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        ):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
