"""Commands on one connection: written at once, their replies read one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

__all__ = ["Argument", "exchange"]

Argument: TypeAlias = "bytes | str | int"

# asyncio's transports take 64 KiB before they make a writer wait.
_NEVER_WAITS_BYTES = 32 * 1024


async def exchange(
    connection: AbstractConnection, commands: Sequence[Sequence[Argument]], on_sent: Callable[[], None] | None = None
) -> list[Any]:
    """Return the replies to commands; an error reply to one of several stands in its place, a single one is raised.

    Args:
        connection: A connected one, owed no reply.
        commands: Each a command's name and arguments.
        on_sent: Called when they have been written.
    """
    await _send(connection, b"".join([_packed(command) for command in commands]))
    if on_sent is not None:
        on_sent()
    if len(commands) == 1:
        return [await connection.read_response(disable_decoding=True)]
    replies = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


async def _send(connection: AbstractConnection, request: bytes) -> None:
    """Write a request; a small one without the timeout, which costs a task and is for nothing: it never waits."""
    if len(request) > _NEVER_WAITS_BYTES:
        await connection.send_packed_command(request, check_health=False)
        return
    timeout, connection.socket_timeout = connection.socket_timeout, None
    try:
        await connection.send_packed_command(request, check_health=False)
    finally:
        connection.socket_timeout = timeout


def _packed(command: Sequence[Argument]) -> bytes:
    """Return a command as RESP sends it; redis-py's own packing in Python takes a tenth of a whole append."""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)
