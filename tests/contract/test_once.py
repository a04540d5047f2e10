"""Every changing operation takes effect once, however its reply is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace as replace_fields
from typing import Any

import pytest

from agents_redis_ha import RedisHASession, RetryConfig, counters, ha_session, lab, session_keys
from agents_redis_ha._commands import NO_POSITION, Change, EarlierAttempts, Status, load_script
from agents_redis_ha._commands import pop as pop_command
from agents_redis_ha._connections import Request
from tests.support.history import message

BEFORE = [message("one"), message("two")]


async def append(session: RedisHASession) -> None:
    await session.add_items([message("three"), message("four")])


async def pop(session: RedisHASession) -> None:
    assert await session.pop_item() == message("two")


async def clear(session: RedisHASession) -> None:
    await session.clear_session()


async def replace(session: RedisHASession) -> None:
    assert await session._atomic_replace_items([message("new")])


async def replace_suffix(session: RedisHASession) -> None:
    snapshot = await session._get_compaction_snapshot(10)
    assert snapshot is not None
    assert await snapshot.replace_suffix(1, [message("new")])


AFTER: dict[Callable[[RedisHASession], Awaitable[None]], list[Any]] = {
    append: [*BEFORE, message("three"), message("four")],
    pop: [message("one")],
    clear: [],
    replace: [message("new")],
    replace_suffix: [message("one"), message("new")],
}
changes = pytest.mark.parametrize("change", AFTER, ids=lambda change: change.__name__)


def proxy_of(servers: lab.Lab, session: RedisHASession) -> lab.Proxy:
    proxy = servers.primary(session._operations.spec.keys.items).proxy
    assert proxy is not None
    return proxy


def begin_of(change: Any) -> bytes:
    """Return what stands in front of the id of a changing operation, which has 16 characters."""
    return b":turns\r\n$16\r\n" if change is clear else b":ops\r\n$16\r\n"


async def begin(servers: lab.Lab, session_id: str, **fields: Any) -> RedisHASession:
    """Return a session of two items on servers that know every script, so that no reply is a NOSCRIPT."""
    for node in servers.primaries():
        for name in ("append", "read", "pop", "clear", "replace", "info"):
            servers.client(node).script_load(load_script(name).source)
    session = ha_session(servers.config(**fields), session_id, ttl=600)
    await session.add_items(BEFORE)
    return session


async def assert_changed_once(session: RedisHASession, change: Any, version: int = 2) -> None:
    assert await session.get_items() == AFTER[change]
    assert (await session.info()).version == version


@changes
@pytest.mark.parametrize("times", [1, 3])
async def test_a_change_whose_reply_is_lost_is_there_once(
    proxied: lab.Lab, session_id: str, change: Any, times: int
) -> None:
    session = await begin(proxied, session_id)
    suppressed = counters()["repeats_suppressed"]
    proxy = proxy_of(proxied, session)
    proxy.cut_next_reply(begin_of(change), times=times)
    await change(session)
    assert not proxy.cuts_pending
    assert counters()["repeats_suppressed"] == suppressed + 1
    await assert_changed_once(session, change)


@changes
async def test_a_change_is_there_once_when_the_scripts_are_flushed_before_the_repeat(
    proxied: lab.Lab, session_id: str, change: Any
) -> None:
    session = await begin(proxied, session_id)
    proxy = proxy_of(proxied, session)
    admin = proxied.client(proxied.primary(session._operations.spec.keys.items))

    def flush_after(request: bytes) -> bool:
        hit = begin_of(change) in request and not flushed
        if hit:
            flushed.append(True)
        return hit

    flushed: list[bool] = []
    await asyncio.to_thread(admin.script_flush)
    proxy.cut_replies(flush_after)
    task = asyncio.create_task(change(session))
    await asyncio.to_thread(lab.wait_until, lambda: bool(flushed), "the reply was cut", 10)
    await asyncio.to_thread(admin.script_flush)
    await task
    await assert_changed_once(session, change)


@pytest.mark.parametrize("topology", ["sentinel", "cluster"], indirect=True)
@changes
async def test_a_change_is_there_once_when_a_replica_is_promoted_before_the_repeat(
    proxied: lab.Lab, session_id: str, change: Any
) -> None:
    session = await begin(proxied, session_id, retry=RetryConfig(deadline_seconds=60))
    old = proxied.primary(session._operations.spec.keys.items)
    assert old.proxy is not None
    replica = proxied.replicas_of(old)[0]
    cut: list[bytes] = []

    def cut_and_hold(request: bytes) -> bool:
        if begin_of(change) in request:
            cut.append(request)
            return True
        return False

    old.proxy.cut_replies(cut_and_hold)
    task = asyncio.create_task(change(session))
    await asyncio.to_thread(lab.wait_until, lambda: bool(cut), "the reply was cut", 10)
    await asyncio.to_thread(proxied.promote, replica)
    await task
    old.proxy.heal()
    await assert_changed_once(session, change)
    await asyncio.to_thread(proxied.wait_ready)


@pytest.mark.parametrize("topology", ["cluster"], indirect=True)
@changes
@pytest.mark.parametrize("moved", [False, True], ids=["keys-at-source", "keys-at-target"])
async def test_a_change_whose_reply_is_lost_while_its_slot_moves_is_there_once(
    proxied: lab.Lab, session_id: str, change: Any, moved: bool
) -> None:
    session = await begin(proxied, session_id)
    others = [ha_session(proxied.config(), session_id, ttl=600) for _ in range(4)]
    await asyncio.gather(*(other.get_items() for other in others))  # several free connections
    move = await asyncio.to_thread(proxied.begin_slot_move, session._operations.spec.keys.slot)
    if moved:
        await asyncio.to_thread(move.migrate_keys, None)
    holder = move.target if moved else move.source
    proxy = holder.proxy
    assert proxy is not None
    proxy.cut_next_reply(b":ops\r\n$16\r\n", times=2 if moved else 1)
    task = asyncio.create_task(change(session))
    await asyncio.to_thread(lab.wait_until, lambda: not proxy.cuts_pending or task.done(), "the cuts", 10)
    if not moved:
        # An emptied list is a missing key: the source answers TRYAGAIN for it until the others have moved.
        await asyncio.to_thread(move.migrate_keys, None)
    await task
    assert not proxy.cuts_pending
    await asyncio.to_thread(move.finish)
    await assert_changed_once(session, change)


@pytest.mark.parametrize("topology", ["cluster"], indirect=True)
async def test_a_conversation_can_begin_while_its_slot_moves(servers: lab.Lab, session_id: str) -> None:
    slot = session_keys("agents:ha", session_id).slot
    move = await asyncio.to_thread(servers.begin_slot_move, slot)
    session = ha_session(servers.config(), session_id, ttl=600)
    assert await session.get_items() == []
    await session.add_items(BEFORE)
    assert await session.pop_item() == message("two")
    await session.add_items([message("two")])
    await asyncio.to_thread(move.migrate_keys, None)
    await asyncio.to_thread(move.finish)
    assert await session.get_items() == BEFORE
    assert (await session.info()).version == 3


@pytest.mark.parametrize("topology", ["cluster"], indirect=True)
async def test_writers_of_a_moving_slot_lose_and_double_nothing(servers: lab.Lab, session_id: str) -> None:
    config = servers.config()
    slot = session_keys("agents:ha", session_id).slot
    stop = asyncio.Event()
    written: list[list[str]] = [[] for _ in range(8)]

    async def write(writer: int) -> None:
        session = ha_session(config, session_id)
        while not stop.is_set():
            text = f"{writer}/{len(written[writer])}"
            await session.add_items([message(text)])
            written[writer].append(text)

    writers = [asyncio.create_task(write(w)) for w in range(8)]
    for _ in range(4):
        await asyncio.to_thread(servers.move_slot, slot)
    stop.set()
    await asyncio.gather(*writers)
    texts = [str(item["content"]) for item in await ha_session(config, session_id).get_items()]  # type: ignore[typeddict-item]
    for writer in range(8):
        assert [t for t in texts if t.startswith(f"{writer}/")] == written[writer]
    assert len(texts) == sum(map(len, written)) > 0


@changes
async def test_an_operation_costs_one_round_trip_also_with_a_ttl(
    proxied: lab.Lab, session_id: str, change: Any
) -> None:
    session = await begin(proxied, session_id)
    await session.get_items()
    expected = {replace_suffix: 2}.get(change, 1)  # a suffix: the snapshot, then the compare-and-swap
    proxies = [node.proxy for node in proxied.nodes if node.proxy is not None]
    for proxy in proxies:
        proxy.reset_counters()
    await change(session)
    assert sum(proxy.round_trips for proxy in proxies) == expected
    assert sum(proxy.connections_total for proxy in proxies) == 0
    await session.get_items()
    assert sum(proxy.round_trips for proxy in proxies) == expected + 1


@pytest.mark.parametrize(
    ("is_new", "before", "answer"),
    [(True, [], Status.UNCHANGED), (False, [], Status.UNCHANGED), (False, [b"half"], Status.UNSURE)],
    ids=["new", "emptied", "odd"],
)
async def test_a_pop_that_was_answered_with_nothing_takes_nothing_when_its_first_attempt_arrives_late(
    servers: lab.Lab, session_id: str, is_new: bool, before: list[bytes], answer: Status
) -> None:
    session = ha_session(servers.config(), session_id)
    if not is_new:
        await session.add_items([message("gone")])
        await session.pop_item()
    if before:
        servers.client(servers.primary(session._operations.spec.keys.items)).rpush(
            session._operations.spec.keys.items, *before
        )
    command = pop_command(session._operations.spec)
    known = replace_fields(session._operations._source()._journal.log(session._operations.spec))  # as it is now

    async def attempt(earlier: EarlierAttempts) -> Change:
        request = Request(command, known, lambda node: None, earlier)
        return command.decode(await session._operations._source().executor.locator.attempt(request))

    late = EarlierAttempts()  # its request is still on its way
    assert (await attempt(EarlierAttempts(NO_POSITION, may_be_applied=True))).status is answer
    await session.add_items([message("added")])
    assert [(await attempt(earlier)).status for earlier in (late, late)] == [answer] * 2
    assert await session.get_items() == [message("added")]
    assert await session.pop_item() == message("added")
