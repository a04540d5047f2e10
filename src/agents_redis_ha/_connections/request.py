"""A command on its way: what the attempts of one operation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._commands import Command, EarlierAttempts, Positioned

__all__ = ["Request"]


@dataclass(slots=True)
class Request:
    """A command on its way to the node that holds its keys, sent until it succeeds or is given up.

    Attributes:
        command: What is sent.
        known: Where the log position is read that goes along, anew for each attempt.
        on_sent: Called with the node's name each time that the command has left.
        earlier: What is known of earlier attempts; each attempt notes itself.
        sent: Whether it may have reached a server since this was last set to False.
    """

    command: Command[Any] = field(repr=False)  # it holds items
    known: Positioned = field(repr=False)
    on_sent: Callable[[str], None]
    earlier: EarlierAttempts = field(default_factory=EarlierAttempts)
    sent: bool = False
