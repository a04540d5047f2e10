"""What Redis' cjson.decode accepts: JSON, and more (lua_cjson.c): ``0x10``, ``01``, ``+5``, ``inf`` and ``nan``.

Only whether it accepts a text is told: that is all that the project's scripts ask.
"""

from __future__ import annotations

import json
import re

__all__ = ["accepts"]

_DEEPEST = 1000
_SPACE = re.compile(rb"[ \t\n\r]*")
_WORD = re.compile(rb"true|false|null")
# What strtod reads; cjson gives it whatever begins like a number.
_NUMBER = re.compile(
    rb"(?=[-+0-9iInN])[+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?"
    rb"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan(?:\(\w*\))?)",
    re.IGNORECASE,
)
_HIGH_AND_LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_NO_SURROGATE = rb"\\u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}"
_STRING = re.compile(rb'"(?:[^"\\\0]|\\["\\/btnfr]|' + _HIGH_AND_LOW + rb"|" + _NO_SURROGATE + rb')*"')


def accepts(text: bytes) -> bool:
    """Return whether cjson decodes it; what is plain JSON is told by the standard library, which is faster."""
    if b"\\u" not in text and b"\0" not in text and text.count(b"[") + text.count(b"{") < 500:
        try:
            json.loads(text.decode("latin-1"))
        except ValueError:
            pass
        else:
            return True
    return _accepts(text)


def _accepts(text: bytes) -> bool:
    """Go through a text token by token; `closers` holds what closes the arrays and objects that are open."""
    if len(text) >= 2 and (not text[0] or not text[1]):  # UTF-16 or UTF-32
        return False
    closers, at = list[bytes](), 0
    while True:
        at = _skip(text, at)
        first = text[at : at + 1]
        if first in (b"{", b"["):
            if len(closers) >= _DEEPEST:
                return False
            closer = b"}" if first == b"{" else b"]"
            at = _skip(text, at + 1)
            if text[at : at + 1] != closer:
                closers.append(closer)
                at = _key(text, at) if closer == b"}" else at
                if at < 0:
                    return False
                continue
            at += 1
        else:
            found = _STRING.match(text, at) or _WORD.match(text, at) or _NUMBER.match(text, at)
            if found is None:
                return False
            at = found.end()
        at = _after_value(text, at, closers)
        if at < 0:
            return at == _WHOLE


_WHOLE, _WRONG = -1, -2


def _after_value(text: bytes, at: int, closers: list[bytes]) -> int:
    """Return where the next value begins, `_WHOLE` at the end, `_WRONG` where something else stands."""
    while closers:
        at = _skip(text, at)
        mark = text[at : at + 1]
        at += 1
        if mark == b",":
            return _key(text, _skip(text, at)) if closers[-1] == b"}" else at
        if mark != closers.pop():
            return _WRONG
    at = _skip(text, at)
    return _WHOLE if at >= len(text) or not text[at] else _WRONG  # to C, a zero byte is the end


def _key(text: bytes, at: int) -> int:
    """Return where the value of the key begins that stands here."""
    found = _STRING.match(text, at)
    if found is None:
        return _WRONG
    at = _skip(text, found.end())
    return at + 1 if text[at : at + 1] == b":" else _WRONG


def _skip(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
