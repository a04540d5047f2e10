"""What the contenders are made to do; each function returns one sample, in seconds for one operation."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from agents_redis_ha.lab.conversations import load_conversations
from tests.benchmarks.contenders import Contender, History

# About as long as the packaged conversations; each append stores two items.
APPENDS_PER_SESSION = 13
READ_ITEMS = 1000
SESSIONS = 64
WRITERS = 50


@dataclass
class Load:
    """The items to store, and the histories that were filled to be read.

    Attributes:
        items: At least `READ_ITEMS` items of real conversations, in order.
        appends: How many appends each of the concurrent sessions makes.
    """

    items: list[Any]
    appends: int = 8
    filled: dict[str, History] = field(default_factory=dict)

    def pairs(self, contender: Contender, count: int) -> list[list[Any]]:
        """Return the first items two by two, as the contender takes them."""
        return [contender.prepare(self.items[index : index + 2]) for index in range(0, 2 * count, 2)]


def real_items(conversations: str | None) -> list[Any]:
    """Return `READ_ITEMS` items of a file of conversations, or of the packaged ones, repeated if need be."""
    found = load_conversations(Path(conversations) if conversations else None)
    return list(islice(cycle([item for one in found for item in one.items]), READ_ITEMS))


def new_id() -> str:
    """Return a session id that nobody has used."""
    return f"user-{uuid.uuid4().hex[:16]}"


async def append(name: str, contender: Contender, load: Load) -> float:
    """One append of two items with a TTL: the median of four new sessions' 13 each."""
    pairs = load.pairs(contender, APPENDS_PER_SESSION)
    took = []
    for _ in range(4):
        history = contender.open(new_id())
        for pair in pairs:
            started = time.perf_counter()
            await history.add_items(pair)
            took.append(time.perf_counter() - started)
    return statistics.median(took)


async def many_sessions(name: str, contender: Contender, load: Load) -> float:
    """One append of two items while 64 sessions append at once."""
    pairs = load.pairs(contender, load.appends)

    async def converse(history: History) -> None:
        for pair in pairs:
            await history.add_items(pair)

    seconds = await _together([converse(contender.open(new_id())) for _ in range(SESSIONS)])
    return seconds / (SESSIONS * len(pairs))


async def one_session(name: str, contender: Contender, load: Load) -> float:
    """One append of two items while 50 writers, each with a session object of its own, append to one session."""
    id_ = new_id()
    [pair] = load.pairs(contender, 1)
    return await _together([contender.open(id_).add_items(pair) for _ in range(WRITERS)]) / WRITERS


async def read(name: str, contender: Contender, load: Load) -> float:
    """One read of all 1,000 items of a session."""
    if name not in load.filled:
        load.filled[name] = contender.open(new_id())
        await load.filled[name].add_items(contender.prepare(load.items))
    started = time.perf_counter()
    found = await load.filled[name].get_items()
    seconds = time.perf_counter() - started
    if len(found) != len(load.items):
        raise RuntimeError(f"{name} read {len(found)} items of {len(load.items)}")
    return seconds


async def _together(jobs: Sequence[Awaitable[None]]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*jobs)
    return time.perf_counter() - started


LOADS: dict[str, Callable[[str, Contender, Load], Awaitable[float]]] = {
    "append": append,
    "many_sessions": many_sessions,
    "one_session": one_session,
    "read": read,
}
