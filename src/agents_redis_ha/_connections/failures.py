"""The one table: an error of redis-py → retry or give up, whether to look for the node anew, applied or not."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import ssl
from dataclasses import dataclass
from typing import Final

from redis import exceptions as redis_errors

from .._commands import Reply
from ..errors import (
    AuthenticationFailedError,
    DeadlineExceededError,
    OperationError,
    PermissionDeniedError,
    ServerRefusedError,
    TLSError,
    UnconfirmedError,
    UnsupportedFormatError,
    WrongKeyTypeError,
)

__all__ = [
    "BY_FIRST_WORD",
    "BY_TYPE",
    "DEMOTED",
    "READ_ONLY",
    "AttemptError",
    "FailureClass",
    "NoPrimaryError",
    "ShortfallError",
    "TakenOverError",
    "chained",
    "classify",
    "in_words",
    "tls_error",
]

# What errors repeat of a request, keys, items and passwords included ("unknown command `HELLO`, with args beginning
# with: `3` `AUTH` …" says a server before 6.0), and what stands before the host of a URL.
_REPEATED = re.compile(r", with args beginning with.*|(?<=://)[^/\s]*@", re.DOTALL | re.IGNORECASE)
_LONGEST_TEXT = 500


def in_words(error: BaseException) -> str:
    """Return what an error from outside says, in a line, without what it repeats of a request or of a URL.

    Every text of a server, of redis-py or of the system that is shown anywhere goes through here.
    """
    text = _REPEATED.sub("", str(error)).partition("\n")[0].strip()[:_LONGEST_TEXT]
    return text or type(error).__name__


def chained(error: BaseException) -> BaseException | None:
    """Return an error to show below ours in a traceback.

    Returns:
        None if its text, or that of one that a traceback would show with it, is not fit to be shown.
    """
    seen = list[BaseException]()
    shown: BaseException | None = error
    while shown is not None and shown not in seen:
        if _REPEATED.search(str(shown)):
            return None
        seen.append(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return error


@dataclass(frozen=True)
class FailureClass:
    """A class of failures: what the retry loop does about one.

    Attributes:
        retry: Whether another attempt can help.
        may_have_applied: Whether the attempt may have been executed all the same.
        refresh_topology: Whether to find out anew which node to ask before the next attempt.
        reason: A short word for telemetry (low cardinality).
        error: What to raise when it is given up at once.
    """

    retry: bool
    may_have_applied: bool
    refresh_topology: bool
    reason: str
    error: type[OperationError] = DeadlineExceededError


class ShortfallError(Exception):
    """The change is on the primary, but on too few others within the time for them. Internal.

    Attributes:
        wait_seconds: How long the server waited for the others.
    """

    def __init__(self, text: str, wait_seconds: float) -> None:
        super().__init__(text)
        self.wait_seconds = wait_seconds


class NoPrimaryError(redis_errors.ConnectionError):
    """No server is known to take writes for this session now. Internal."""


class TakenOverError(redis_errors.ConnectionError):
    """The request was cut, because another node took over from the one that owed the reply. Internal."""


class AttemptError(Exception):
    """One attempt failed: the redis-py error, where, and whether the request had left. Internal.

    Its text is fit to be shown; that of its cause is not.

    Attributes:
        cause: The error as redis-py raised it.
        node: ``host:port`` of the node, or None if none could be found.
        sent: Whether any byte of the request may have reached the server.
        permanent: An error class to raise at once, where the topology knows that waiting cannot help.
        reply: The node's reply to the change, which is there for certain; what failed came after it. Else None.
    """

    def __init__(
        self,
        cause: BaseException,
        *,
        node: str | None,
        sent: bool,
        permanent: type[OperationError] | None = None,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(in_words(cause))
        self.cause = cause
        self.node = node
        self.sent = sent
        self.permanent = permanent
        self.reply = reply


def _refused(reason: str, *, refresh_topology: bool = False) -> FailureClass:
    """Refused before execution: certainly not applied, worth another attempt."""
    return FailureClass(retry=True, may_have_applied=False, refresh_topology=refresh_topology, reason=reason)


def _permanent(reason: str, error: type[OperationError]) -> FailureClass:
    return FailureClass(retry=False, may_have_applied=False, refresh_topology=False, reason=reason, error=error)


DEMOTED: Final = FailureClass(retry=True, may_have_applied=True, refresh_topology=True, reason="demoted")
"""On a primary that became a replica while a WAIT was under way: the change was there, and may be thrown away."""

READ_ONLY: Final = "read_only"
"""The reason of a refusal by a server that is a replica."""

# Error replies, by their first word (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
# redis-py has classes for some of them and a plain ResponseError for the others; the word is in both.
BY_FIRST_WORD: Final[dict[str, FailureClass]] = {
    "ASK": _refused("ask", refresh_topology=True),
    "BUSY": _refused("busy"),
    "CLUSTERDOWN": _refused("cluster_down", refresh_topology=True),
    "LOADING": _refused("loading", refresh_topology=True),
    "MASTERDOWN": _refused("primary_down", refresh_topology=True),
    "MISCONF": _refused("misconf"),
    "MOVED": _refused("moved", refresh_topology=True),
    "NOREPLICAS": _refused("no_replicas", refresh_topology=True),
    "OOM": _refused("out_of_memory"),
    "READONLY": _refused(READ_ONLY, refresh_topology=True),
    "TRYAGAIN": _refused("try_again"),
    "UNBLOCKED": DEMOTED,
    "NOAUTH": _permanent("authentication", AuthenticationFailedError),
    "WRONGPASS": _permanent("authentication", AuthenticationFailedError),
    "NOPERM": _permanent("permission", PermissionDeniedError),
    "UNSUPPORTEDFORMAT": _permanent("unsupported_format", UnsupportedFormatError),
    "WRONGTYPE": _permanent("wrong_type", WrongKeyTypeError),
}

# By class, the most derived first: `isinstance` decides in this order.
BY_TYPE: Final[tuple[tuple[type[BaseException], FailureClass], ...]] = (
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
    (ShortfallError, FailureClass(True, True, True, "unconfirmed", UnconfirmedError)),
    (redis_errors.InvalidResponse, FailureClass(True, True, True, "protocol")),
    (redis_errors.TimeoutError, FailureClass(True, True, True, "timeout")),
    (NoPrimaryError, _refused("no_primary", refresh_topology=True)),
    (TakenOverError, FailureClass(True, True, True, "taken_over")),
    (redis_errors.ConnectionError, FailureClass(True, True, True, "connection")),
    (asyncio.TimeoutError, FailureClass(True, True, True, "timeout")),
    (EOFError, FailureClass(True, True, True, "connection")),
    (OSError, FailureClass(True, True, True, "connection")),
    (redis_errors.DataError, _permanent("bad_request", ServerRefusedError)),
)


def classify(cause: BaseException, *, sent: bool) -> FailureClass:
    """Return the class of a failure: what the retry loop does about it.

    Args:
        cause: The error that redis-py (or the operating system) raised.
        sent: Whether any byte of the request may have reached the server.
    """
    if tls_error(cause) is not None:
        # Before the request left it is the handshake; afterwards a connection that broke like any other.
        return FailureClass(True, True, True, "connection") if sent else _permanent("tls", TLSError)
    found = _by_message(cause) if isinstance(cause, redis_errors.RedisError) else None
    if found is None:
        found = next((each for kind, each in BY_TYPE if isinstance(cause, kind)), None)
    if found is None:
        # An error reply comes before the execution, unless a script names itself in it: it may have got half way.
        half_way = not isinstance(cause, redis_errors.ResponseError) or "user_script" in str(cause)
        found = FailureClass(False, half_way, False, "refused", ServerRefusedError)
    if found.may_have_applied and not sent:
        return dataclasses.replace(found, may_have_applied=False)
    return found


# What a script may not do: up to Redis 7.0, and from 7.2 on and in Valkey.
_NO_RIGHT_IN_A_SCRIPT = ("user executing the script can't", "ACL failure in script")
# Before 7.0 an error inside a script arrives as "Error running script (…): @user_script:7: @user_script: 7: -OOM …".
_INNER_WORD = re.compile(r"@user_script: ?\d+: -?([A-Z]+)\b")


def _by_message(cause: redis_errors.RedisError) -> FailureClass | None:
    """Find the class of an error reply by its text; redis-py strips the first word of some classes."""
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
        # The scripts ask for every right before their first write.
        if any(words in text for words in _NO_RIGHT_IN_A_SCRIPT):
            return BY_FIRST_WORD["NOPERM"]
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
