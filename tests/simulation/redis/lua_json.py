"""What Redis' cjson.decode accepts: JSON, and more (lua_cjson.c): ``0x10``, ``01``, ``+5``, ``inf`` and ``nan``."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["NULL", "InvalidJSONError", "accepts", "decode"]

NULL = object()
_DEEPEST = 1000
_SPACE = re.compile(rb"[ \t\n\r]*")
# What strtod reads; cjson gives it whatever begins like a number.
_NUMBER = re.compile(
    rb"[+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?"
    rb"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan(?:\(\w*\))?)",
    re.IGNORECASE,
)
_STRING = re.compile(rb'"((?:[^"\\\0]|\\["\\/btnfr]|\\u[0-9a-fA-F]{4})*)"')
_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.)", re.DOTALL)
_PLAIN = {b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"f": b"\f", b"r": b"\r"}


class InvalidJSONError(Exception):
    """It is not what cjson decodes."""


def decode(text: bytes) -> Any:
    """Return the value: dict, list, bytes, float, bool, or `NULL`.

    Raises:
        InvalidJSONError: cjson refuses it, too.
    """
    if len(text) >= 2 and (not text[0] or not text[1]):
        raise InvalidJSONError("JSON parser does not support UTF-16 or UTF-32")
    value, at = _Decoder(text).value(0, 0)
    if not _is_end(text, _skip(text, at)):
        raise InvalidJSONError("Expected the end")
    return value


def accepts(text: bytes) -> bool:
    """Return whether cjson decodes it; what is plain JSON is told by the standard library, which is faster."""
    if b"\\u" not in text and b"\0" not in text and text.count(b"[") + text.count(b"{") < 500:
        try:
            json.loads(text.decode("latin-1"))
        except ValueError:
            pass
        else:
            return True
    try:
        decode(text)
    except InvalidJSONError:
        return False
    return True


def _skip(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _is_end(text: bytes, at: int) -> bool:
    return at >= len(text) or not text[at]  # to C, a zero byte is the end


class _Decoder:
    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the value that begins here, and where it ends."""
        text = self.text
        at = _skip(text, at)
        first = text[at : at + 1]
        if first == b'"':
            return self._string(at)
        if first in (b"{", b"["):
            if depth >= _DEEPEST:
                raise InvalidJSONError(f"Found too many nested data structures ({depth + 1})")
            return self._object(at + 1, depth + 1) if first == b"{" else self._array(at + 1, depth + 1)
        for word, meaning in ((b"true", True), (b"false", False), (b"null", NULL)):
            if text.startswith(word, at):
                return meaning, at + len(word)
        found = _NUMBER.match(text, at) if first and first in b"+-0123456789iInN" else None
        if found is None:
            raise InvalidJSONError(f"Expected value but found invalid token at character {at + 1}")
        return _number(found[0]), found.end()

    def _string(self, at: int) -> tuple[bytes, int]:
        found = _STRING.match(self.text, at)
        if found is None:
            raise InvalidJSONError("unexpected end of string or invalid escape code")
        return _ESCAPE.sub(_unescaped, found[1]) if b"\\" in found[1] else found[1], found.end()

    def _object(self, at: int, depth: int) -> tuple[dict[bytes, Any], int]:
        text, found = self.text, dict[bytes, Any]()
        at = _skip(text, at)
        if text[at : at + 1] == b"}":
            return found, at + 1
        while True:
            at = _skip(text, at)
            if text[at : at + 1] != b'"':
                raise InvalidJSONError("Expected object key string")
            key, at = self._string(at)
            at = _skip(text, at)
            if text[at : at + 1] != b":":
                raise InvalidJSONError("Expected colon")
            found[key], at = self.value(at + 1, depth)
            at = _skip(text, at)
            if text[at : at + 1] == b"}":
                return found, at + 1
            if text[at : at + 1] != b",":
                raise InvalidJSONError("Expected comma or object end")
            at += 1

    def _array(self, at: int, depth: int) -> tuple[list[Any], int]:
        text, found = self.text, list[Any]()
        at = _skip(text, at)
        if text[at : at + 1] == b"]":
            return found, at + 1
        while True:
            value, at = self.value(at, depth)
            found.append(value)
            at = _skip(text, at)
            if text[at : at + 1] == b"]":
                return found, at + 1
            if text[at : at + 1] != b",":
                raise InvalidJSONError("Expected comma or array end")
            at += 1


def _number(text: bytes) -> float:
    word = text.decode().lower()
    if "x" in word:
        return float.fromhex(word)
    return float("nan") if "nan" in word else float(word)


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    if code[:1] != b"u":
        return _PLAIN[code]
    first = int(code[1:5], 16)
    if first & 0xF800 != 0xD800:
        return chr(first).encode() + _ESCAPE.sub(_unescaped, code[5:])
    if first & 0x400 or len(code) < 11:
        raise InvalidJSONError("invalid unicode escape code")
    return chr(0x10000 + ((first & 0x3FF) << 10) + (int(code[7:11], 16) & 0x3FF)).encode()
