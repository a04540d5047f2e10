"""What a worker process does: it runs the turns that it is sent, many at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from .. import counters
from ..lab.workers import Parent
from .messages import (
    COUNTERS,
    TurnError,
    TurnResult,
    TurnTask,
    WorkerSetup,
)
from .scripted import RunWatch, TurnRun, run_turn, said_by_user
from .sessions import SessionSource, open_source

MESSAGE_LENGTH = 300


async def serve(setup: WorkerSetup, parent: Parent) -> None:
    """Run turns until the parent has no more.

    Args:
        setup: What this worker is and knows.
        parent: Sends a ``TurnTask`` for each turn to run, and is sent a ``TurnResult`` for each.
    """
    logging.getLogger("openai.agents").setLevel(logging.CRITICAL)
    logging.getLogger("agents_redis_ha").setLevel(logging.CRITICAL)
    source = open_source(setup.plan)
    tasks = parent.messages()
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running: set[asyncio.Task[None]] = set()
    parent.ready()
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(tasks, None))
            either: tuple[asyncio.Future[Any], ...] = (upcoming, broken)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                upcoming.cancel()
                broken.result()  # raises: the process ends, and the parent sees that
            task = upcoming.result()
            if task is None:
                break
            turn = asyncio.create_task(_answer(setup, source, task, parent))
            running.add(turn)
            turn.add_done_callback(running.discard)
            turn.add_done_callback(lambda done: _notice(done, broken))
        await asyncio.gather(*running)
    finally:
        with suppress(Exception):  # the run is over, and its servers may be down
            await source.close()


def _notice(turn: asyncio.Task[None], broken: asyncio.Future[None]) -> None:
    """Pass on an error in the worker itself; those of a turn are results."""
    error = None if turn.cancelled() else turn.exception()
    if error is not None and not broken.done():
        broken.set_exception(error)


async def _answer(setup: WorkerSetup, source: SessionSource, task: TurnTask, parent: Parent) -> None:
    """Run one turn and report what became of it, whatever that is."""
    conversation = setup.conversations[task.conversation]
    seed = hash((setup.seed, task.conversation, task.turn, task.attempt))
    run = TurnRun(conversation, task.turn, task.attempt, seed, setup.latency_ms)
    began = time.monotonic()
    watch = RunWatch(run)
    error: TurnError | None = None
    try:
        async with source.turn(conversation.conversation_id, f"turn-{task.turn}", said_by_user(run)) as turn:
            if not turn.is_answered:
                turn.answer(await run_turn(run, turn.session, watch, turn.input))
    except Exception as failure:  # noqa: BLE001 (the user sees an error; the parent counts it)
        error = describe(failure)
    seconds = time.monotonic() - began - watch.model.seconds
    parent.send(TurnResult(setup.number, task, seconds, watch.right, error, watch.given, watch.resumed, _counters()))


def describe(failure: BaseException) -> TurnError:
    """What an exception says, cut to a length that can be printed."""
    outcome = getattr(failure, "outcome", None)
    text = " ".join(str(failure).split())[:MESSAGE_LENGTH]
    return TurnError(
        type=type(failure).__name__,
        message=text,
        outcome=None if outcome is None else str(getattr(outcome, "value", outcome)),
    )


def _counters() -> dict[str, int]:
    """The library's counters in this process."""
    snapshot = counters()
    return {name: snapshot.get(name, 0) for name in COUNTERS}
