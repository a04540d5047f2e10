"""What the SDK's Session contract asks of a backend, on every topology."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from agents.memory import Session, SessionSettings

from agents_redis_ha import ClosedError, InvalidItemError, RedisHASession, ha_session, lab, session_keys
from tests.support.history import PATIENT, message


@pytest.fixture
def session(servers: lab.Lab, session_id: str) -> RedisHASession:
    return ha_session(servers.config(retry=PATIENT), session_id, ttl=600)


def elements(servers: lab.Lab, session_id: str, prefix: str = "agents:ha") -> list[bytes]:
    """Read a session's list straight from the node that holds it."""
    key = session_keys(prefix, session_id).items
    stored: Any = servers.client(servers.primary(key)).lrange(key, 0, -1)
    return list(stored)


def push(servers: lab.Lab, session_id: str, *raw: bytes) -> None:
    key = session_keys("agents:ha", session_id).items
    servers.client(servers.primary(key)).rpush(key, *raw)


async def test_a_session_implements_the_sdk_protocol(session: RedisHASession) -> None:
    assert isinstance(session, Session)


async def test_items_come_back_in_order_and_are_plain_json_in_redis(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    await session.add_items([message("one"), message("two")])
    await session.add_items([message("three")])
    assert await session.get_items() == [message("one"), message("two"), message("three")]
    assert [json.loads(e) for e in elements(servers, session_id)] == await session.get_items()


@pytest.mark.parametrize(
    "item",
    [
        {"content": "中文 😀 \u0000 \u2028"},
        {"content": "lone \ud800 surrogate \udfff", "中\udc00": 1},
        {"n": 10**400, "m": -(2**64), "f": 5e-324, "g": 1.7976931348623157e308, "z": -0.0},
        {"deep": json.loads("[" * 400 + "]" * 400)},
        {"a": [], "b": {}, "c": None, "d": [True, False, {"e": ""}]},
        {"": ""},
        {"role": "user", "content": ',123,"],[{'},
    ],
    ids=["unicode", "surrogates", "numbers", "deep", "empty", "empty-key", "punctuation"],
)
async def test_any_json_object_comes_back_exactly(session: RedisHASession, item: Any) -> None:
    await session.add_items([item, message("after")])
    assert await session.get_items() == [item, message("after")]
    assert await session.pop_item() == message("after")
    assert await session.pop_item() == item


async def test_a_five_megabyte_image_comes_back_exactly(session: RedisHASession) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "Ab3+" * 1_310_720}
    await session.add_items([image])
    assert await session.get_items() == [image]
    assert await session.pop_item() == image


async def test_a_batch_of_ten_thousand_items_is_one_change(session: RedisHASession) -> None:
    batch = [message(str(i)) for i in range(10_000)]
    await session.add_items(batch)
    assert await session.get_items() == batch
    assert (await session.info()).version == 1


async def test_batches_of_concurrent_writers_stay_whole(servers: lab.Lab, session_id: str) -> None:
    config = servers.config()

    async def write(writer: int) -> None:
        for n in range(10):
            await ha_session(config, session_id).add_items([message(f"{writer}/{n}/{part}") for part in range(3)])

    await asyncio.gather(*(write(w) for w in range(8)))
    texts: list[str] = [str(item["content"]) for item in await ha_session(config, session_id).get_items()]  # type: ignore[typeddict-item]
    assert len(texts) == len(set(texts)) == 240
    assert all([t.rpartition("/")[2] for t in texts[i : i + 3]] == ["0", "1", "2"] for i in range(0, 240, 3))
    for writer in range(8):
        mine = [t for t in texts if t.startswith(f"{writer}/")]
        assert mine == sorted(mine)


async def test_limits_give_the_newest_items(session: RedisHASession) -> None:
    await session.add_items([message(str(i)) for i in range(5)])
    assert await session.get_items(limit=2) == [message("3"), message("4")]
    assert await session.get_items(limit=99) == [message(str(i)) for i in range(5)]
    assert await session.get_items(limit=0) == []
    assert await session.get_items(limit=-1) == []


