"""What a change does while a turn has the session: it waits, unless it would wait for itself."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from .. import _ambient as ambient
from .._retry import Operation
from ..errors import TurnBusyError

__all__ = ["OWN_TURNS", "wait_for_turn"]

OWN_TURNS: ContextVar[frozenset[bytes]] = ContextVar("agents_redis_ha_own_turns", default=frozenset())
"""The tokens of the turns whose blocks the running task is in."""

_SHORTEST_SECONDS, _LONGEST_SECONDS, _RESERVE_SECONDS = 0.03, 0.1, 0.05


async def wait_for_turn(operation: Operation, holder: bytes) -> None:
    """Wait a moment before a change is sent again that was refused because a turn has the session.

    Args:
        operation: The change's.
        holder: The token of the turn.

    Raises:
        TurnBusyError: The change comes from within that turn, or its deadline is over.
    """
    if holder in OWN_TURNS.get():
        reason = "the session is held by the very turn from which this comes: use turn.session there"
        raise operation.error(TurnBusyError, reason)
    pause = ambient.uniform(_SHORTEST_SECONDS, _LONGEST_SECONDS)
    if operation.left() <= pause + _RESERVE_SECONDS:  # cut off by the deadline, an attempt would tell less
        raise operation.error(TurnBusyError, "a turn has the session, and did not end within the deadline")
    await asyncio.sleep(pause)
