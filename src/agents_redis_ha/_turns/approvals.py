"""Turns that wait for an approval: which there are, and how one process goes on with one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agents import Agent

from .._commands import list_turns, moment
from .block import TurnBlock, TurnOptions
from .opening import turn_spec
from .wrapping import Wrap, find_host

__all__ = ["SuspendedTurn", "claim_turn", "list_suspended"]


@dataclass(frozen=True)
class SuspendedTurn:
    """A turn that waits to be claimed.

    Attributes:
        id: The turn's id.
        attempts: How many attempts there were.
        began_at: When the turn was begun, by the server's clock.
    """

    id: str
    attempts: int
    began_at: datetime


async def list_suspended(session: object) -> list[SuspendedTurn]:
    """Return the turns of a session that wait to be claimed, the oldest first.

    Args:
        session: As `ha_turn` takes it.

    Raises:
        ConfigurationError: It is no session of this library.
        OperationError: It could not be read.
    """
    operations = find_host(session, None).operations
    found = await operations.execute(list_turns(operations.spec))
    return [
        SuspendedTurn(id_.decode("utf-8", "surrogatepass"), attempts, moment(began_ms))
        for id_, attempts, began_ms in found.turns
    ]


def claim_turn(
    session: object,
    turn_id: str,
    agent: Agent[Any],
    *,
    wait_seconds: float = 60.0,
    lease_seconds: float = 30.0,
    wrap: Wrap | None = None,
) -> TurnBlock:
    """Return the block in which a suspended turn goes on.

    ``async with claim_turn(session, turn_id, agent) as turn``: one process gets the turn, however many try. It has the
    turn's draft and its state back (`Turn.state`): approve or reject what waits, and give the state to the Runner. A
    block that fails leaves the turn to be claimed again, as does a process that dies. With ``durability="primary"`` a
    failover can drop a claim, and another process may get the turn while the first one still runs; one of them is
    refused when it publishes. ``replicas=1`` and more prevent that.

    Args:
        session: As `ha_turn` takes it.
        turn_id: The turn's id.
        agent: The agent at which the run began.
        wait_seconds: How long to wait for other turns of the session; another claim is not waited for.
        lease_seconds: As `ha_turn` takes it.
        wrap: As `ha_turn` takes it.

    Raises:
        ConfigurationError: One of them cannot be. Nothing was sent.
    """
    host = find_host(session, wrap)
    spec = turn_spec(host, turn_id, b"-", wait_seconds, lease_seconds)
    return TurnBlock(host, spec, None, TurnOptions(wait_seconds, "enqueue", agent=agent))
