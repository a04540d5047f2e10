"""The clock and the chance that everything here goes by: the one place where others can be put in their stead.

Each is looked up when it is used (``ambient.monotonic()``), so what is put here holds at once and everywhere. Only the
event loop's own clock is another one: who replaces the loop replaces that.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["monotonic", "perf_counter", "random_bytes", "sample", "time_ns", "uniform"]

_Item = TypeVar("_Item")

monotonic: Callable[[], float] = time.monotonic
"""Seconds that never go back: what expires and what holds is judged by them."""

perf_counter: Callable[[], float] = time.perf_counter
"""Seconds for durations."""

time_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970, for spans."""

random_bytes: Callable[[int], bytes] = os.urandom
"""So many bytes that no other process draws: ids, and what nothing that was stored can hold."""

uniform: Callable[[float, float], float] = random.uniform
"""A number between two others, for waits: a fleet of workers must not go in step."""

sample: Callable[[Sequence[_Item], int], list[_Item]] = random.sample
"""So many of some items."""
