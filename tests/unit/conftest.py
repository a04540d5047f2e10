"""What stands in for servers: a locator whose attempts are scripted, and a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

from agents_redis_ha.keys import SessionKeys, session_keys
from agents_redis_ha.verdicts import AttemptError

settings.register_profile("unit", deadline=None)  # a slow machine is no counterexample
settings.load_profile("unit")


WHO_IS_THERE = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"
I_AM = b"# Replication\r\nrole:master\r\nmaster_replid:" + b"1f" * 20 + b"\r\n"


def introduction(packed: bytes) -> tuple[list[bytes], bytes]:
    """Return the reply to the question in front of a new connection's first request, if it is there, and the rest."""
    return ([I_AM] if packed.startswith(WHO_IS_THERE) else []), packed.removeprefix(WHO_IS_THERE)


class FakeRequest:
    """A request whose `send` nobody calls."""

    sent = False
    confirmation = None
    on_sent: Any = None
    keys: SessionKeys = session_keys("p", "u")


class FakeChanges:
    """Nothing ever changes."""

    changes = 0

    async def wait_for_change(self, seconds: float, since: int) -> None:
        await asyncio.sleep(seconds)


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
        self.failovers: list[str | None] = []
        self.closed = 0
        self.watch: Any = FakeChanges()
        self.node: Any = SimpleNamespace(name="h:1", retired=False, replication_id="1f", learn=lambda info: None)

    async def attempt(self, request: Any) -> tuple[Any, str]:
        self.attempts += 1
        self.requests.append(request)
        request.node = self.node
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if request.on_sent is not None and getattr(reply, "sent", True):
            request.on_sent(getattr(reply, "node", None) or "h:1")
        if callable(reply):
            reply = await reply(request)
        if isinstance(reply, BaseException):
            raise reply
        return reply, "h:1"

    def suspect(self, error: AttemptError) -> None:
        self.suspected.append(error)

    def nodes(self) -> list[Any]:
        return []

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


def described(length: int = 0, version: int = 0) -> list[Any]:
    """Return what a script says about a session; see `description` in prelude.lua."""
    time = b"1700000000000" if version else b""
    return [length, -1 if version else -2, time, time, b"%d" % version if version else b"", b"", b"", []]


def failed(cause: BaseException, *, sent: bool = False, node: str | None = "h:1", **more: Any) -> AttemptError:
    return AttemptError(cause, node=node, sent=sent, **more)


@pytest.fixture(autouse=True)
def _one_way_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fakes answer the same whether or not hiredis is installed; the contract tests run on both."""
    monkeypatch.setattr("agents_redis_ha.operations.HIREDIS_AVAILABLE", False)
