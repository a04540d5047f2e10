"""A turn is stored once and whole, however often it is delivered and whatever comes between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from agents_redis_ha import counters, ha_session, ha_turn, lab
from tests.support.history import Workers, message, texts
from tests.support.turns import CALL, OUTPUT, run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def test_what_a_turn_stores_is_seen_when_it_is_answered(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        await turn.session.add_items([message("hello")])
        await turn.session.add_items([CALL, OUTPUT])
        assert await session.get_items() == []
        assert await turn.session.get_items() == [message("hello"), CALL, OUTPUT]
        turn.answer((1, "x"))
        assert turn.result == [1, "x"]  # as a repeat gets it
    assert await session.get_items() == [message("hello"), CALL, OUTPUT]
    assert (await session.info()).version == 1


async def test_a_turn_that_is_delivered_again_runs_nothing(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    results = [await run(session, "t1") for _ in range(3)]
    assert results == [{"text": "hello", "attempt": 1}] * 3
    assert await session.get_items() == whole("hello")


@standalone
@pytest.mark.parametrize("result", [None, 0, "", "text", {"a": [1, None, 2.5]}, [], True])
async def test_a_result_is_the_same_on_the_first_call_and_on_a_repeat(
    servers: lab.Lab, session_id: str, result: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    for _ in range(2):
        async with ha_turn(session, "t1") as turn:
            if not turn.is_answered:
                turn.answer(result)
        assert turn.result == result
        assert type(turn.result) is type(result)


@standalone
async def test_staged_pops_and_clears_are_published_with_the_turn(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one"), message("two"), message("three")])
    async with ha_turn(session, "t1") as turn:
        assert await turn.session.pop_item() == message("three")
        await turn.session.add_items([message("four")])
        assert await texts(turn.session) == ["one", "two", "four"]  # type: ignore[arg-type]
        assert await texts(session) == ["one", "two", "three"]
        assert await turn.session.pop_item() == message("four")
        assert await turn.session.pop_item() == message("two")
        await turn.session.add_items([message("five")])
        turn.answer()
    assert await texts(session) == ["one", "five"]
    async with ha_turn(session, "t2") as turn:
        await turn.session.clear_session()
        await turn.session.add_items([message("six")])
        turn.answer()
    assert await texts(session) == ["six"]


@standalone
async def test_a_limited_session_reads_on_where_it_has_to(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600, session_settings={"limit": 2})
    await session.add_items([message(str(i)) for i in range(6)])
    async with ha_turn(session, "t1") as turn:
        items: Any = await turn.session.get_items()
        assert [item["content"] for item in items] == ["4", "5"]
        await turn.session.add_items([message("6")])
        items = await turn.session.get_items(5)
        assert [item["content"] for item in items] == ["2", "3", "4", "5", "6"]
        for expected in "6543":
            assert await turn.session.pop_item() == message(expected)
        turn.answer()
    items = await session.get_items(10)
    assert [item["content"] for item in items] == ["0", "1", "2"]


@standalone
async def test_what_is_no_item_is_skipped_and_counted_in_a_turn_too(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one")])
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))
    client.rpush(keys.items, b"corrupt")
    before = counters()["corrupt_items"]
    async with ha_turn(session, "t1") as turn:
        assert await turn.session.get_items() == [message("one")]
        assert counters()["corrupt_items"] == before + 1
        assert await turn.session.pop_item() == message("one")
    assert counters()["corrupt_items"] == before + 2


async def test_pops_in_a_turn_leave_what_is_no_item(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one"), message("two")])
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))
    client.rpush(keys.items, b"corrupt")
    async with ha_turn(session, "t1") as turn:
        assert await turn.session.pop_item() == message("two")
        assert await turn.session.pop_item() == message("one")
        assert await turn.session.pop_item() is None
        turn.answer()
    assert client.lrange(keys.items, 0, -1) == [b"corrupt"]


@standalone
async def test_models_and_dataclasses_are_kept_with_all_their_fields(servers: lab.Lab, session_id: str) -> None:
    class Model(BaseModel):
        text: str
        score: float = 0.5

    @dataclass
    class Data:
        text: str = "x"

    session = ha_session(servers.config(), session_id, ttl=600)
    for turn_id, result, expected in (
        ("t1", Model(text="hi"), {"text": "hi", "score": 0.5}),
        ("t2", Data(), {"text": "x"}),
        ("t3", [Model(text="in a list")], [{"text": "in a list", "score": 0.5}]),
    ):
        async with ha_turn(session, turn_id) as turn:
            turn.answer(result)
        assert turn.result == expected


@standalone
async def test_a_limited_session_pops_on_where_what_was_read_ends(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600, session_settings={"limit": 1})
    await session.add_items([message(str(i)) for i in range(4)])
    async with ha_turn(session, "t1") as turn:
        for expected in "32":
            assert await turn.session.pop_item() == message(expected)
        assert await turn.session.get_items(0) == []
        turn.answer()
    assert await session.get_items(9) == [message("0"), message("1")]


@standalone
async def test_popped_calls_and_outputs_decide_when_a_round_is_saved(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    second = {"call_id": "c2"}

    async def begin() -> None:
        block = ha_turn(ours, "t1", "hello", lease_seconds=1.0)
        turn = await block.__aenter__()
        await turn.session.add_items([CALL, OUTPUT, CALL | second])
        assert await turn.session.pop_item() == CALL | second
        assert await turn.session.pop_item() == OUTPUT
        await turn.session.add_items([OUTPUT | {"output": "again"}])
        block._renewal.cancel()

    await asyncio.create_task(begin())
    async with ha_turn(theirs, "t1", "hello") as turn:
        assert await turn.session.get_items() == [CALL, OUTPUT | {"output": "again"}]
