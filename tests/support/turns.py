"""Turns as tests run them: with one tool, elsewhere, and in workers that are stopped."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from agents_redis_ha import RedisHASession, ha_turn
from tests.support.history import message

CALL: Any = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT: Any = {"type": "function_call_output", "call_id": "c1", "output": "o"}
ANSWER: Any = {"role": "assistant", "content": "answer"}


async def run(session: Any, turn_id: str, text: str = "hello", **options: Any) -> Any:
    """Run a turn that calls one tool, as the Runner does."""
    async with ha_turn(session, turn_id, text, **options) as turn:
        if turn.is_answered:
            return turn.result
        if not turn.is_resumed:
            await turn.session.add_items([message(text)])
            await turn.session.add_items([CALL, OUTPUT])
        await turn.session.add_items([ANSWER])
        turn.answer({"text": text, "attempt": turn.attempt})
    return turn.result


def elsewhere(work: Any) -> asyncio.Task[Any]:
    """Let a task run that is no part of a turn's block."""
    return Context().run(asyncio.create_task, work)


def whole(text: str) -> list[Any]:
    return [message(text), CALL, OUTPUT, ANSWER]


async def abandon(
    session: RedisHASession, turn_id: str, *batches: list[Any], text: str = "hello", **options: Any
) -> Any:
    """Begin a turn in a worker that is stopped then: the session is not given back."""

    async def begin() -> Any:
        block = ha_turn(session, turn_id, text, **{"lease_seconds": 1.0, **options})
        turn = await block.__aenter__()
        for batch in batches:
            await turn.session.add_items(batch)
        block._renewal.cancel()
        return block

    return await asyncio.create_task(begin())
