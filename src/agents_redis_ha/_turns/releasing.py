"""`release_turn`: an operator takes a session from the turn that has it."""

from __future__ import annotations

from .. import _commands as commands
from .._commands import TurnInfo, TurnStatus
from .wrapping import find_host

__all__ = ["release_turn"]


async def release_turn(session: object, turn_id: str | None = None) -> TurnInfo | None:
    """Take a session from the turn that has it, and return which one that was; None if none had it.

    What waits for the session goes on at once. The turn is unanswered: delivered again, it is resumed from what it had
    saved; a claimed one can be claimed again. The worker that has it may be alive: its block is cancelled as soon as it
    saves a step or renews its lease, and raises TurnLostError; nothing that it adds is stored.

    Args:
        session: As `ha_turn` takes it.
        turn_id: Release this turn alone; None releases whichever it is.

    Raises:
        ConfigurationError: It is no session of this library. Nothing was sent.
        OperationError: It failed; the turn may be released all the same: ``info().turn`` tells.
    """
    operations = find_host(session, None).operations
    found = (await operations.execute(commands.info(operations.spec))).turn
    if found is None or turn_id not in (None, found[0].id):
        return None
    turn, token = found
    command = commands.release_turn(operations.spec, turn.id.encode("utf-8", "surrogatepass"), token)
    reply = await operations.execute(command)
    return turn if reply.status is TurnStatus.GRANTED else None  # else it ended in between