async def test_the_default_limit_is_the_session_settings(servers: lab.Lab, session_id: str) -> None:
    for settings in (SessionSettings(limit=2), {"limit": 2}):
        session = ha_session(servers.config(), session_id, session_settings=settings)
        await session.clear_session()
        await session.add_items([message(str(i)) for i in range(5)])
        assert await session.get_items() == [message("3"), message("4")]
        assert len(await session.get_items(limit=4)) == 4


async def test_pop_returns_the_newest_item_until_there_is_none(session: RedisHASession) -> None:
    await session.add_items([message("one"), message("two")])
    assert [await session.pop_item() for _ in range(3)] == [message("two"), message("one"), None]
    await session.add_items([message("three")])
    assert await session.get_items() == [message("three")]


async def test_concurrent_pops_hand_each_item_out_once(session: RedisHASession) -> None:
    await session.add_items([message(str(i)) for i in range(40)])
    popped = await asyncio.gather(*(session.pop_item() for _ in range(50)))
    texts = [item["content"] for item in popped if item is not None]  # type: ignore[typeddict-item]
    assert sorted(texts, key=int) == [str(i) for i in range(40)]  # type: ignore[arg-type]


async def test_clear_removes_everything_and_the_session_can_begin_again(session: RedisHASession) -> None:
    await session.add_items([message("one")])
    await session.clear_session()
    assert await session.get_items() == []
    assert not (await session.info()).exists
    await session.add_items([message("two")])
    assert await session.get_items() == [message("two")]


