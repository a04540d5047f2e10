"""The agent, and how it answers a turn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

from agents import Agent, Runner
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel, Field

from agents_redis_ha import SessionStore

from .recorded import RecordedModel
from .turns import Turn

__all__ = ["Answer", "Message", "agent", "answer", "answer_of", "begin", "recorded_model", "run"]

MAX_MODEL_CALLS = 50


class Message(BaseModel):
    """What a user says.

    Attributes:
        conversation: The conversation's id: a secret of its user, so it is in no URL, log or error.
        position: Number of items of the conversation that the user has seen, 0 at its beginning.
        text: The message.
    """

    conversation: str = Field(pattern=r"^[\w.-]{1,100}$")
    position: int = Field(ge=0)
    text: str = Field(min_length=1, max_length=100_000)


class Answer(BaseModel):
    """What the agent answers.

    Attributes:
        text: The answer.
        position: The position of the next message.
    """

    text: str
    position: int


@cache
def agent() -> Agent[None]:
    """Return the agent: one of OpenAI's models if there is a key, else one that says what was recorded."""
    if os.environ.get("OPENAI_API_KEY"):
        return Agent(name="chat", instructions="You are a helpful assistant. Answer briefly.")
    model = recorded_model()
    return Agent(name="chat", model=model, tools=list(model.tools))


@cache
def recorded_model() -> RecordedModel:
    """Return the model that says what is in the file ``RECORDINGS``, within ``RECORDED_SECONDS``."""
    file = os.environ.get("RECORDINGS")
    return RecordedModel(Path(file) if file else None, float(os.environ.get("RECORDED_SECONDS") or 0))


async def begin(store: SessionStore, message: Message) -> Turn:
    """Look at what is stored of a message's turn; see `Turn.begin`."""
    return await Turn.begin(store.session(message.conversation), message.position, message.text)


async def run(turn: Turn) -> AsyncIterator[str]:
    """Run a turn to its end, unless it was answered; yield its answer as it comes.

    Raises:
        ConflictError: Another writer changed the conversation; ask again.
        OperationError: The conversation could not be read or changed; ask again.
    """
    if turn.answer is not None:
        yield turn.answer
        return
    result = Runner.run_streamed(agent(), turn.new_input, session=turn, max_turns=MAX_MODEL_CALLS)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            yield event.data.delta


async def answer(store: SessionStore, message: Message) -> Answer:
    """Return the answer to a message, which is stored once however often this is called."""
    turn = await begin(store, message)
    async for _ in run(turn):
        pass
    return answer_of(turn)


def answer_of(turn: Turn) -> Answer:
    """Return the answer to a turn that was run."""
    return Answer(text=turn.answer or "", position=turn.position)
