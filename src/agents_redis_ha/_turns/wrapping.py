"""Which session a turn is of, what the SDK's wrappers around it are, and how its result is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from agents.memory import Session

from .._recovery import SessionOperations
from .._storage import encode_value
from ..errors import ConfigurationError, InvalidResultError, Outcome, OutcomeLostError

__all__ = ["Codec", "Host", "Wrap", "find_host"]

Wrap: TypeAlias = Callable[[Session], Session]
"""Puts the SDK's wrappers around the session that a run is given."""

_MOST_BYTES = 65_536  # of a result
_MOST_STATE_BYTES = 1_048_576


class Codec(Protocol):
    """How results are kept where items are encrypted."""

    def encode(self, plain: bytes) -> bytes:
        """Return what is stored."""

    def decode(self, stored: bytes) -> bytes:
        """Return what was encoded, or raise an exception if it cannot be read any more."""


class _Encryption:
    """The codec of an `EncryptedSession`: its own cipher, and its own end of life."""

    def __init__(self, session: Any) -> None:
        self._cipher, self._ttl = session.cipher, session.ttl

    def encode(self, plain: bytes) -> bytes:
        stored: bytes = self._cipher.encrypt(plain)
        return stored

    def decode(self, stored: bytes) -> bytes:
        plain: bytes = self._cipher.decrypt(stored, ttl=self._ttl)
        return plain


@dataclass(frozen=True)
class Host:
    """The session that a turn is of.

    Attributes:
        session: The session of this library.
        operations: What executes its commands.
        wrap: Puts the wrappers around the session of a run that the given one has around it.
        codec: How results are kept; None as they are.
    """

    session: Any
    operations: SessionOperations
    wrap: Wrap
    codec: Codec | None

    def encode_result(self, result: object) -> bytes:
        """Return what is kept of a result.

        Raises:
            InvalidResultError: It is no JSON, or too large.
        """
        return self._encode(result, _MOST_BYTES, "answered with")

    def _encode(self, value: object, most: int, what: str) -> bytes:
        try:
            plain = encode_value(value, whole=True)
        except ValueError as error:
            raise InvalidResultError(f"a turn can be {what} JSON only: {error}") from None
        if len(plain) > most:
            raise InvalidResultError(f"a turn can be {what} {most} bytes at most, not {len(plain)}")
        return self.codec.encode(plain) if self.codec else plain

    def encode_state(self, state: object) -> bytes:
        """Return what is kept of a run's state.

        Raises:
            InvalidResultError: It is no JSON, or too large.
        """
        return self._encode(state, _MOST_STATE_BYTES, "suspended with")

    def decode(self, stored: bytes) -> Any:
        """Return the result or the state that was kept.

        Raises:
            OutcomeLostError: It is not known any more.
        """
        try:
            return json.loads(self.codec.decode(stored) if self.codec and stored else stored)
        except Exception as error:
            reason = "what was kept of the turn, its result or its state, was cleared, lost, or cannot be read any more"
            topology = self.operations.topology
            raise OutcomeLostError(
                reason, operation="turn_begin", topology=topology, outcome=Outcome.APPLIED
            ) from error


def find_host(session: object, wrap: Wrap | None) -> Host:
    """Return the session that a turn is of.

    What the SDK's `EncryptedSession` is around is found, and the session of the run and the turn's result are encrypted
    alike. Other wrappers have a memory of their own: they are put around the turn's session by ``wrap``.

    Raises:
        ConfigurationError: It is no session of this library. Nothing was sent.
    """
    inner = vars(session).get("underlying_session") if hasattr(session, "__dict__") else None
    is_encrypted = inner is not None and _is_encrypted(session)
    own: Any = inner if is_encrypted else session
    operations = vars(own).get("_operations") if hasattr(own, "__dict__") else None
    if not isinstance(operations, SessionOperations):
        reason = f"a {type(own).__name__} is no session of this library: give the one that it wraps, and wrap="
        raise ConfigurationError("session", reason)
    if operations.is_of_subclass:
        reason = f"the own methods of a {type(own).__name__} would be bypassed: give a RedisHASession, and wrap="
        raise ConfigurationError("session", reason)
    operations.check_open()
    operations = operations.of_turn()
    if is_encrypted and wrap is not None:
        raise ConfigurationError("wrap", "the session is wrapped already: give the one that it wraps")
    if is_encrypted:
        return Host(own, operations, lambda staged: _around(session, staged), _Encryption(session))
    if wrap is None:
        return Host(own, operations, lambda staged: staged, None)
    return Host(own, operations, wrap, _codec_of(wrap(own)))


def _codec_of(session: object) -> Codec | None:
    """Return how results are kept with such a wrapper."""
    while not isinstance(vars(session).get("_operations"), SessionOperations):
        if _is_encrypted(session):
            return _Encryption(session)
        inner = vars(session).get("underlying_session")
        if inner is None:
            reason = (
                f"a {type(session).__name__} does not tell what it wraps (underlying_session), nor whether it encrypts"
            )
            raise ConfigurationError("wrap", reason)
        session = inner
    return None


def _is_encrypted(session: object) -> bool:
    names = {kind.__module__ + "." + kind.__qualname__ for kind in type(session).__mro__}
    return "agents.extensions.memory.encrypt_session.EncryptedSession" in names


def _around(wrapper: Any, staged: Session) -> Any:
    """Return a wrapper like another one, around another session; without `copy`, which its attributes trip up."""
    clone = object.__new__(type(wrapper))
    vars(clone).update(vars(wrapper), underlying_session=staged)
    return clone