async def test_a_cleared_session_leaves_nothing_behind_for_good(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    without_ttl = ha_session(servers.config(), session_id)
    await without_ttl.add_items([message("one")])
    await without_ttl.clear_session()
    keys = session_keys("agents:ha", session_id)
    client = servers.client(servers.primary(keys.items))
    assert client.exists(keys.items) == 0
    for key in (keys.meta, keys.ops):
        assert 0 < int(client.pttl(key)) <= 120_000, key
    await without_ttl.add_items([message("two")])
    assert client.pttl(keys.meta) == -1


CORRUPT = [
    b"not json",
    b"\xff\xfe",
    b'{"bad": "\xff"}',
    b"123",
    b'"text"',
    b"null",
    b"",
    b"{",
    b'{"a":1},{"b":2}',
    b"[1",
]


async def test_corrupt_elements_hide_nothing_and_stay_where_they_are(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    push(servers, session_id, *CORRUPT)
    await session.add_items([message("one"), message("two")])
    push(servers, session_id, *CORRUPT)
    await session.add_items([message("three")])
    push(servers, session_id, *CORRUPT)
    assert await session.get_items() == [message("one"), message("two"), message("three")]
    assert await session.get_items(limit=2) == [message("two"), message("three")]
    assert [await session.pop_item() for _ in range(4)] == [message("three"), message("two"), message("one"), None]
    assert elements(servers, session_id) == CORRUPT * 3


async def test_corrupt_elements_that_complete_each_other_stay_corrupt(
    session: RedisHASession, servers: lab.Lab, session_id: str
) -> None:
    push(servers, session_id, b'{"a":[{}', b"{}]}", b"{},{}", b'{"ok":1}')
    assert await session.get_items() == [{"ok": 1}]


async def test_what_is_no_json_object_is_refused_before_anything_is_sent(session: RedisHASession) -> None:
    for bad in ("text", 5, None, ["a"], {"a": object()}, {"a": {1, 2}}, {("a",): 1}):
        with pytest.raises(InvalidItemError) as caught:
            await session.add_items([message("good"), bad])
        assert caught.value.index == 1
        assert "good" not in str(caught.value)
    assert await session.get_items() == []


async def test_an_empty_batch_is_no_change(session: RedisHASession) -> None:
    await session.add_items([])
    assert (await session.info()).version == 0


async def test_the_ttl_slides_with_each_write_on_all_keys(servers: lab.Lab, session_id: str) -> None:
    keys = session_keys("agents:ha", session_id)
    client = servers.client(servers.primary(keys.items))
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one"), message("two")])
    for change in (session.add_items([message("three")]), session.pop_item()):
        for key in (keys.items, keys.meta):
            client.pexpire(key, 5_000)
        await change
        for key in (keys.items, keys.meta):
            assert 590_000 < int(client.pttl(key)) <= 600_000
    await session.get_items()
    info = await session.info()
    assert info.ttl_seconds is not None
    assert 590 < info.ttl_seconds <= 600


async def test_without_a_ttl_nothing_expires_but_the_operation_ids(servers: lab.Lab, session_id: str) -> None:
    keys = session_keys("agents:ha", session_id)
    client = servers.client(servers.primary(keys.items))
    session = ha_session(servers.config(), session_id)
    await session.add_items([message("one")])
    assert (client.pttl(keys.items), client.pttl(keys.meta)) == (-1, -1)
    assert 0 < int(client.pttl(keys.ops)) <= 120_000
    assert (await session.info()).ttl_seconds is None


async def test_info_tells_what_is_kept(session: RedisHASession, session_id: str) -> None:
    assert not (await session.info()).exists
    await session.add_items([message("one")])
    first = await session.info()
    await session.add_items([message("two")])
    await session.pop_item()
    info = await session.info()
    assert (info.session_id, info.exists, info.item_count, info.version, info.generation) == (session_id, True, 1, 3, 1)
    assert info.created_at == first.created_at
    assert info.created_at is not None
    assert info.updated_at is not None
    assert info.created_at <= info.updated_at


HOSTILE_IDS = [
    "u", "u:items", "u:meta", "{u}", "u}x", "{u", "}", "{}", "", "%", "%7D", "%25", "{u}:items", "ü", "u\u0308",
    "\ud800", "\ud801", "a b\n\r\x00", "x" * 10_240, "x" * 10_239 + "y", "*", "?", "[u]",
]  # fmt: skip


async def test_ids_that_are_built_to_collide_stay_apart(servers: lab.Lab, new_id: Callable[[], str]) -> None:
    prefix = new_id()
    sessions = [ha_session(servers.config(), hostile, key_prefix=prefix, ttl=600) for hostile in HOSTILE_IDS]
    order = list(enumerate(sessions))
    random.Random(7).shuffle(order)
    for n, session in order:
        await session.add_items([message(str(n))])
    for n, session in enumerate(sessions):
        assert await session.get_items() == [message(str(n))]
    await sessions[0].clear_session()
    assert [len(await s.get_items()) for s in sessions] == [0] + [1] * (len(sessions) - 1)


async def test_a_generated_id_is_a_new_conversation(servers: lab.Lab) -> None:
    a, b = ha_session(servers.config()), ha_session(servers.config())
    assert a.session_id != b.session_id
    assert await a.get_items() == []


async def test_a_closed_session_refuses_and_leaves_the_others_alone(servers: lab.Lab, session_id: str) -> None:
    async with ha_session(servers.config(), session_id) as session:
        await session.add_items([message("one")])
    for call in (session.get_items, session.pop_item, session.clear_session, lambda: session.add_items([])):
        with pytest.raises(ClosedError):
            await call()
    assert await ha_session(servers.config(), session_id).get_items() == [message("one")]


async def test_a_cancelled_append_is_seen_through(proxied: lab.Lab, session_id: str) -> None:
    session = ha_session(proxied.config(), session_id)
    assert await session.get_items() == []
    key = session_keys("agents:ha", session_id).items
    proxy = proxied.primary(key).proxy
    assert proxy is not None
    proxy.delay(0.2)
    task = asyncio.create_task(session.add_items([message("one")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0.02)  # let the request leave; it makes no difference to the claim if it has not yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.get_items() == [message("one")]
