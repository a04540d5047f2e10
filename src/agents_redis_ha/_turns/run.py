"""`run_turn`: one turn in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agents import Agent, Runner, RunResult
from agents.items import TResponseInputItem

from ..errors import ConfigurationError
from .turn import ha_turn

__all__ = ["TurnRun", "run_turn"]


@dataclass(frozen=True)
class TurnRun:
    """What became of a turn.

    Attributes:
        output: What it was answered with, as JSON keeps it.
        status: ``computed`` by this call, or ``repeated``: it was answered before.
        run: The SDK's result; None where nothing ran.
    """

    output: Any
    status: Literal["computed", "repeated"]
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
        ConfigurationError: The run waits for an approval, which is no answer: run such agents within `ha_turn`. The
            turn is left unanswered.
    """
    async with ha_turn(session, turn_id, message, **(turn_options or {})) as turn:
        if turn.is_answered:
            return TurnRun(turn.result, "repeated")
        run = await Runner.run(agent, turn.input, session=turn.session, **runner_options)
        if run.interruptions:
            raise ConfigurationError("agent", "the run waits for an approval, which is no answer")
        turn.answer(run.final_output)
    return TurnRun(turn.result, "computed", run)
