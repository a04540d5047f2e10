"""The one table: an error of redis-py → retry or give up, whether to look for the node anew, applied or not."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as redis_errors

from .errors import (
    AuthenticationFailedError,
    DeadlineExceededError,
    OperationError,
    PermissionDeniedError,
    ServerRefusedError,
    TLSError,
    UnconfirmedError,
    WrongKeyTypeError,
)

__all__ = [
    "BY_FIRST_WORD",
    "BY_TYPE",
    "DEMOTED",
    "READ_ONLY",
    "AttemptError",
    "NoPrimaryError",
    "ShortfallError",
    "TakenOverError",
    "Verdict",
    "classify",
    "tls_error",
]


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


class ShortfallError(Exception):
    """The change is on the primary, but on too few others within the time for them. Internal.

    Attributes:
        reply: What the script replied.
        wait_seconds: How long the server waited for the others.
    """

    def __init__(self, text: str, reply: Any, wait_seconds: float) -> None:
        super().__init__(text)
        self.reply = reply
        self.wait_seconds = wait_seconds


class NoPrimaryError(redis_errors.ConnectionError):
    """Nobody is known to take writes for this session now. Internal."""


class TakenOverError(redis_errors.ConnectionError):
    """The request was cut, because another node took over from the one that owed the reply. Internal."""


class AttemptError(Exception):
    """One attempt failed: the redis-py error, where, and whether the request had left. Internal.

    Attributes:
        cause: The error as redis-py raised it.
        node: ``host:port`` of the node, or None if none could be found.
        sent: Whether any byte of the request may have reached the server.
        lasting: An error class to raise at once where the topology knows that waiting cannot help.
        applied: Whether the change is on the node for certain; what failed came after it.
    """

    def __init__(
        self,
        cause: BaseException,
        *,
        node: str | None,
        sent: bool,
        lasting: type[OperationError] | None = None,
        applied: bool = False,
    ) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.node = node
        self.sent = sent
        self.lasting = lasting
        self.applied = applied


def _refused(reason: str, *, refresh: bool = False) -> Verdict:
    """Refused before execution: certainly not applied, worth another attempt."""
    return Verdict(retry=True, applied=False, refresh=refresh, reason=reason)


def _lasting(reason: str, error: type[OperationError]) -> Verdict:
    return Verdict(retry=False, applied=False, refresh=False, reason=reason, error=error)


DEMOTED: Final = Verdict(retry=True, applied=True, refresh=True, reason="demoted")
"""On a primary that became a replica while a WAIT was under way: the change was there, and may be thrown away."""

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
    "UNBLOCKED": DEMOTED,
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
    (ShortfallError, Verdict(True, True, True, "unconfirmed", UnconfirmedError)),
    (redis_errors.InvalidResponse, Verdict(True, True, True, "protocol")),
    (redis_errors.TimeoutError, Verdict(True, True, True, "timeout")),
    (NoPrimaryError, _refused("no_primary", refresh=True)),
    (TakenOverError, Verdict(True, True, True, "taken_over")),
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
        # Before the request left it is the handshake; afterwards a connection that broke like any other.
        return Verdict(True, True, True, "connection") if sent else _lasting("tls", TLSError)
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
        if "cannot be used with replica instances" in text:  # WAIT, sent behind a script
            return DEMOTED
        if "Script killed by user" in text:
            return _refused("script_killed")
    if "max number of clients" in text:
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
