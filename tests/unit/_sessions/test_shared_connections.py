"""Which sessions share connections, and that none is left open, used in another loop or after a fork. No servers."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
import weakref
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from agents_redis_ha import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    HAConfig,
    HistoryLostError,
    close_shared_connections,
    ha_session,
)
from agents_redis_ha._sessions import shared_connections
from agents_redis_ha._sessions.shared_connections import owned_coordinator, shared_coordinator
from tests.support.fakes import FakeLocator, described, failed
from tests.support.virtual_time import in_virtual_time

CONFIG = HAConfig(nodes=["h"], password="p")
EMPTY_READ = [described(), 0, []]


class Locators:
    """Makes locators that note when they are used and closed, and in which loop."""

    def __init__(self) -> None:
        self.made: list[FakeLocator] = []

    def __call__(self, config: HAConfig) -> FakeLocator:
        locator = FakeLocator(EMPTY_READ)
        self.made.append(locator)
        return locator

    @property
    def open(self) -> int:
        return sum(1 for locator in self.made if not locator.closed)


@pytest.fixture
def locators(monkeypatch: pytest.MonkeyPatch) -> Locators:
    made = Locators()
    monkeypatch.setattr(shared_connections, "create_locator", made)
    return made


def same_config() -> HAConfig:
    return HAConfig.from_url("redis://:p@h:6379/0")


async def test_equal_configurations_share_one_coordinator_within_a_loop(locators: Locators) -> None:
    sources = [shared_coordinator(CONFIG), shared_coordinator(CONFIG), shared_coordinator(same_config())]
    assert same_config() == CONFIG
    assert len({id(source()) for source in sources}) == 1
    assert sources[0]() is sources[0]()
    assert len(locators.made) == 1
    await close_shared_connections()


async def test_different_configurations_share_nothing(locators: Locators) -> None:
    for change in ({"db": 1}, {"password": "other"}, {"nodes": ["i"]}):
        shared_coordinator(CONFIG.replace(**change))()
    assert len(locators.made) == 3
    await close_shared_connections()
    assert locators.open == 0


async def test_a_users_client_is_shared_with_no_other_ones(locators: Locators) -> None:
    one, other = Redis(), Redis()
    coordinators = [shared_coordinator(CONFIG, client)() for client in (one, one, other)]
    assert coordinators[0] is coordinators[1]
    assert coordinators[0] is not coordinators[2]
    assert shared_coordinator(CONFIG)() not in coordinators
    assert len({coordinator.executor for coordinator in coordinators}) == 2
    await close_shared_connections()


async def test_making_a_session_opens_nothing(locators: Locators) -> None:
    for _ in range(10):
        ha_session(CONFIG)
    assert locators.made == []


def test_a_session_can_be_made_outside_of_any_loop(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    assert asyncio.run(session.get_items()) == []


async def test_a_thousand_sessions_share_one_locator(locators: Locators) -> None:
    await asyncio.gather(*(ha_session(CONFIG).get_items() for _ in range(1000)))
    assert len(locators.made) == 1
    await close_shared_connections()


def test_each_loop_has_connections_of_its_own_and_closes_them_at_its_end(locators: Locators) -> None:
    source = shared_coordinator(CONFIG)
    coordinators = []

    async def job() -> None:
        coordinators.append(source())
        assert locators.open == 1

    for count in range(1, 6):
        asyncio.run(job())
        assert len(locators.made) == count
        assert locators.open == 0
    assert (
        len({id(coordinator) for coordinator in coordinators})
        == len({id(coordinator.executor) for coordinator in coordinators})
        == 5
    )
    assert all(locator.closed == 1 for locator in locators.made)


def test_connections_are_closed_when_the_job_fails_too(locators: Locators) -> None:
    async def job() -> None:
        await ha_session(CONFIG).get_items()
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        asyncio.run(job())
    assert [locator.closed for locator in locators.made] == [1]


def test_one_session_serves_many_loops(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    for _ in range(3):
        assert asyncio.run(session.get_items()) == []
    assert [(locator.attempts, locator.closed) for locator in locators.made] == [(1, 1)] * 3


def test_two_loops_of_two_moments_never_mix(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in (*loops, *loops, *loops):
        loop.run_until_complete(session.get_items())
    assert [locator.attempts for locator in locators.made] == [3, 3]
    for loop in loops:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert locators.open == 0


def test_a_loop_that_was_closed_without_shutting_down_is_forgotten(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.get_items())
    loop.close()
    asyncio.run(session.get_items())
    assert loop not in shared_connections._registry._loops
    assert locators.made[0].closed == 0  # nothing can be awaited there any more
    del session
    gc.collect()


async def test_after_closing_a_session_finds_new_connections(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    await session.get_items()
    await close_shared_connections()
    assert [locator.closed for locator in locators.made] == [1]
    await session.get_items()
    assert [(locator.attempts, locator.closed) for locator in locators.made] == [(1, 1), (1, 0)]
    await close_shared_connections()
    await close_shared_connections()
    assert [locator.closed for locator in locators.made] == [1, 1]


async def test_closing_one_session_leaves_the_shared_connections(locators: Locators) -> None:
    async with ha_session(CONFIG, "u") as session:
        await session.get_items()
    assert locators.open == 1
    with pytest.raises(ClosedError):
        await session.get_items()
    await close_shared_connections()


def test_what_was_closed_by_hand_is_not_closed_again_by_the_loops_end(locators: Locators) -> None:
    async def job() -> None:
        session = ha_session(CONFIG, "u")
        await session.get_items()
        await close_shared_connections()
        gc.collect()  # the first guard is finalised
        await asyncio.sleep(0)
        await session.get_items()

    asyncio.run(job())
    assert [locator.closed for locator in locators.made] == [1, 1]


async def test_after_a_fork_nothing_inherited_is_used_or_closed(
    locators: Locators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_connections, "_registry", registry := shared_connections._Registry())
    session = ha_session(CONFIG, "u")
    await session.get_items()
    registry.leave_behind()  # what os.register_at_fork calls in the child
    await close_shared_connections()
    await session.get_items()
    inherited, own = locators.made
    assert (inherited.attempts, inherited.closed) == (1, 0)
    assert (own.attempts, own.closed) == (1, 0)
    assert registry._inherited  # kept: finalising it would disturb the parent's sockets
    await close_shared_connections()
    assert (inherited.closed, own.closed) == (0, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_starts_without_connections(locators: Locators) -> None:
    session = ha_session(CONFIG, "u")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.get_items())

    def in_the_child() -> int:
        if shared_connections._registry._loops or not shared_connections._registry._inherited:
            return 2
        asyncio.run(session.get_items())
        if [(locator.attempts, locator.closed) for locator in locators.made] != [(1, 0), (1, 1)]:
            return 3
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests; this child makes no use of them
        child = os.fork()
    if child == 0:
        code = 99
        try:
            code = in_the_child()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [(locator.attempts, locator.closed) for locator in locators.made] == [(1, 0)]
    loop.run_until_complete(session.get_items())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert [(locator.attempts, locator.closed) for locator in locators.made] == [(2, 1)]


async def test_a_client_that_cannot_be_used_is_said(locators: Locators) -> None:
    source = shared_coordinator(CONFIG, object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        source()
    assert caught.value.field == "client"


async def test_sessions_that_differ_in_their_lifetime_or_prefix_share_their_connections(locators: Locators) -> None:
    try:
        for tenant in range(50):
            await ha_session(CONFIG, "u", key_prefix=f"tenant-{tenant}", ttl=100 + tenant).get_items()
        assert len(locators.made) == 1
    finally:
        await close_shared_connections()


@in_virtual_time
async def test_sessions_that_share_their_connections_have_each_a_deadline_of_its_own(
    locators: Locators, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = FakeLocator(failed(RedisConnectionError("reset")))
    monkeypatch.setattr(shared_connections, "create_locator", lambda config: lost)
    loop = asyncio.get_running_loop()

    async def time_of(deadline_seconds: float) -> float:
        began = loop.time()
        with pytest.raises(DeadlineExceededError):
            await ha_session(CONFIG, "u", retry={"deadline_seconds": deadline_seconds}).get_items()
        return loop.time() - began

    took = await asyncio.gather(*(time_of(seconds) for seconds in range(1, 11)))
    assert took == [pytest.approx(seconds, abs=0.6) for seconds in range(1, 11)]
    assert len(shared_connections._registry.of(loop).sets) == 1  # type: ignore[union-attr]
    await close_shared_connections()


async def test_what_is_done_about_a_loss_is_each_clients_own(
    locators: Locators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_connections, "create_locator", lambda config: FakeLocator(EMPTY_READ))
    config = CONFIG.replace(key_prefix="own-repair")
    relaxed, strict = (ha_session(config, "u", repair={"on_loss": on_loss}) for on_loss in ("warn", "raise"))
    log = strict._operations._source()._journal.log(strict._operations.spec)
    await relaxed.get_items()
    await strict.get_items()
    log.lost = (3,)
    assert await relaxed.get_items() == []
    with pytest.raises(HistoryLostError, match="versions 3"):
        await strict.get_items()
    assert await strict.get_items() == []  # once
    await close_shared_connections()


async def test_a_journals_bounds_are_the_largest_that_a_client_asks_for(locators: Locators) -> None:
    config = CONFIG.replace(key_prefix="bounds", db=4)
    small, large = ({"max_changes": 10, "max_bytes": 5000}, {"max_changes": 20, "max_bytes": 1000})
    journals = [shared_coordinator(config.replace(repair=repair))()._journal for repair in (small, large, small)]
    assert {(id(journal), journal._max_changes, journal._max_bytes) for journal in journals} == {
        (id(journals[0]), 20, 5000)
    }
    await close_shared_connections()


async def test_there_is_one_journal_for_the_same_servers_however_they_are_connected_to(locators: Locators) -> None:
    config = HAConfig(nodes=["h"], db=5)
    clients = [Redis(host="h", db=5), Redis(host="h", db=5), Redis(host="h", db=6)]
    sources = [shared_coordinator(config), shared_coordinator(config.replace(client_name="other"))]
    sources += [shared_coordinator(HAConfig(nodes=["client"]), client) for client in clients]
    coordinators = [source() for source in sources]
    assert len({id(coordinator) for coordinator in coordinators}) == 5
    first, *others, elsewhere = [coordinator._journal for coordinator in coordinators]
    assert all(journal is first for journal in others)
    assert elsewhere is not first
    await close_shared_connections()


async def test_one_failing_close_does_not_keep_the_others_open(locators: Locators) -> None:
    class Stubborn(FakeLocator):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("cannot close")

    shared_coordinator(CONFIG)()
    other = shared_coordinator(CONFIG.replace(db=1))()
    other.executor.locator = Stubborn(EMPTY_READ)
    shared_coordinator(CONFIG.replace(db=2))()
    with pytest.raises(OSError, match="cannot close"):
        await close_shared_connections()
    await asyncio.sleep(0)
    assert sum(locator.closed for locator in locators.made) == 2
    assert asyncio.get_running_loop() not in shared_connections._registry._loops


async def test_coordinators_of_their_own_share_nothing(locators: Locators) -> None:
    first, second = owned_coordinator(CONFIG), owned_coordinator(CONFIG)
    assert first.executor is not second.executor
    assert first._journal is not second._journal
    assert len(locators.made) == 2
    await first.aclose()
    assert [locator.closed for locator in locators.made] == [1, 0]


def test_what_is_known_of_the_sessions_outlives_the_loop_in_its_thread(locators: Locators) -> None:
    config = CONFIG.replace(key_prefix="outlives", db=3)
    source = shared_coordinator(config)

    async def journal() -> Any:
        return source()._journal

    first, second = asyncio.run(journal()), asyncio.run(journal())
    assert first is second
    elsewhere: list[Any] = []
    thread = threading.Thread(target=lambda: elsewhere.append(asyncio.run(journal())))
    thread.start()
    thread.join()
    assert elsewhere[0] is not first


def test_a_process_keeps_the_journals_of_the_servers_that_it_used_last() -> None:
    journals = shared_connections._Journals()
    configs = [CONFIG.replace(db=number) for number in range(18)]
    first, second = weakref.ref(journals.of(configs[0])), weakref.ref(journals.of(configs[1]))
    in_use = journals.of(configs[2])
    for config in (*configs[3:16], configs[0], configs[16], configs[17]):
        journals.of(config)
    gc.collect()
    assert journals.of(configs[0]) is first()
    assert second() is None  # it was used longest ago
    assert journals.of(configs[2]) is in_use  # as long as there is a coordinator, its journal is not made twice
