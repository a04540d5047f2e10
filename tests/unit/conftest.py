"""What stands in for servers: a locator whose attempts are scripted, and a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from agents_redis_ha.keys import SessionKeys, session_keys
from agents_redis_ha.verdicts import AttemptError

settings.register_profile("unit", deadline=None)  # a slow machine is no counterexample
settings.load_profile("unit")


class FakeRequest:
    """A request whose `send` nobody calls."""

    sent = False
    keys: SessionKeys = session_keys("p", "u")


class FakeLocator:
    """Answers each attempt with the next of its replies; the last one is repeated.

    A reply is raised if it is an exception, called with the request if it can be, and returned otherwise.
    """

    topology: Any = "sentinel"

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.attempts = 0
        self.suspected: list[AttemptError] = []
        self.requests: list[Any] = []
        self.failovers = 0
        self.closed = 0

    async def attempt(self, request: Any) -> tuple[Any, str]:
        self.attempts += 1
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = await reply(request)
        if isinstance(reply, BaseException):
            raise reply
        return reply, "h:1"

    def suspect(self, error: AttemptError) -> None:
        self.suspected.append(error)

    async def primaries(self) -> list[Any]:
        return []

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def locator() -> Callable[..., FakeLocator]:
    return FakeLocator


@pytest.fixture
def request_() -> FakeRequest:
    return FakeRequest()


def failed(cause: BaseException, *, sent: bool = False, node: str | None = "h:1", **more: Any) -> AttemptError:
    return AttemptError(cause, node=node, sent=sent, **more)


@pytest.fixture(autouse=True)
def _one_way_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fakes answer the same whether or not hiredis is installed; the contract tests run on both."""
    monkeypatch.setattr("agents_redis_ha.operations.HIREDIS_AVAILABLE", False)
