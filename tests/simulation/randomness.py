"""What a seed decides, and what stands in the place of the machine's time and chance while a run lasts."""

from __future__ import annotations

import importlib.metadata
import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

from redis.asyncio.connection import AbstractConnection

from agents_redis_ha import _ambient as ambient
from tests.simulation.loop import SimulatedLoop

EPOCH_SECONDS = 1_700_000_000.0
"""What the wall clocks of a run show when its loop's time is 0, in seconds since 1970."""

_version_of = cache(importlib.metadata.version)


class Seed:
    """One number, and as many independent streams of chance as there are names.

    A stream of its own for each thing that draws: so that what one draws does not depend on how often others do, and a
    run from which faults were taken away stays as like the whole one as it can.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def stream(self, name: str) -> random.Random:
        """Return the stream of this name, from its beginning; the same in every process."""
        return random.Random(f"{self.number}/{name}")


class _Chance:
    """What the library draws, from a stream for each process."""

    def __init__(self, loop: SimulatedLoop, seed: Seed) -> None:
        self._loop = loop
        self._seed = seed
        self._streams: dict[Any, random.Random] = {}

    def _stream(self) -> random.Random:
        owner = self._loop.owner
        found = self._streams.get(owner)
        if found is None:
            name = owner.name if owner is not None else "world"
            found = self._streams[owner] = self._seed.stream(f"process/{name}")
        return found

    def random_bytes(self, count: int) -> bytes:
        return self._stream().randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._stream().uniform(low, high)

    def sample(self, items: Any, count: int) -> Any:
        return self._stream().sample(items, count)


@contextmanager
def determined(loop: SimulatedLoop, seed: Seed) -> Iterator[None]:
    """Let everything be decided by the seed and the loop's time while this lasts.

    redis-py keeps connections in sets and goes through these: so a connection's hash is its number. It reads its own
    version from files for each client: so that is read once.
    """
    chance = _Chance(loop, seed)
    numbers = itertools.count(1)

    def hash_of(connection: Any) -> int:
        number = connection.__dict__.get("_number")
        if number is None:
            number = connection.__dict__["_number"] = next(numbers)
        return int(number)

    with ExitStack() as undo:
        for name, replacement in (
            ("monotonic", loop.time),
            ("perf_counter", loop.time),
            ("time_ns", lambda: int((EPOCH_SECONDS + loop.time()) * 1e9)),
            ("random_bytes", chance.random_bytes),
            ("uniform", chance.uniform),
            ("sample", chance.sample),
        ):
            undo.enter_context(mock.patch.object(ambient, name, replacement))
        undo.enter_context(mock.patch.object(AbstractConnection, "__hash__", hash_of))
        undo.enter_context(mock.patch.object(importlib.metadata, "version", _version_of))
        undo.callback(random.setstate, random.getstate())
        random.seed(seed.number)
        yield
