"""What happened in a run, in the order in which it happened: for a person to read, and for two runs to be compared."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.simulation.reading import Reader

_LONGEST = 160
_UNKNOWN = b"-ERR unknown command 'CLIENT'"


class Timeline:
    """Notes what happens; what it looks like in words is made only when it is asked for.

    Args:
        start: The time that counts as 0.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._rows: list[tuple[float, str, str, Any]] = []

    def note(self, now: float, who: str, what: str, detail: Any = None) -> None:
        """Note that something happened.

        Args:
            now: When.
            who: To whom, or where.
            what: In a few words.
            detail: Bytes of a request or of a reply, or anything with a text.
        """
        self._rows.append((now, who, what, detail))

    def lines(self) -> list[str]:
        """Return it in words, a line for each row."""
        shown = (row for row in self._rows if not _is_greeting(row[3]))
        return [
            f"{now - self._start:10.6f}  {who:8} {what}{_words(detail)}".rstrip() for now, who, what, detail in shown
        ]

    def digest(self) -> str:
        """Return what two timelines have in common that are equal to the byte."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


def _is_greeting(detail: Any) -> bool:
    """Whether it is what redis-py says of itself with each new connection, or the answer."""
    return isinstance(detail, bytes) and (
        b"\r\nSETINFO\r\n" in detail or detail.startswith(b"-ERR unknown command 'CLIENT'")
    )


def _words(detail: Any) -> str:
    if detail is None:
        return ""
    if not isinstance(detail, bytes):
        return f" {detail}"
    reader = Reader(replyError=Exception)
    reader.feed(detail)
    found, texts = reader.gets(), list[str]()
    while found is not False and len(texts) < 8:
        texts.append(_shown(found))
        found = reader.gets()
    return " " + " | ".join(texts) if texts else f" {len(detail)} bytes"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        if value and value[0] in (b"EVALSHA", b"EVAL"):
            return f"{value[0].decode()} {_script(value[1])} {' '.join(map(_shown, value[3:]))}"[:_LONGEST]
        return f"[{' '.join(map(_shown, value))}]"[:_LONGEST]
    if isinstance(value, bytes):
        return value[:60].decode("utf-8", "backslashreplace").replace("\r\n", "⏎").replace("\n", "⏎")
    return str(value)


def _script(text: bytes) -> str:
    from agents_redis_ha._commands import load_script

    for name in ("append", "pop", "clear", "replace", "read", "info", "inspect", "restore"):
        script = load_script(name)
        if text in (script.sha, script.source):
            return name
    return "?"
