"""With `fsync` a change is confirmed when it is on disk; what cannot be flushed, or is not known to be, is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

from agents_redis_ha import (
    Outcome,
    RedisHASession,
    ServerRefusedError,
    SessionStore,
    UnconfirmedError,
    acl_rule,
    counters,
    lab,
    session_keys,
)
from tests.support.history import message

PREFIX = "agents:ha"
replicated = pytest.mark.parametrize("topology", ["sentinel", "cluster"], indirect=True)


@contextmanager
def configured(nodes: Iterable[lab.Node], name: str, value: str) -> Iterator[None]:
    """Set a directive of running servers, and set it back."""
    before = {node: node.ask("CONFIG", "GET", name)[1] for node in nodes}
    for node in before:
        node.ask("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        for node, old in before.items():
            node.ask("CONFIG", "SET", name, old)


@pytest.fixture
def flushing(servers: lab.Lab) -> Iterator[lab.Lab]:
    """Servers that have WAITAOF, and flush with every write."""
    if servers.server_version < (7, 2, 0):
        pytest.skip("WAITAOF needs Redis 7.2")
    with configured(servers.nodes, "appendfsync", "always"):
        yield servers


@pytest.fixture
def primary(servers: lab.Lab, session_id: str) -> lab.Node:
    return servers.primary(session_keys(PREFIX, session_id).items)


@pytest.fixture
async def stores() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def session(flushing: lab.Lab, stores: AsyncExitStack, session_id: str) -> RedisHASession:
    """Of one replica, too, where there are any."""
    replicas = 0 if flushing.topology == "standalone" else 1
    return of(flushing, stores, session_id, {"fsync": True, "replicas": replicas})


@pytest.fixture
def impatient(flushing: lab.Lab, stores: AsyncExitStack, session_id: str) -> RedisHASession:
    return of(flushing, stores, session_id, {"fsync": True, "timeout_seconds": 0.2}, deadline_seconds=1.5)


def of(
    servers: lab.Lab, stores: AsyncExitStack, session_id: str, durability: dict[str, Any], **retry: float
) -> RedisHASession:
    store = SessionStore(servers.config(durability=durability, retry=retry))
    stores.push_async_callback(store.close)
    return store.session(session_id)


def on_disk(node: lab.Node, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in node.directory.glob("appendonlydir/*.incr.aof"))


async def test_a_change_is_in_the_files_when_it_returns(
    session: RedisHASession, flushing: lab.Lab, primary: lab.Node, session_id: str
) -> None:
    for number in range(3):
        text = f"{session_id}-{number}"
        await session.add_items([message(text)])
        assert on_disk(primary, text)
        replicas = flushing.replicas_of(primary)
        assert not replicas or any(on_disk(replica, text) for replica in replicas)
    assert await session.pop_item() == message(f"{session_id}-2")
    await session.clear_session()
    assert await session.get_items() == []


@pytest.mark.parametrize("topology", ["standalone", "tls"], indirect=True)
async def test_confirmed_changes_outlive_a_server_that_dies_at_once(
    session: RedisHASession, flushing: lab.Lab, primary: lab.Node
) -> None:
    await session.add_items([message("one"), message("two")])
    await session.pop_item()
    await asyncio.to_thread(flushing.kill, primary)
    await asyncio.to_thread(flushing.restart, primary)
    assert await session.get_items() == [message("one")]


async def test_what_the_primary_did_not_flush_is_said(impatient: RedisHASession, primary: lab.Node) -> None:
    await impatient.add_items([message("flushed")])
    unconfirmed = counters()["unconfirmed"]
    with configured([primary], "appendfsync", "no"), pytest.raises(UnconfirmedError) as caught:
        await impatient.add_items([message("written")])
    assert caught.value.outcome is Outcome.APPLIED
    assert "not on the primary's disk" in str(caught.value)
    assert "do not send it again" in str(caught.value)
    assert caught.value.attempts > 1
    assert counters()["unconfirmed"] == unconfirmed + 1
    assert await impatient.get_items() == [message("flushed"), message("written")]


async def test_a_late_flush_is_waited_for(session: RedisHASession, primary: lab.Node) -> None:
    with configured([primary], "appendfsync", "no"):
        change = asyncio.ensure_future(session.add_items([message("once")]))
        key = session_keys(PREFIX, session.session_id).items
        await asyncio.to_thread(lab.wait_until, lambda: primary.ask("EXISTS", key.decode()), "the change to be made")
        done, _ = await asyncio.wait([change], timeout=0.3)
        assert not done
    await change
    assert await session.get_items() == [message("once")]


@replicated
async def test_a_replica_without_a_file_confirms_nothing_though_it_has_the_change(
    flushing: lab.Lab, stores: AsyncExitStack, session_id: str, primary: lab.Node
) -> None:
    count = len(flushing.replicas_of(primary))
    wanted = {"replicas": count, "timeout_seconds": 0.2}
    in_memory = of(flushing, stores, session_id, wanted)
    on_disks = of(flushing, stores, session_id, {**wanted, "fsync": True}, deadline_seconds=1.5)
    with configured(flushing.replicas_of(primary), "appendonly", "no"):
        await in_memory.add_items([message("one")])
        with pytest.raises(UnconfirmedError, match=f"on disk on 0 of {count} replicas") as caught:
            await on_disks.add_items([message("two")])
    assert "primary's disk" not in str(caught.value)
    assert caught.value.outcome is Outcome.APPLIED
    assert await in_memory.get_items() == [message("one"), message("two")]


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_degraded_changes_return_with_a_warning(
    flushing: lab.Lab,
    stores: AsyncExitStack,
    session_id: str,
    primary: lab.Node,
    caplog: pytest.LogCaptureFixture,
) -> None:
    durability = {"fsync": True, "timeout_seconds": 0.1, "on_shortfall": "degrade"}
    session = of(flushing, stores, session_id, durability, deadline_seconds=1)
    with caplog.at_level(logging.WARNING, "agents_redis_ha"), configured([primary], "appendfsync", "no"):
        await session.add_items([message("one")])
    assert "not on the primary's disk" in caplog.text
    assert await session.get_items() == [message("one")]


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_a_server_that_keeps_no_file_refuses_clearly(
    flushing: lab.Lab, stores: AsyncExitStack, session_id: str, primary: lab.Node
) -> None:
    session = of(flushing, stores, session_id, {"fsync": True})
    with configured([primary], "appendonly", "no"), pytest.raises(ServerRefusedError, match="appendonly") as caught:
        await session.add_items([message("one")])
    assert caught.value.outcome is Outcome.APPLIED
    assert await session.get_items() == [message("one")]


async def test_the_documented_acl_rule_with_fsync_is_enough(
    topology: str, flushing: lab.Lab, stores: AsyncExitStack, session_id: str
) -> None:
    for node in flushing.nodes:
        node.ask("ACL", "SETUSER", "durable", "on", ">pw", *acl_rule(PREFIX, fsync=True))
    config = flushing.config(username="durable", password="pw", durability="fsync")
    async with SessionStore(config) as store:
        await store.session(session_id).add_items([message("one")])


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_the_confirmation_travels_with_the_change(
    topology: str, labs: Any, flushing: lab.Lab, session_id: str
) -> None:
    proxied = labs.get(topology, proxies=True)
    with configured(proxied.nodes, "appendfsync", "always"):
        async with SessionStore(proxied.config(durability="fsync")) as store:
            session = store.session(session_id)
            await session.add_items([message("first")])
            proxied.primary().proxy.reset_counters()
            await session.add_items([message("second")])
            await session.add_items([message("third")])
            assert proxied.primary().proxy.round_trips == 2


@replicated
async def test_fsync_is_refused_clearly_by_a_server_that_has_none(servers: lab.Lab, session_id: str) -> None:
    if servers.server_version >= (7, 2, 0):
        pytest.skip("this server has WAITAOF")
    async with SessionStore(servers.config(durability="fsync")) as store:
        session = store.session(session_id)
        with pytest.raises(ServerRefusedError, match="WAITAOF") as caught:
            await session.add_items([message("one")])
        assert caught.value.outcome is Outcome.APPLIED
        assert await session.get_items() == [message("one")]
