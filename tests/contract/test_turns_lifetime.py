"""What a session and its turns live for: all keys of it end together, whatever a turn or a repeat did last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import ha_session, ha_turn, lab, session_keys
from tests.support.history import message

pytestmark = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def left_of(servers: lab.Lab, session_id: str) -> dict[str, int]:
    """Return how long the keys of a session have left, in ms, in turn before and after one another."""
    keys = session_keys("agents:ha", session_id)
    client: Any = servers.client(servers.primary(keys.items))
    names = ("items", "meta", "ops", "turns")
    found = await asyncio.to_thread(
        client.eval,
        "local t = {} for i, key in ipairs(KEYS) do t[i] = redis.call('PTTL', key) end return t",
        len(names),
        *(getattr(keys, name) for name in names),
    )
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("ttl", "lease"), [(20, 18), (10, 60)], ids=["longer than the lease", "shorter"])
async def test_items_live_as_long_as_their_session_after_a_turn_without_any(
    servers: lab.Lab, session_id: str, ttl: int, lease: int
) -> None:
    session = ha_session(servers.config(retry={"deadline_seconds": 5}), session_id, ttl=ttl)
    await session.add_items([message("one")])
    async with ha_turn(session, "t1", lease_seconds=lease) as turn:
        await asyncio.sleep(0.1)
        turn.answer("pong")
    left = await left_of(servers, session_id)
    assert left["items"] == left["meta"]
    assert left["ops"] <= left["meta"] <= ttl * 1000


async def test_a_repeat_remembers_ids_no_longer_than_the_session_lives(proxied: lab.Lab, session_id: str) -> None:
    session = ha_session(proxied.config(), session_id, ttl=20)
    await session.add_items([message("one")])
    proxy = proxied.primary(session._operations.spec.keys.items).proxy
    assert proxy is not None
    proxy.cut_next_reply(b":ops\r\n$16\r\n")
    await session.add_items([message("two")])
    assert not proxy.cuts_pending
    left = await left_of(proxied, session_id)
    assert 0 < left["ops"] <= left["meta"] == left["items"]


async def test_a_turn_told_again_remembers_ids_no_longer_than_the_session_lives(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=20)
    async with ha_turn(session, "t1", "hello") as turn:
        await turn.session.add_items([message("hello")])
        turn.answer()
    keys = session_keys("agents:ha", session_id)
    await asyncio.to_thread(servers.client(servers.primary(keys.items)).delete, keys.turns)  # as an eviction does
    async with ha_turn(session, "t1", "hello") as turn:
        assert turn.is_answered
    left = await left_of(servers, session_id)
    assert 0 < left["ops"] <= left["meta"] == left["items"]


async def test_a_session_does_not_expire_under_a_turn_of_a_process_without_a_ttl(
    servers: lab.Lab, session_id: str
) -> None:
    await ha_session(servers.config(), session_id, ttl=5).add_items([message("one")])
    session = ha_session(servers.config(retry={"deadline_seconds": 5}), session_id)
    async with ha_turn(session, "t1", lease_seconds=30) as turn:
        left = await left_of(servers, session_id)
        assert 20_000 < left["items"] == left["meta"] <= 30_000
        turn.answer()
    left = await left_of(servers, session_id)
    assert left["items"] == left["meta"] > 0
