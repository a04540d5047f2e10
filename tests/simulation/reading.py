"""Reads replies: with hiredis where that is installed, which is faster, else with the comparison's parser."""

from __future__ import annotations

from typing import Any

from tests.simulation.fidelity.replies import ErrorReply, Status, parse

__all__ = ["PlainReader", "Reader"]


class PlainReader:
    """As much of `hiredis.Reader` as the simulation needs."""

    def __init__(self, replyError: type[Exception]) -> None:  # noqa: N803 (hiredis' name)
        self._error = replyError
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def gets(self) -> Any:
        """Return the next reply; False if it is not complete."""
        parsed = parse(self._buffer, 1)
        if parsed is None:
            return False
        [reply], self._buffer = parsed
        return self._plain(reply)

    def _plain(self, reply: Any) -> Any:
        if isinstance(reply, list):
            return [self._plain(each) for each in reply]
        if isinstance(reply, ErrorReply):
            return self._error(bytes(reply).decode())
        if isinstance(reply, Status):
            return None if reply == b"null array" else bytes(reply)
        return reply


Reader: Any
try:
    from hiredis import Reader
except ImportError:
    Reader = PlainReader
