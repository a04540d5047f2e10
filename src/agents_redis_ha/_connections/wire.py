"""Commands on one connection: written at once, their replies read one after another.

A connection's timeout bounds silence here, not a transfer: redis-py's is around a whole request and a whole reply, so
that at 2.5 MB/s no request and no reply of 8 MB came through in 3 s. The caller bounds the whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.utils import HIREDIS_AVAILABLE

from .._asyncio import Alarms, UnlessSilent
from .._commands import Argument

if HIREDIS_AVAILABLE:
    import hiredis

__all__ = ["receive", "send"]

# asyncio's transports take 64 KiB before they make a writer wait.
_NEVER_WAITS_BYTES = 32 * 1024
# A larger request is written in pieces; each may wait for as long as the connection's timeout.
_PIECE_BYTES = 64 * 1024
# What was written may still be in buffers on its way, megabytes of it, while the server seems to be silent.
_SLOWEST_BYTES_PER_SECOND = 128 * 1024
# What stands before an argument of so many bytes; made anew each time it takes a third of the packing.
_HEADERS = tuple(b"\r\n$%d\r\n" % length for length in range(1024))


async def send(connection: AbstractConnection, commands: Sequence[Sequence[Argument]], alarms: Alarms) -> int:
    """Write commands, each a name and its arguments; return the number of bytes.

    A small request is written without a timeout, which would be for nothing: it never waits.

    Raises:
        redis.exceptions.RedisError: The connection broke.
        asyncio.TimeoutError: No piece of the request was taken for too long.
    """
    packed = b"".join([_packed(tuple(command)) for command in commands])
    timeout, connection.socket_timeout = connection.socket_timeout, None
    try:
        if len(packed) <= _NEVER_WAITS_BYTES:
            await connection.send_packed_command(packed, check_health=False)
        elif timeout is None:
            await _send_pieces(connection, packed)
        else:
            await UnlessSilent(_send_pieces(connection, packed), timeout, "nothing of the request was taken", alarms)
    finally:
        connection.socket_timeout = timeout
    return len(packed)


async def _send_pieces(connection: AbstractConnection, packed: bytes) -> None:
    for at in range(0, len(packed), _PIECE_BYTES):
        if at and not connection.is_connected:  # redis-py would connect anew, and send the rest there
            raise RedisConnectionError("closed while a request was being written")
        await connection.send_packed_command(packed[at : at + _PIECE_BYTES], check_health=False)


def receive(connection: AbstractConnection, count: int, alarms: Alarms, *, sent_bytes: int = 0) -> Awaitable[list[Any]]:
    """Return the next replies; an error reply stands in its place, as redis-py's exception.

    Args:
        connection: Where the requests were written.
        count: How many replies they have.
        alarms: Of this event loop.
        sent_bytes: How long the requests were: so much may still be on its way.

    Raises:
        redis.exceptions.RedisError: The connection broke.
        asyncio.TimeoutError: Nothing arrived for too long.
    """
    timeout = connection.socket_timeout
    if timeout is None:  # a user's own client has none
        return _read(connection, count, None)
    # Also if the answer to the question in front of it has come.
    at_least = timeout + sent_bytes / _SLOWEST_BYTES_PER_SECOND if sent_bytes > _NEVER_WAITS_BYTES else 0.0
    return UnlessSilent(_read(connection, count, timeout), timeout, "nothing arrived", alarms, at_least=at_least)


async def _read(connection: AbstractConnection, count: int, timeout: float | None) -> list[Any]:
    replies = []
    connection.socket_timeout = None
    try:
        for _ in range(count):
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        return replies
    finally:
        if connection.socket_timeout is None:  # else an announcement of maintenance has set another one
            connection.socket_timeout = timeout


def _pack(command: Sequence[Argument]) -> bytes:
    """Return a command as RESP sends it; redis-py's own packing in Python takes a tenth of a whole append."""
    parts = [b"*%d" % len(command)]
    put = parts.append
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        length = len(value)
        put(_HEADERS[length] if length < len(_HEADERS) else b"\r\n$%d\r\n" % length)
        put(value)
    put(b"\r\n")
    return b"".join(parts)


# An old hiredis does not pack.
_packed: Callable[[Any], bytes] = getattr(hiredis, "pack_command", _pack) if HIREDIS_AVAILABLE else _pack
