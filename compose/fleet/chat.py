"""The agent, and how it answers a turn."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from functools import cache
from pathlib import Path

from agents import Agent, Runner
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel, Field

from agents_redis_ha import SessionStore, ha_turn, run_turn

from .recorded import RecordedModel

__all__ = ["Answer", "Message", "agent", "answer", "recorded_model", "stream"]

MAX_MODEL_CALLS = 50


class Message(BaseModel):
    """What a user says.

    Attributes:
        conversation: The conversation's id: a secret of its user, so it is in no URL, log or error.
        id: The message's, new within the conversation, and the same when it is sent again: the turn's id.
        text: The message.
    """

    conversation: str = Field(pattern=r"^[\w.-]{1,100}$")
    id: str = Field(pattern=r"^[\w.-]{1,100}$")
    text: str = Field(min_length=1, max_length=100_000)


class Answer(BaseModel):
    """What the agent answers.

    Attributes:
        text: The answer.
    """

    text: str


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


async def answer(store: SessionStore, message: Message) -> Answer:
    """Return the answer to a message, computed and stored once however often this is called.

    Raises:
        TurnMismatchError: Another message was sent under this id.
        OperationError: The turn was not answered; ask again.
    """
    session = store.session(message.conversation)
    done = await run_turn(agent(), message.text, session=session, turn_id=message.id, max_turns=MAX_MODEL_CALLS)
    return Answer(text=done.output)


async def stream(store: SessionStore, message: Message) -> AsyncGenerator[str | Answer, None]:
    """Yield the pieces of the answer as they come, then the answer: it is stored. Raises what `answer` raises."""
    async with ha_turn(store.session(message.conversation), message.id, message.text) as turn:
        if not turn.is_answered:
            run = Runner.run_streamed(agent(), turn.input, session=turn.session, max_turns=MAX_MODEL_CALLS)
            try:
                async for event in run.stream_events():
                    if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                        yield event.data.delta
            finally:
                run.cancel()  # it would go on in the background where the client has left
            turn.answer(run.final_output)
    yield Answer(text=turn.result)
