"""Commands on one connection: written at once, their replies read one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from .._commands import Argument

__all__ = ["receive", "send"]

# asyncio's transports take 64 KiB before they make a writer wait.
_NEVER_WAITS_BYTES = 32 * 1024


async def send(connection: AbstractConnection, commands: Sequence[Sequence[Argument]]) -> None:
    """Write commands, each a name and its arguments, in one piece.

    A small request is written without redis-py's timeout, which costs a task and is for nothing: it never waits.
    """
    packed = b"".join([_packed(command) for command in commands])
    if len(packed) > _NEVER_WAITS_BYTES:
        await connection.send_packed_command(packed, check_health=False)
        return
    timeout, connection.socket_timeout = connection.socket_timeout, None
    try:
        await connection.send_packed_command(packed, check_health=False)
    finally:
        connection.socket_timeout = timeout


async def receive(connection: AbstractConnection, count: int) -> list[Any]:
    """Return the next replies; an error reply stands in its place, as redis-py's exception."""
    replies = []
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


def _packed(command: Sequence[Argument]) -> bytes:
    """Return a command as RESP sends it; redis-py's own packing in Python takes a tenth of a whole append."""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)
