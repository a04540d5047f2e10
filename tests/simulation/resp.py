"""RESP: requests as a server reads them, replies as it writes them (RESP2 and RESP3).

A reply is a Python value: bytes are a bulk string, int an integer, None a null, list and tuple an array, dict a map,
bool a boolean, float a double, str a status. `Simple` and `Failure` are the two kinds of one line; `Raw` is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "Failure",
    "NullArray",
    "ProtocolError",
    "Push",
    "Raw",
    "RequestParser",
    "Simple",
    "encode",
    "encode_request",
    "wire_size",
]


class Simple(bytes):
    """A status, such as OK."""

    __slots__ = ()


class Failure(bytes):
    """An error, its first word a code."""

    __slots__ = ()


class Raw(bytes):
    """A reply as it goes over the wire."""

    __slots__ = ()


class Push(list[Any]):
    """What the server says unasked: a push in RESP3, an array in RESP2."""

    __slots__ = ()


class NullArray:
    """The null where an array is expected: RESP2 has one of its own."""

    __slots__ = ()


class ProtocolError(Exception):
    """What arrived is no request; the server says so and closes the connection."""


def encode(value: Any, protocol: int = 2) -> bytes:
    """Return a reply as bytes.

    Args:
        value: The reply; see the module.
        protocol: 2 or 3.
    """
    kind = type(value)
    if kind is bytes:
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if kind is int:
        return b":%d\r\n" % value
    if kind is list or kind is tuple:
        return b"*%d\r\n" % len(value) + _encode_all(value, protocol)
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    encoder = _ENCODERS[kind]
    return encoder(value, protocol)


def _encode_all(values: Iterable[Any], protocol: int) -> bytes:
    # Most are bulk strings: a call less for each.
    return b"".join(
        [b"$%d\r\n%b\r\n" % (len(each), each) if type(each) is bytes else encode(each, protocol) for each in values]
    )


def _encode_map(value: dict[Any, Any], protocol: int) -> bytes:
    parts = [part for pair in value.items() for part in pair]
    head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(parts)
    return head + _encode_all(parts, protocol)


def _encode_bool(value: bool, protocol: int) -> bytes:
    if protocol == 3:
        return b"#t\r\n" if value else b"#f\r\n"
    return b":%d\r\n" % value


def _encode_float(value: float, protocol: int) -> bytes:
    text = b"%.17g" % value
    return b",%b\r\n" % text if protocol == 3 else b"$%d\r\n%b\r\n" % (len(text), text)


def _encode_set(value: frozenset[Any], protocol: int) -> bytes:
    parts = [encode(each, protocol) for each in sorted(value)]
    return b"%b%d\r\n" % (b"~" if protocol == 3 else b"*", len(parts)) + b"".join(parts)


_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    Simple: lambda value, protocol: b"+%b\r\n" % value,
    Failure: lambda value, protocol: b"-%b\r\n" % value.replace(b"\r", b" ").replace(b"\n", b" "),
    NullArray: lambda value, protocol: b"_\r\n" if protocol == 3 else b"*-1\r\n",
    Raw: lambda value, protocol: value,
    dict: _encode_map,
    bool: _encode_bool,
    float: _encode_float,
    frozenset: _encode_set,
    str: lambda value, protocol: b"+%b\r\n" % value.encode(),
    Push: lambda value, protocol: (
        b"%b%d\r\n" % (b">" if protocol == 3 else b"*", len(value))
        + b"".join([encode(each, protocol) for each in value])
    ),
}


def encode_request(*arguments: bytes | str | int) -> bytes:
    """Return a command as a client sends it."""
    parts = [each if isinstance(each, bytes) else str(each).encode() for each in arguments]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def wire_size(argv: tuple[bytes, ...] | list[bytes]) -> int:
    """Return how many bytes a command takes on the wire: what a replication offset counts."""
    size = 3 + len(str(len(argv)))
    for part in argv:
        length = len(part)
        size += length + 5 + (1 if length < 10 else 2 if length < 100 else len(str(length)))
    return size


_SHORT, _MOST_SEEN = 200, 10_000
_SEEN: dict[bytes, list[list[bytes]]] = {}
"""Short requests that were cut already: most of what arrives are the same questions again and again."""


class RequestParser:
    """Cuts what arrives into commands, however it is cut into pieces."""

    __slots__ = ("_argv", "_buffer", "_left")

    def __init__(self) -> None:
        self._buffer = b""
        self._argv: list[bytes] = []
        self._left = 0

    def feed(self, data: bytes) -> list[list[bytes]]:  # noqa: C901 (one loop, for speed)
        """Return the commands that are complete now.

        Raises:
            ProtocolError: It is no request.
        """
        is_whole = not self._buffer and not self._left
        if is_whole and data in _SEEN:
            return [argv.copy() for argv in _SEEN[data]]
        buffer = self._buffer + data if self._buffer else data
        found: list[list[bytes]] = []
        at, end = 0, len(buffer)
        argv, left = self._argv, self._left
        while at < end:
            stop = buffer.find(b"\r\n", at)
            if left:
                if stop < 0:
                    break
                if buffer[at] != 36:  # '$'
                    raise ProtocolError(f"Protocol error: expected '$', got '{chr(buffer[at])}'")
                length = _number(buffer[at + 1 : stop], "Protocol error: invalid bulk length")
                if end < stop + length + 4:
                    break
                argv.append(buffer[stop + 2 : stop + 2 + length])
                at = stop + length + 4
                left -= 1
                if not left:
                    found.append(argv)
                    argv = []
            elif buffer[at] == 42:  # '*'
                if stop < 0:
                    break
                left = max(_number(buffer[at + 1 : stop], "Protocol error: invalid multibulk length"), 0)
                at = stop + 2
            else:
                stop = buffer.find(b"\n", at)
                if stop < 0:
                    break
                words = buffer[at:stop].split()
                at = stop + 1
                if words:
                    found.append(words)
        self._buffer, self._argv, self._left = buffer[at:], argv, left
        if is_whole and at == end and not left and end <= _SHORT and len(_SEEN) < _MOST_SEEN:
            _SEEN[data] = [argv.copy() for argv in found]
        return found


def _number(text: bytes, otherwise: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(otherwise) from None
