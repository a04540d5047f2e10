"""Random writers and readers, and servers that lose random parts of it: what was promised is there, or was said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from agents_redis_ha import HistoryLostError, RedisHASession, SessionStore, lab
from tests.support.history import History, message, texts

ITEMS_OF_A_BATCH = (1, 1, 2, 5)


class InOneStep(History):
    """Throws a history back at once: nobody writes while that is under way."""

    def save(self) -> None:
        with self._client().pipeline(transaction=True) as pipeline:
            for key in self._names():
                pipeline.dump(key)
            self._dumps = dict(zip(self._names(), pipeline.execute(), strict=True))

    def lose(self) -> None:
        with self._client().pipeline(transaction=True) as pipeline:
            pipeline.delete(*self._names())
            for key, dump in self._dumps.items():
                if dump:
                    pipeline.restore(key, 0, dump)
            pipeline.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # redis-py
            pipeline.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]  # redis-py
            pipeline.execute()

    def _client(self) -> Any:
        return self._servers.client(self._servers.primary(self._keys.items))


class Worker:
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


def check(workers: list[Worker], stored: list[str]) -> None:
    at = {text: index for index, text in enumerate(stored)}
    assert len(at) == len(stored), "something is there twice"
    popped = [text for worker in workers for text in worker.popped if not worker.told]
    assert len(popped) == len({*popped}), "something was handed out twice"
    assert not {*popped} & {*stored}, "something was handed out and is there"
    anything = {text for worker in workers for text in worker.popped}
    for worker in workers:
        assert not worker.refused & {*stored}, "something is there that was refused"
        assert len(worker.told) == len({*worker.told}), "a loss was said twice"
        places = [at[text] for batch in worker.confirmed for text in batch if text in at]
        assert places == sorted(places), "the order is another one"
        for batch in worker.confirmed:
            there = [at[text] for text in batch if text in at]
            rest = [text for text in batch if text not in at and text not in anything]
            assert not there or there[-1] - there[0] == len(there) - 1, "a batch is torn"
            assert not rest or worker.told, f"{rest} were lost in silence"


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_in_silence_made_twice_or_told_twice(
    labs: Any, session_id: str, closing: AsyncExitStack, seed: int
) -> None:
    servers: lab.Lab = labs.get("standalone")
    draw = random.Random(seed)
    stores = [SessionStore(servers.config(repair={"patience_seconds": 0.15})) for _ in range(draw.randint(2, 4))]
    for store in stores:
        closing.push_async_callback(store.close)
    workers = [Worker(name, store.session(session_id)) for name, store in enumerate(stores)]
    history = InOneStep(servers, session_id)

    async def lose() -> None:
        await asyncio.sleep(draw.random() * 0.02)
        if draw.random() < 0.8:  # otherwise all is lost
            await asyncio.to_thread(history.save)
        await asyncio.sleep(draw.random() * 0.015)
        await asyncio.to_thread(history.lose)

    work = [worker.work(random.Random(100 * seed + worker.name), 12) for worker in workers]
    await asyncio.gather(lose(), *work)
    for worker in workers:
        await worker.read()
    stored = [await worker.read() for worker in workers]
    async with SessionStore(servers.config(retry={"deadline_seconds": 5})) as store:  # nobody holds it up any more
        assert [await texts(store.session(session_id))] * len(workers) == stored
    check(workers, stored[0])
