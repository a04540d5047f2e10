"""Waiting for something that can be observed, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from .errors import LabError

T = TypeVar("T")

POLL_SECONDS = 0.02
WAIT_SECONDS = 60.0  # the longest a test waits by default: a busy machine takes its time


def wait_until(
    predicate: Callable[[], T | None],
    what: str | Callable[[], str],
    timeout: float = WAIT_SECONDS,
    *,
    poll_seconds: float = POLL_SECONDS,
) -> T:
    """Return the predicate's first true answer.

    An answer that is false, a `RedisError` and an `OSError` mean "not yet"; any other exception is
    passed on at once. The predicate is asked at least once, and once more after the time is up.

    Args:
        predicate: Asked again and again, from the calling thread.
        what: The condition in words, or a function that says what is still missing; for the error
            message.
        timeout: Seconds; how long to go on asking.
        poll_seconds: Seconds between two questions.

    Raises:
        LabError: The condition did not come true in time. The message names it, and the last
        exception, if any.
    """
    deadline = time.monotonic() + timeout
    while True:
        final = time.monotonic() >= deadline
        failure: Exception | None = None
        try:
            answer = predicate()
            if answer:
                return answer
        except (RedisError, OSError) as error:
            failure = error
        if final:
            words = what if isinstance(what, str) else what()
            because = f" (last error: {failure!r})" if failure else ""
            raise LabError(f"waited {timeout:g} s in vain for: {words}{because}") from failure
        time.sleep(poll_seconds)


def wait_until_complete(missing: Callable[[], str | None], timeout: float = 10.0) -> None:
    """Return when nothing is missing any more.

    Args:
        missing: Says what is, or None; asked again and again, from the calling thread.
        timeout: Seconds; how long to go on asking.

    Raises:
        LabError: Something still is; the message says what was missing last.
    """
    last = "an answer"

    def complete() -> bool:
        nonlocal last
        found = missing()
        last = found or last
        return not found

    wait_until(complete, lambda: last, timeout)
