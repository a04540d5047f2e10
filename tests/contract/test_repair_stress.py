"""Random writers and readers, and servers that lose random parts of it: what was promised is there, or was said."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from agents_redis_ha import HistoryLostError, RedisHASession
from tests.support.history import History, Workers, message, texts

ITEMS_OF_A_BATCH = (1, 1, 2, 5)


class Writer:
    """What one process did, and what it was told."""

    def __init__(self, name: int, session: RedisHASession) -> None:
        self.name = name
        self.session = session
        self.confirmed: list[list[str]] = []
        self.refused: set[str] = set()
        self.popped: list[str] = []
        self.told: list[int] = []

    async def work(self, draw: random.Random, count: int) -> None:
        for number in range(count):
            await asyncio.sleep(draw.random() * 0.003)
            kind = draw.choices(("append", "pop", "read"), (6, 1, 3))[0]
            batch = [f"{self.name}-{number}-{i}" for i in range(draw.choice(ITEMS_OF_A_BATCH))]
            try:
                await self._do(kind, batch, draw.choice((None, 1, 3)))
            except HistoryLostError as error:
                self.told += error.versions
                if kind == "append" and error.outcome.value == "not_applied":
                    self.refused.update(batch)

    async def _do(self, kind: str, batch: list[str], limit: int | None) -> None:
        if kind == "append":
            await self.session.add_items([message(text) for text in batch])
            self.confirmed.append(batch)
        elif kind == "pop":
            popped: Any = await self.session.pop_item()
            self.popped += [popped["content"]] if popped else []
        else:
            await self.session.get_items(limit)

    async def read(self) -> list[str]:
        try:
            return await texts(self.session)
        except HistoryLostError as error:
            self.told += error.versions
            return await texts(self.session)


def check(writers: list[Writer], stored: list[str]) -> None:
    at = {text: index for index, text in enumerate(stored)}
    assert len(at) == len(stored), "something is there twice"
    popped = [text for writer in writers for text in writer.popped if not writer.told]
    assert len(popped) == len({*popped}), "something was handed out twice"
    assert not {*popped} & {*stored}, "something was handed out and is there"
    anything = {text for writer in writers for text in writer.popped}
    for writer in writers:
        assert not writer.refused & {*stored}, "something is there that was refused"
        assert len(writer.told) == len({*writer.told}), "a loss was said twice"
        places = [at[text] for batch in writer.confirmed for text in batch if text in at]
        assert places == sorted(places), "the order is another one"
        for batch in writer.confirmed:
            there = [at[text] for text in batch if text in at]
            rest = [text for text in batch if text not in at and text not in anything]
            assert not there or there[-1] - there[0] == len(there) - 1, "a batch is torn"
            assert not rest or writer.told, f"{rest} were lost in silence"


@pytest.fixture
def topology() -> str:
    return "standalone"


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_in_silence_made_twice_or_told_twice(
    workers: Workers, history: History, seed: int
) -> None:
    draw = random.Random(seed)
    sessions = [await workers.make(patience_seconds=0.15) for _ in range(draw.randint(2, 4))]
    writers = [Writer(name, session) for name, session in enumerate(sessions)]

    async def lose() -> None:
        await asyncio.sleep(draw.random() * 0.02)
        if draw.random() < 0.8:  # otherwise all is lost
            await history.save()
        await asyncio.sleep(draw.random() * 0.015)
        await history.lose()

    work = [writer.work(random.Random(100 * seed + writer.name), 12) for writer in writers]
    await asyncio.gather(lose(), *work)
    for writer in writers:
        await writer.read()
    stored = [await writer.read() for writer in writers]
    reader = await workers.make(patience_seconds=2.0, retry={"deadline_seconds": 5})
    assert [await texts(reader)] * len(writers) == stored  # nothing holds it up any more
    check(writers, stored[0])
