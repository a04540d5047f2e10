"""The main function of a worker process: runs the turns that it is sent, many at a time."""

from __future__ import annotations

import asyncio
import logging
import queue
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.queues import Queue
from typing import Any

from .. import counters
from .messages import (
    COUNTERS,
    TurnError,
    TurnResult,
    TurnTask,
    WorkerReady,
    WorkerSetup,
)
from .scripted import RunWatch, TurnRun, run_turn
from .sessions import SessionSource, open_source

MESSAGE_LENGTH = 300
ORPHAN_CHECK_SECONDS = 1.0


def worker_main(setup: WorkerSetup, inbox: Queue[TurnTask | None], outbox: Queue[TurnResult | WorkerReady]) -> None:
    """Run turns until ``None`` comes.

    Args:
        setup: What this worker is and knows.
        inbox: Turns to run, then ``None``.
        outbox: Takes a ``WorkerReady`` first, then one ``TurnResult`` for each turn.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends its workers
    logging.getLogger("openai.agents").setLevel(logging.CRITICAL)
    logging.getLogger("agents_redis_ha").setLevel(logging.CRITICAL)
    asyncio.run(_serve(setup, inbox, outbox))


async def _serve(setup: WorkerSetup, inbox: Any, outbox: Any) -> None:
    source = open_source(setup.plan)
    tasks = _follow(inbox)
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running: set[asyncio.Task[None]] = set()
    outbox.put(WorkerReady(setup.number))
    try:
        while True:
            upcoming = asyncio.ensure_future(tasks.get())
            either: tuple[asyncio.Future[Any], ...] = (upcoming, broken)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                upcoming.cancel()
                broken.result()  # raises: the process ends, and the parent sees that
            task = upcoming.result()
            if task is None:
                break
            turn = asyncio.create_task(_answer(setup, source, task, outbox))
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


def _follow(inbox: Any) -> asyncio.Queue[TurnTask | None]:
    """What comes in, for the event loop; a daemon thread, so that it never holds up the end."""
    loop = asyncio.get_running_loop()
    tasks: asyncio.Queue[TurnTask | None] = asyncio.Queue()

    def read() -> None:
        while True:
            task = _next_task(inbox)
            loop.call_soon_threadsafe(tasks.put_nowait, task)
            if task is None:
                return

    threading.Thread(target=read, name="inbox", daemon=True).start()
    return tasks


def _next_task(inbox: Any) -> TurnTask | None:
    """What comes next; ``None``, too, when the parent has died without a word."""
    parent = parent_process()
    while True:
        try:
            task: TurnTask | None = inbox.get(timeout=ORPHAN_CHECK_SECONDS)
            return task
        except queue.Empty:
            if parent is None or not parent.is_alive():
                return None


async def _answer(setup: WorkerSetup, source: SessionSource, task: TurnTask, outbox: Any) -> None:
    """Run one turn and report what became of it, whatever that is."""
    conversation = setup.conversations[task.conversation]
    seed = hash((setup.seed, task.conversation, task.turn, task.attempt))
    run = TurnRun(conversation, task.turn, task.attempt, seed, setup.latency_ms)
    began = time.monotonic()
    watch = RunWatch(run)
    error: TurnError | None = None
    try:
        async with source.session(conversation.conversation_id) as session:
            await run_turn(run, session, watch)
    except Exception as failure:  # noqa: BLE001 (the user sees an error; the parent counts it)
        error = describe(failure)
    seconds = time.monotonic() - began - watch.model.seconds
    outbox.put(TurnResult(setup.number, task, seconds, watch.right, error, watch.given, _counters()))


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
