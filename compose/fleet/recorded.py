"""A model that says what was recorded: the fleet runs without a network, and its answers are known beforehand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from agents import ModelResponse, TResponseInputItem, Usage
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)

from agents_redis_ha.lab.conversations import (
    Conversation,
    Item,
    Turn,
    as_output,
    is_user_message,
    load_conversations,
    replay_tool,
)

__all__ = ["NUDGE", "RecordedModel"]

NUDGE = "Are you still there?"
"""What an impatient user says while a turn runs; it is in no recording, and answered like a goodbye."""

GOODBYE: Item = {
    "id": "msg_goodbye",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Goodbye.", "annotations": [], "logprobs": []}],
}
"""What it says at the end of a recording that ends without an answer."""

NUDGED = Turn(({"role": "user", "content": NUDGE}, GOODBYE))


class RecordedModel(Model):
    """Answers a user who says what was recorded; of recordings that begin alike, as the first one.

    What it says follows from its input alone, so that every replica says the same.

    Args:
        file: JSON lines of ``{"conversation": id, "items": [...]}``; None means the package's own.
        seconds: How long it takes to answer.
    """

    def __init__(self, file: Path | None = None, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._turns: dict[tuple[str, ...], Turn] = {}
        self._outputs: dict[str, str] = {}
        conversations = load_conversations(file)
        self.said = [[str(turn.user_message["content"]) for turn in one.turns] for one in conversations]
        """What the users say in the recordings."""
        names: set[str] = set()
        for conversation in conversations:
            names.update(conversation.tool_names)
            for said, turn in _answered_turns(conversation):
                if self._turns.setdefault(said, turn) is turn:
                    self._outputs.update(turn.tool_outputs)
        self.tools = [replay_tool(name, self._outputs.__getitem__) for name in sorted(names)]
        """The functions that are called in the recordings, returning what they returned then."""

    def turns_of(self, messages: Sequence[str]) -> list[tuple[Item, ...]]:
        """Return the items of each turn of a conversation in which the user says these messages."""
        return [self._turn(messages[: number + 1]).items for number in range(len(messages))]

    def _turn(self, said: Sequence[str]) -> Turn:
        return NUDGED if said[-1] == NUDGE else self._turns[tuple(text for text in said if text != NUDGE)]

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 (the SDK names it so)
        *args: Any,
        **kwargs: Any,
    ) -> ModelResponse:
        """Say what was said at this point of the recording."""
        await asyncio.sleep(self._seconds)
        return ModelResponse(output=self._next(input), usage=Usage(), response_id=None)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002 (the SDK names it so)
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[ResponseStreamEvent]:
        """Say the same word by word."""
        output = self._next(input)
        words = [word for item in output if item.type == "message" for word in _words(item)]
        for number, word in enumerate(words or [""]):
            await asyncio.sleep(self._seconds / max(1, len(words)))
            if word:
                yield _delta(word, number)
        response = Response(
            id="recorded",
            created_at=time.time(),
            model="recorded",
            object="response",
            output=output,
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
        )
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=len(words))

    def _next(self, history: str | list[TResponseInputItem]) -> list[ResponseOutputItem]:
        items: list[Any] = [{"role": "user", "content": history}] if isinstance(history, str) else history
        users = [index for index, item in enumerate(items) if is_user_message(item)]
        turn = self._turn([str(items[index]["content"]) for index in users])
        return [as_output(item) for item in turn.response_at(len(items) - 1 - users[-1])]


def _answered_turns(conversation: Conversation) -> list[tuple[tuple[str, ...], Turn]]:
    """Return each turn behind what the user has said up to it, with an answer at its end and call ids of its own."""
    said = tuple(str(turn.user_message["content"]) for turn in conversation.turns)
    return [
        (said[: number + 1], _answered(turn, f"{conversation.conversation_id}.{number}"))
        for number, turn in enumerate(conversation.turns)
    ]


def _answered(turn: Turn, name: str) -> Turn:
    """Return the turn with ids that occur nowhere else."""
    items = turn.items if turn.items[-1].get("role") == "assistant" else (*turn.items, GOODBYE)
    return Turn(
        tuple({**item, **{key: f"{item[key]}.{name}" for key in ("id", "call_id") if key in item}} for item in items)
    )


def _words(message: ResponseOutputMessage) -> list[str]:
    text = "".join(part.text for part in message.content if part.type == "output_text")
    return [f"{word} " for word in text.split(" ")]


def _delta(word: str, number: int) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta",
        delta=word,
        item_id="recorded",
        content_index=0,
        output_index=0,
        sequence_number=number,
        logprobs=[],
    )
