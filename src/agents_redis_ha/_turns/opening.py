"""`ha_turn`: one message and its answer, stored once and whole however often it is delivered."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Literal, TypeAlias

from agents.items import TResponseInputItem

from .. import _ambient as ambient
from .._commands import TurnSpec
from .._storage import encode_value
from ..errors import ConfigurationError
from .block import OnError, TurnBlock, TurnOptions
from .wrapping import Host, Wrap, find_host

__all__ = ["IfBusy", "IfUnanswered", "Save", "ha_turn", "turn_spec"]

IfBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "rollback"]
IfUnanswered: TypeAlias = Literal["resume", "restart"]
Save: TypeAlias = Literal["steps", "end"]

_LONGEST_ID_BYTES = 512


def ha_turn(
    session: object,
    turn_id: str | None,
    message: str | list[TResponseInputItem] | None = None,
    *,
    wait_seconds: float = 60.0,
    lease_seconds: float = 30.0,
    if_busy: IfBusy = "enqueue",
    if_unanswered: IfUnanswered = "resume",
    on_error: OnError = "keep",
    save: Save = "steps",
    wrap: Wrap | None = None,
) -> TurnBlock:
    """Return the block of one turn of a conversation.

    ``async with ha_turn(session, request_id, "Where is my order?") as turn``. While the block runs, no other turn and
    no other change gets between: what the run stores stays in a draft, and is published in one piece, with its result,
    when the block is left after `Turn.answer`. A turn that was answered before is not run again: `Turn.is_answered` is
    true at once, and `Turn.result` is what it was answered with.

    Args:
        session: The conversation: a session of this library, or the SDK's `EncryptedSession` around one.
        turn_id: The caller's key for it (request, message, job), 512 bytes at most. None is a turn that only this
            call can take.
        message: The user's message, as `Runner.run` takes it; None leaves it to the block.
        wait_seconds: How long to wait for other turns of the session, and for this one if it runs elsewhere.
        lease_seconds: How long other turns wait for this one after its worker was last heard of; it is renewed
            meanwhile. At least ``retry.deadline_seconds``.
        if_busy: What to do while a turn of another id runs: ``enqueue`` waits in the order of arrival; ``reject``
            raises TurnBusyError; ``interrupt`` publishes what that turn has saved, and cancels it; ``rollback``
            cancels it and drops that.
        if_unanswered: What to do about an attempt before this one that did not end: ``resume`` goes on from what it
            had saved, ``restart`` drops that.
        on_error: What becomes of the turn when its block raises: ``keep`` leaves it unanswered, with what is saved
            of it; ``rollback`` is as if it had never been; or a function of the exception that returns one of them,
            no ``async def``.
        save: ``steps`` saves each round whose tools have run, in one round trip; ``end`` keeps all of it in the
            process until the turn is published.
        wrap: Puts the SDK's wrappers around the session of the run: ``lambda s: EncryptedSession(…, s, …)``.

    Raises:
        ConfigurationError: One of them cannot be. Nothing was sent.
    """
    host = find_host(session, wrap)
    _check("if_busy", if_busy, ("enqueue", "reject", "interrupt", "rollback"))
    _check("if_unanswered", if_unanswered, ("resume", "restart"))
    _check("save", save, ("steps", "end"))
    if not callable(on_error):
        _check("on_error", on_error, ("keep", "rollback"))
    elif inspect.iscoroutinefunction(on_error) or inspect.iscoroutinefunction(type(on_error).__call__):
        raise ConfigurationError("on_error", "must be a plain function: one that is awaited could hold up the error")
    spec = turn_spec(host, _turn_id(turn_id), _digest(message), wait_seconds, lease_seconds)
    options = TurnOptions(wait_seconds, if_busy, if_unanswered, on_error, save == "steps")
    return TurnBlock(host, spec, message, options)


def turn_spec(host: Host, turn_id: str, digest: bytes, wait_seconds: float, lease_seconds: float) -> TurnSpec:
    """Return what the commands of a turn need.

    Raises:
        ConfigurationError: A time cannot be.
    """
    config = host.operations.config
    if not config.retry.deadline_seconds <= lease_seconds <= 86_400:
        raise ConfigurationError("lease_seconds", "must be at least retry.deadline_seconds, and a day at most")
    if not wait_seconds >= 0:
        raise ConfigurationError("wait_seconds", "must not be negative")
    return TurnSpec(
        host.operations.spec,
        turn_id.encode("utf-8", "surrogatepass"),
        b"",
        digest,
        round(lease_seconds * 1000),
        config.turn_retention_seconds * 1000,
    )


def _turn_id(given: str | None) -> str:
    if given is None:
        return ambient.random_bytes(16).hex()
    if not isinstance(given, str) or not 0 < len(given.encode("utf-8", "surrogatepass")) <= _LONGEST_ID_BYTES:
        raise ConfigurationError("turn_id", f"must be a text of 1 to {_LONGEST_ID_BYTES} bytes, or None")
    return given


def _digest(message: str | list[TResponseInputItem] | None) -> bytes:
    if message is None:
        return b"-"
    try:
        text = json.dumps(json.loads(encode_value(message)), sort_keys=True).encode()
    except ValueError as error:
        raise ConfigurationError("message", f"must be a text or a list of JSON objects: {error}") from None
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _check(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(name, f"must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}")
