"""An agent that says what was recorded: a model and its tools, driven by the SDK's own Runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from agents import (
    Agent,
    FunctionToolResult,
    ModelResponse,
    RunConfig,
    RunContextWrapper,
    Runner,
    ToolsToFinalOutputResult,
    TResponseInputItem,
    Usage,
)
from agents.items import TResponseStreamEvent
from agents.memory import Session
from agents.models.interface import Model

from ..lab.conversations import (
    Conversation,
    ReplayError,
    Turn,
    as_output,
    is_user_message,
    mark_attempt,
    replay_tool,
    shapes,
    unmarked,
)


@dataclass
class ScriptedModel(Model):
    """A model that answers one turn of a conversation as it was recorded.

    What it says follows from how many items stand behind the last user message of its input.

    Attributes:
        turn: The turn to play.
        attempt: 1 for the first time that this turn is sent; later ones get fresh ids.
        latency: Source of the pauses before an answer.
        latency_ms: Shortest and longest pause, in milliseconds.
        seconds: How long it has paused in all.
    """

    turn: Turn
    attempt: int = 1
    latency: Random = field(default_factory=lambda: Random(0))
    latency_ms: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 (the SDK names it so)
        *args: Any,
        **kwargs: Any,
    ) -> ModelResponse:
        """Say what was said at this point of the recording."""
        began = time.monotonic()
        await asyncio.sleep(self.latency.uniform(*self.latency_ms) / 1000)
        self.seconds += time.monotonic() - began
        if isinstance(input, str):
            position = 0
        else:
            users = [index for index, item in enumerate(input) if _is_user(item)]
            if not users:
                raise ReplayError("the input holds no user message")
            position = len(input) - 1 - users[-1]
        said = self.turn.response_at(position)
        output = [as_output(mark_attempt(item, self.attempt)) for item in said]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Not offered: the demo does not stream."""
        raise NotImplementedError("the scripted model does not stream")


def _is_user(item: Any) -> bool:
    return isinstance(item, dict) and is_user_message(item)


def scripted_agent(conversation: Conversation, turn: Turn, model: ScriptedModel) -> Agent[Any]:
    """An agent with the scripted model, and with functions that return what they returned in the turn.

    A recording may end with the output of a function; the run then ends there too, in place of
    asking the model once more.
    """
    last, outputs = turn.items[-1], turn.tool_outputs
    tools = (replay_tool(name, lambda call_id: outputs[unmarked(call_id)]) for name in conversation.tool_names)

    def stop_where_the_recording_stops(
        _: RunContextWrapper[Any], results: list[FunctionToolResult]
    ) -> ToolsToFinalOutputResult:
        ended = last.get("type") == "function_call_output" and any(
            unmarked(getattr(result.run_item, "call_id", None) or "") == last["call_id"] for result in results
        )
        return ToolsToFinalOutputResult(is_final_output=ended, final_output="")

    return Agent(
        name="scripted",
        model=model,
        tools=[*tools],
        tool_use_behavior=stop_where_the_recording_stops,
    )


@dataclass(frozen=True)
class TurnRun:
    """How to run one turn.

    Attributes:
        conversation: The conversation.
        number: Which of its turns, from 0.
        attempt: 1 for the first time that it is sent.
        seed: Seed of the model's pauses.
        latency_ms: Shortest and longest pause of the model, in milliseconds.
    """

    conversation: Conversation
    number: int
    attempt: int = 1
    seed: int = 0
    latency_ms: tuple[float, float] = (0.0, 0.0)


class RunWatch:
    """Sees what a run is given and how long its model takes; made anew for each run.

    It looks at the history that a session gives to a run, in place of the model that would use
    it. The SDK hands the history over before it prunes repeated ids and lone function calls, so a
    doubled or a torn history is seen as it is.

    Attributes:
        right: Whether the history was exactly what had been said before, and the beginning of the turn if it is
            resumed; ``None`` if the run never came as far as reading it.
        given: Number of items in it.
        resumed: Whether the run went on behind a beginning of the turn, without the message.
        model: The scripted model of the run.
    """

    def __init__(self, run: TurnRun) -> None:
        self.right: bool | None = None
        self.given: int | None = None
        self.resumed = False
        self.model = ScriptedModel(run.conversation.turns[run.number], run.attempt, Random(run.seed), run.latency_ms)
        self._before = shapes(run.conversation.items_before(run.number))
        self._turn = shapes(run.conversation.turns[run.number].items)

    def __call__(self, history: list[TResponseInputItem], new: list[TResponseInputItem]) -> list[TResponseInputItem]:
        """Compare, and pass history and new input on unchanged."""
        self.given, self.resumed = len(history), not new
        begun = self._turn[: max(1, len(history) - len(self._before))] if self.resumed else []
        self.right = self.right is not False and shapes(history) == self._before + begun
        return history + new


async def run_turn(
    run: TurnRun, session: Session, watch: RunWatch, message: str | list[TResponseInputItem] | None = None
) -> Any:
    """Run one turn with the SDK's Runner on a session, and return its answer.

    Args:
        run: The turn.
        session: Gives the history and takes what is said.
        watch: Made for this run; it knows afterwards what happened, also if the run fails.
        message: What to give to the Runner: nothing where the turn is resumed; None is what the user says.

    Raises:
        Exception: Whatever the run raised. What the session holds of the turn depends on where.
    """
    turn = run.conversation.turns[run.number]
    result = await Runner.run(
        scripted_agent(run.conversation, turn, watch.model),
        said_by_user(run) if message is None else message,
        session=session,
        max_turns=len(turn.items) + 1,
        run_config=RunConfig(tracing_disabled=True, session_input_callback=watch),
    )
    return result.final_output


def said_by_user(run: TurnRun) -> list[TResponseInputItem]:
    """What the user says in a turn."""
    message: Any = run.conversation.turns[run.number].user_message  # recorded JSON, not a typed dict
    return [message]
