"""Connections that no session uses any more are closed, however they came to be. No servers."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from agents_redis_ha import HAConfig, close_shared_connections, ha_session
from agents_redis_ha import _ambient as ambient
from agents_redis_ha._connections import adopt
from agents_redis_ha._sessions import shared_connections
from tests.support.fakes import FakeLocator, described
from tests.support.recovery import Clock, spec
from tests.support.virtual_time import in_virtual_time

CONFIG = HAConfig(nodes=["h"])
LONG = 3 * shared_connections._LOOK_SECONDS


@pytest.fixture
def locators(monkeypatch: pytest.MonkeyPatch) -> list[FakeLocator]:
    made: list[FakeLocator] = []

    def make(config: HAConfig) -> FakeLocator:
        made.append(FakeLocator([described(), 0, []]))
        return made[-1]

    monkeypatch.setattr(shared_connections, "create_locator", make)
    monkeypatch.setattr(shared_connections, "adopt", lambda client, config: (adopt(client, config)[0], make(config)))
    monkeypatch.setattr(shared_connections, "_registry", shared_connections._Registry())
    return made


def still_open(locators: list[FakeLocator]) -> int:
    gc.collect()  # a failed test's traceback, or a task that has ended, may still hold a session
    return sum(1 for locator in locators if not locator.closed)


@dataclass
class Equal(CredentialProvider):
    """A provider made anew is equal, and like each dataclass that may change it is not hashable."""

    user: str

    def get_credentials(self) -> Any:
        return self.user, "p"


class Anew(CredentialProvider):
    """A provider made anew is another one."""

    def get_credentials(self) -> Any:
        return "u", "p"


def with_provider() -> HAConfig:
    return CONFIG.replace(credential_provider=UsernamePasswordCredentialProvider("u", "p"))


async def request_with_a_provider() -> None:
    await ha_session(with_provider(), "u").get_items()


async def request_with_a_client() -> None:
    client = Sentinel([("h", 1)]).master_for("m")
    await ha_session(client=client, session_id="u").get_items()


REQUESTS = pytest.mark.parametrize("request_", [request_with_a_provider, request_with_a_client])


@REQUESTS
@in_virtual_time
async def test_requests_with_an_object_of_their_own_leave_few_connections_and_after_a_while_none(
    locators: list[FakeLocator], request_: Callable[[], Awaitable[None]]
) -> None:
    for _ in range(50):
        await request_()
    await asyncio.sleep(0.1)  # they are closed in the background
    assert (len(locators), still_open(locators)) == (50, shared_connections._MOST_UNUSED)
    await asyncio.sleep(LONG)
    assert still_open(locators) == 0
    assert all(locator.closed == 1 for locator in locators)


@in_virtual_time
async def test_connections_of_a_configuration_that_is_not_used_any_more_are_closed(locators: list[FakeLocator]) -> None:
    await asyncio.gather(*(ha_session(CONFIG.replace(db=number), "u").get_items() for number in range(20)))
    assert still_open(locators) == 20
    await asyncio.sleep(LONG)
    assert still_open(locators) == 0
    await ha_session(CONFIG, "u").get_items()
    assert still_open(locators) == 1


@in_virtual_time
async def test_connections_stay_as_long_as_a_session_that_has_used_them(locators: list[FakeLocator]) -> None:
    session, other = ha_session(CONFIG, "u"), ha_session(CONFIG, "never used")
    await session.get_items()
    await asyncio.sleep(LONG)
    await session.get_items()
    assert (len(locators), still_open(locators), locators[0].attempts) == (1, 1, 2)
    del session
    await asyncio.sleep(LONG)
    assert still_open(locators) == 0
    await other.get_items()
    assert still_open(locators) == 1


@in_virtual_time
async def test_connections_stay_while_an_operation_is_under_way(
    locators: list[FakeLocator], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(request: Any) -> Any:
        await asyncio.sleep(LONG)
        return [described(), 0, []]

    locators.append(FakeLocator(slow))
    monkeypatch.setattr(shared_connections, "create_locator", lambda config: locators[0])
    patient = {"deadline_seconds": 2 * LONG}
    await ha_session(CONFIG, "u", retry=patient, op_retention_seconds=10_000).get_items()
    assert (len(locators), locators[0].attempts, locators[0].closed) == (1, 1, 0)


@in_virtual_time
async def test_connections_stay_where_each_request_has_a_session_of_its_own(locators: list[FakeLocator]) -> None:
    for _ in range(20):
        await ha_session(CONFIG, "u").get_items()
        await asyncio.sleep(0.9 * shared_connections._LOOK_SECONDS)
    assert (len(locators), still_open(locators)) == (1, 1)


@in_virtual_time
async def test_connections_stay_while_sessions_are_looked_at_in_the_background(locators: list[FakeLocator]) -> None:
    session = ha_session(CONFIG, "u")
    coordinator = session._operations._source()
    looking = asyncio.ensure_future(asyncio.sleep(LONG))
    coordinator._sweep._tasks.add(looking)
    looking.add_done_callback(coordinator._sweep._tasks.discard)
    del session
    await asyncio.sleep(0.9 * LONG)
    assert still_open(locators) == 1
    await asyncio.sleep(LONG)
    assert still_open(locators) == 0


@in_virtual_time
async def test_what_is_known_of_sessions_past_their_retention_is_freed_while_nothing_is_done(
    locators: list[FakeLocator], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(ambient, "monotonic", clock.monotonic)
    session = ha_session(CONFIG.replace(nodes=["freed"]), "u")
    journal = session._operations._source()._journal
    for number in range(20):
        journal.log(spec(f"freed {number}"))
    assert len(journal) == 20
    clock.now += 121
    await asyncio.sleep(LONG)
    assert len(journal) == 0


async def test_an_equal_provider_that_is_made_anew_is_recognised(locators: list[FakeLocator]) -> None:
    for user in ("a", "a", "b", "a"):
        await ha_session(CONFIG, "u", credential_provider=Equal(user)).get_items()
    assert [locator.attempts for locator in locators] == [3, 1]
    await close_shared_connections()


@pytest.mark.parametrize("what", ["credential_provider", "client"])
async def test_an_object_that_is_made_for_each_request_is_warned_of_once(
    locators: list[FakeLocator], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level(logging.WARNING, "agents_redis_ha")
    for number in range(10):
        made = Anew() if what == "credential_provider" else Redis()
        await ha_session(CONFIG, "u", **{what: made}).get_items()  # type: ignore[arg-type]
        assert len(caplog.records) == (number >= 3)
        if number == 5:
            await close_shared_connections()
    (said,) = caplog.messages
    assert said.startswith(f"4 sets of connections to the same servers differ in nothing but their {what}.")
    assert said.endswith(f"make the {what} once, for all sessions")
    await close_shared_connections()


async def test_nothing_is_said_of_objects_that_lead_elsewhere(
    locators: list[FakeLocator], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        await ha_session(session_id="u", client=Redis(host=f"h{number}")).get_items()
        await ha_session(CONFIG.replace(username=f"u{number}", password="p"), "u").get_items()
    assert caplog.records == []
    await close_shared_connections()


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "at the loop's end"])
def test_those_that_are_just_being_closed_are_closed_with_all_others(
    locators: list[FakeLocator], by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close(self: FakeLocator) -> None:
        await asyncio.sleep(0.01)
        self.closed = 1

    async def job() -> None:
        monkeypatch.setattr(FakeLocator, "aclose", close)
        for _ in range(shared_connections._MOST_UNUSED + 1):
            await request_with_a_provider()
        if by_hand:
            await close_shared_connections()

    asyncio.run(job())
    assert [locator.closed for locator in locators] == [1] * len(locators)
