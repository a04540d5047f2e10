"""`run_turn`: one turn in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agents import Agent, Runner, RunResult
from agents.items import TResponseInputItem

from .opening import ha_turn

__all__ = ["TurnRun", "run_turn"]


@dataclass(frozen=True)
class TurnRun:
    """What became of a turn.

    Attributes:
        output: What it was answered with, as JSON keeps it; None while it is suspended.
        status: ``computed`` by this call; ``repeated``: it was answered before; ``suspended``: it waits for an approval
            (`claim_turn`).
        run: The SDK's result; None where nothing ran.
    """

    output: Any
    status: Literal["computed", "repeated", "suspended"]
    run: RunResult | None = None


async def run_turn(
    agent: Agent[Any],
    message: str | list[TResponseInputItem],
    *,
    session: object,
    turn_id: str | None,
    turn_options: dict[str, Any] | None = None,
    **runner_options: Any,
) -> TurnRun:
    """Run the agent on a message, once: `ha_turn`, with `Runner.run` in its block.

    Args:
        agent: The agent.
        message: The user's message.
        session: As `ha_turn` takes it.
        turn_id: As `ha_turn` takes it.
        turn_options: The other arguments of `ha_turn`.
        **runner_options: The other arguments of `Runner.run`, such as ``context`` or ``max_turns``.

    Raises:
        TurnLostError: The turn was taken over. Nothing of it is stored.
        OperationError: The session could not be asked for, or the turn not be published.
    """
    async with ha_turn(session, turn_id, message, **(turn_options or {})) as turn:
        if turn.is_answered:
            return TurnRun(turn.result, "repeated")
        if turn.is_suspended:
            return TurnRun(None, "suspended")
        run = await Runner.run(agent, turn.input, session=turn.session, **runner_options)
        if run.interruptions:
            await turn.suspend(run.to_state())
            return TurnRun(None, "suspended", run)
        turn.answer(run.final_output)
    return TurnRun(turn.result, "computed", run)
