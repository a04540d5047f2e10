"""One request of a sequence, and where its reply may differ."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.resp import encode_request

from .replies import Loose

__all__ = ["ANY", "DESCRIPTION", "EXACT", "GRANT", "LOOSE", "PAIRS", "READING", "STATE", "TTL", "Step"]

DESCRIPTION = Loose(milliseconds=((1,),))
READING = Loose(milliseconds=((0, 1),))
STATE = Loose(milliseconds=((6,),), pairs=((9,),))
TTL = Loose(milliseconds=((),))
PAIRS = Loose(pairs=((),))
ANY = Loose(ignored=True)
EXACT = Loose()
GRANT = Loose(milliseconds=((6, 1), (3,)))
LOOSE = {"info": DESCRIPTION, "read": READING, "inspect": STATE, "turn_begin": GRANT, "turn_list": READING}


class Step(NamedTuple):
    """One request.

    Attributes:
        words: The command and its arguments.
        loose: Where the reply may differ.
    """

    words: tuple[bytes, ...]
    loose: Loose = EXACT

    @property
    def request(self) -> bytes:
        """What goes over the wire."""
        return encode_request(*self.words)

    def __str__(self) -> str:
        return " ".join(repr(word if len(word) < 60 else word[:50] + b"...%d" % len(word))[1:] for word in self.words)
