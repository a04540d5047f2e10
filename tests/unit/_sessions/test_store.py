"""A store owns its connections: it shares them among its sessions only, and closes them. No servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents.memory import SessionSettings

from agents_redis_ha import (
    ClosedError,
    ConfigurationError,
    HAConfig,
    SessionStore,
    close_shared_connections,
    ha_session,
)
from agents_redis_ha._commands import Status
from agents_redis_ha._sessions import shared_connections
from tests.support.fakes import FakeServer, described, elements

CONFIG = HAConfig(nodes=["h"], key_prefix="p")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[FakeServer]:
    """One for each set of connections that was made."""
    made: list[FakeServer] = []

    def make(config: HAConfig) -> FakeServer:
        clear = [[Status.APPLIED, 1, b"", b"2"], [Status.APPLIED, 2, b"", b"0"]]
        made.append(FakeServer(read=[elements(version=0)], info=[described()], clear=clear))
        return made[-1]

    monkeypatch.setattr(shared_connections, "create_locator", make)
    return made


async def test_a_store_shares_its_connections_with_no_other_and_closes_what_it_made(servers: list[FakeServer]) -> None:
    async with SessionStore(CONFIG) as store, SessionStore(CONFIG) as other:
        for owner in (store, store, other):
            await owner.session("u").get_items()
        await ha_session(CONFIG, "u").get_items()
        assert [len(server.requests) for server in servers] == [2, 1, 1]
        session = store.session("u")
    assert [server.closed for server in servers] == [1, 1, 0]
    with pytest.raises(ClosedError, match="store was closed"):
        await session.get_items()
    with pytest.raises(ClosedError):
        await store.health()
    await close_shared_connections()
    assert [server.closed for server in servers] == [1, 1, 1]


async def test_making_a_store_and_its_sessions_opens_nothing(servers: list[FakeServer]) -> None:
    async with SessionStore(CONFIG) as store:
        store.session("u")
    assert servers == []


def test_a_store_belongs_to_the_loop_of_its_first_use(servers: list[FakeServer]) -> None:
    store = SessionStore(CONFIG)

    async def use() -> Any:
        return await store.session("u").get_items()

    assert asyncio.run(use()) == []
    with pytest.raises(ClosedError, match="another event loop"):
        asyncio.run(use())
    assert len(servers) == 1


async def test_closing_a_session_leaves_the_stores_connections_open(servers: list[FakeServer]) -> None:
    async with SessionStore(CONFIG) as store:
        async with store.session("u") as session:
            await session.get_items()
        assert servers[0].closed == 0
        await store.session("v").get_items()
    await store.close()  # again: it changes nothing
    assert [server.closed for server in servers] == [1]


async def test_deleting_removes_the_session_and_tells_whether_it_had_items(servers: list[FakeServer]) -> None:
    async with SessionStore(CONFIG) as store:
        assert [await store.delete("u"), await store.delete("u")] == [True, False]
    assert [clear.spec.session_id for clear in servers[0].sent("clear")] == ["u", "u"]


async def test_the_stores_settings_are_those_of_its_sessions_unless_they_have_their_own() -> None:
    store = SessionStore(CONFIG, session_settings={"limit": 3})
    assert store.session("u").session_settings == SessionSettings(limit=3)
    assert store.session("u", session_settings={"limit": 5}).session_settings == SessionSettings(limit=5)
    assert store.session("u", session_settings={}).session_settings == SessionSettings()
    assert SessionStore(CONFIG).session("u").session_settings == SessionSettings()
    first, second = store.session(), store.session()
    assert first.session_id != second.session_id
    assert first.session_settings is not second.session_settings


async def test_a_stores_options_win_over_its_configurations() -> None:
    session = SessionStore(CONFIG, ttl=5).session("u")
    assert (session._operations.spec.ttl_ms, session._operations.spec.keys.items) == (5000, b"p:{u}:items")


@pytest.mark.parametrize("given", [{"config": None}, {"config": CONFIG, "ttl": 0}, {"config": CONFIG, "client": 5}])
def test_a_configuration_that_cannot_work_is_refused_at_once(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SessionStore(**given)


async def test_health_is_that_of_the_stores_own_servers(servers: list[FakeServer]) -> None:
    async with SessionStore(CONFIG) as store:
        found = await store.health()
    # The scripted server names no primary that would have to be asked.
    assert (found.topology, found.primaries, found.problems) == ("sentinel", (), ())
    assert len(servers) == 1
