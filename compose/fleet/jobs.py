"""Turns that are answered in the background.

The queue is docket's (`pydocket`): asyncio, Redis Streams, the job of a dead worker is delivered again, trace contexts
travel along. Delivered again is asked again: the message's id is the turn's, and a turn is answered once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from docket import Docket, Retry, Shared

from agents_redis_ha import HAConfig, SessionStore

from .chat import Answer, Message, answer

__all__ = ["QUEUE", "TASKS", "answer_later", "open_queue", "queue_url"]

QUEUE = "chat"
ATTEMPTS = 10
RETRY_SECONDS = 1


@asynccontextmanager
async def _store() -> AsyncIterator[SessionStore]:
    async with SessionStore(HAConfig.from_env()) as store:
        yield store


async def answer_later(
    message: Message,
    store: SessionStore = Shared(_store),  # noqa: B008 (how docket injects)
    retry: Retry = Retry(attempts=ATTEMPTS, delay=timedelta(seconds=RETRY_SECONDS)),  # noqa: ARG001, B008 (docket reads it)
) -> Answer:
    """The job: return the answer to a message, which is stored once however often the job is delivered."""
    return await answer(store, message)


TASKS = [answer_later]


def queue_url() -> str:
    """Return where the queue is: ``QUEUE_URL``."""
    return os.environ.get("QUEUE_URL") or "redis://localhost:6379/0"


def open_queue() -> Docket:
    """Return the queue, to be used as an asynchronous context manager."""
    queue = Docket(QUEUE, queue_url())
    for task in TASKS:
        queue.register(task)
    return queue
