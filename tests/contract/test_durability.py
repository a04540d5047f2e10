"""A change is confirmed when enough replicas have it; if they do not, the error or the warning says what is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from agents_redis_ha import (
    DeadlineExceededError,
    Outcome,
    RedisHASession,
    SessionStore,
    UnconfirmedError,
    counters,
    ha_turn,
    lab,
    session_keys,
)
from tests.support.history import History, message, texts

REPLICATED = ("sentinel", "cluster")
ONE_REPLICA = {"replicas": 1, "timeout_seconds": 0.2}


@pytest.fixture(params=REPLICATED)
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def session(servers: lab.Lab, session_id: str) -> AsyncIterator[RedisHASession]:
    retry = {"deadline_seconds": 1.5}
    async with SessionStore(servers.config(durability=ONE_REPLICA, retry=retry)) as store:
        yield store.session(session_id)


@contextlib.contextmanager
def replicas_stalled(servers: lab.Lab, session_id: str) -> Iterator[None]:
    """Stop the replicas of the session's primary for less than anybody takes for a failure."""
    replicas = servers.replicas_of(servers.primary(session_keys("agents:ha", session_id).items))
    for replica in replicas:
        servers.stall(replica)
    try:
        yield
    finally:
        for replica in replicas:
            servers.resume(replica)
        servers.wait_ready()


async def test_all_changes_are_on_a_replica_when_they_return(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    key = session_keys("agents:ha", session_id).items
    replicas = servers.replicas_of(servers.primary(key))

    def longest() -> int:
        lengths: list[int] = []
        for replica in replicas:
            with servers.client(replica) as client:
                if servers.topology == "cluster":
                    client.readonly()
                lengths.append(client.llen(key))
        return max(lengths)

    for i in range(20):
        await session.add_items([message(str(i))])
        assert await asyncio.to_thread(longest) == i + 1
    await session.pop_item()
    await session.clear_session()
    assert await session.get_items() == []


async def test_a_shortfall_is_said_with_what_is_there(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    await session.add_items([message("before")])
    unconfirmed = counters()["unconfirmed"]
    with replicas_stalled(servers, session_id), pytest.raises(UnconfirmedError) as caught:
        await session.add_items([message("there")])
    error = caught.value
    assert error.outcome is Outcome.APPLIED
    assert "on 0 of 1 replicas" in str(error)
    assert "do not send it again" in str(error)
    assert error.attempts > 1
    assert counters()["unconfirmed"] == unconfirmed + 1
    assert await session.get_items() == [message("before"), message("there")]


CHANGES: dict[str, Callable[[RedisHASession], Awaitable[Any]]] = {
    "append": lambda session: session.add_items([message("3")]),
    "pop": lambda session: session.pop_item(),
    "clear": lambda session: session.clear_session(),
}


@pytest.mark.parametrize(("operation", "left"), [("append", ["1", "2", "3"]), ("pop", ["1"]), ("clear", [])])
async def test_an_unconfirmed_change_that_a_failover_drops_is_put_back(
    session: RedisHASession, servers: lab.Lab, session_id: str, history: History, operation: str, left: list[str]
) -> None:
    await session.add_items([message("1"), message("2")])
    async with history.losing():
        with replicas_stalled(servers, session_id), pytest.raises(UnconfirmedError):
            await CHANGES[operation](session)
    restored = counters()["changes_restored"]
    assert await eventually_read(session) == left
    assert counters()["changes_restored"] == restored + 1


async def eventually_read(session: RedisHASession) -> list[Any]:
    for _ in range(20):
        with contextlib.suppress(DeadlineExceededError):
            return await texts(session)
    raise AssertionError("nothing can be read any more")


async def test_a_shortfall_that_ends_in_time_is_none(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    with replicas_stalled(servers, session_id):
        change = asyncio.ensure_future(session.add_items([message("once")]))
        await asyncio.sleep(0.5)
        assert not change.done()
    await change
    assert await session.get_items() == [message("once")]


async def test_degraded_changes_return_with_a_warning(
    servers: lab.Lab, session_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    durability = {**ONE_REPLICA, "on_shortfall": "degrade"}
    config = servers.config(durability=durability, retry={"deadline_seconds": 1.5})
    async with SessionStore(config) as store:
        session = store.session(session_id)
        unconfirmed = counters()["unconfirmed"]
        with caplog.at_level(logging.WARNING, "agents_redis_ha"), replicas_stalled(servers, session_id):
            await session.add_items([message("one")])
        assert counters()["unconfirmed"] == unconfirmed + 1
        assert "unconfirmed" in caplog.text
        assert session_id not in caplog.text
        assert await session.get_items() == [message("one")]


async def test_more_replicas_than_there_are_is_a_shortfall(servers: lab.Lab, session_id: str) -> None:
    config = servers.config(durability={"replicas": 9, "timeout_seconds": 0.1}, retry={"deadline_seconds": 4})
    async with SessionStore(config) as store:
        assert await store.session(session_id).get_items() == []  # connected: only the change has that deadline
        with pytest.raises(UnconfirmedError, match="of 9 replicas"):
            await store.session(session_id).add_items([message("one")])


async def test_confirmation_travels_with_the_change(labs: Any, topology: str, session_id: str) -> None:
    proxied = labs.get(topology, proxies=True)
    async with SessionStore(proxied.config(durability=ONE_REPLICA)) as store:
        session = store.session(session_id)
        await session.add_items([message("first")])
        proxy = proxied.primary(session_keys("agents:ha", session_id).items).proxy
        proxy.reset_counters()
        await session.add_items([message("second")])
        await session.add_items([message("third")])
        assert proxy.round_trips == 2


async def test_popping_nothing_needs_no_confirmation(labs: Any, session_id: str) -> None:
    servers = labs.get("standalone")  # it has no replica
    async with SessionStore(servers.config(durability=ONE_REPLICA)) as store:
        assert await store.session(session_id).pop_item() is None


async def test_a_turn_is_repeated_as_answered_only_when_a_replica_has_it(servers: lab.Lab, session_id: str) -> None:
    config = servers.config(durability=ONE_REPLICA, retry={"deadline_seconds": 3})
    async with SessionStore(config) as here, SessionStore(config) as elsewhere:
        for store in (here, elsewhere):  # they know the servers before these are stalled
            await store.session(session_id).get_items()
        with contextlib.ExitStack() as outage:
            block = ha_turn(here.session(session_id), "t1", lease_seconds=10)
            turn = await block.__aenter__()
            outage.enter_context(replicas_stalled(servers, session_id))
            turn.answer("there")
            with pytest.raises(UnconfirmedError):
                await block.__aexit__(None, None, None)
            # On a busy machine not one attempt may be answered in time.
            with pytest.raises((UnconfirmedError, DeadlineExceededError)):
                await ha_turn(elsewhere.session(session_id), "t1", lease_seconds=10).__aenter__()
        async with ha_turn(elsewhere.session(session_id), "t1", lease_seconds=10) as turn:
            assert turn.result == "there"
