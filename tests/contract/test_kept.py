"""Lost history is noticed by the next operation and put back, or said; what was deleted on purpose stays deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agents_redis_ha import (
    HistoryLostError,
    RedisHASession,
    SessionStore,
    counters,
    ha_session,
    lab,
)
from tests.support.history import History, message, texts


@pytest.fixture
def history(servers: lab.Lab, session_id: str) -> History:
    return History(servers, session_id)


@pytest.fixture
async def workers(servers: lab.Lab, session_id: str) -> AsyncIterator[list[RedisHASession]]:
    """Sessions of the same id that know nothing of each other, as in different processes."""
    stores = [SessionStore(servers.config()) for _ in range(3)]
    yield [store.session(session_id) for store in stores]
    for store in stores:
        await store.close()


async def test_own_appends_that_a_failover_dropped_are_put_back(
    workers: list[RedisHASession], history: History
) -> None:
    ours = workers[0]
    await ours.add_items([message("one")])
    await asyncio.to_thread(history.save)
    await ours.add_items([message("two"), message("three")])
    await ours.add_items([message("four")])
    await asyncio.to_thread(history.lose)
    restored = counters()["changes_restored"]
    assert await texts(ours) == ["one", "two", "three", "four"]
    assert counters()["changes_restored"] == restored + 2
    assert await texts(workers[1]) == ["one", "two", "three", "four"]


async def test_the_next_append_notices(workers: list[RedisHASession], history: History) -> None:
    ours = workers[0]
    await ours.add_items([message("one")])
    await asyncio.to_thread(history.save)
    await ours.add_items([message("two")])
    await asyncio.to_thread(history.lose)
    await ours.add_items([message("three")])
    assert await texts(workers[1]) == ["one", "two", "three"]


async def test_a_session_that_is_gone_altogether_comes_back(workers: list[RedisHASession], history: History) -> None:
    first, second, _ = workers
    await first.add_items([message("one"), message("two")])
    await first.pop_item()
    await first.add_items([message("three")])
    assert await texts(second) == ["one", "three"]
    await second.add_items([message("four")])
    await asyncio.to_thread(history.lose)
    # The second has read what the first wrote; the first is not needed.
    assert await texts(second) == ["one", "three", "four"]
    assert await texts(first) == ["one", "three", "four"]


async def test_pops_clears_and_replacements_are_made_again(workers: list[RedisHASession], history: History) -> None:
    ours = workers[0]
    await ours.add_items([message("gone")])
    await asyncio.to_thread(history.save)
    await ours.clear_session()
    await ours.add_items([message("one"), message("two")])
    await ours.pop_item()
    await ours.add_items([message("three"), message("four")])
    snapshot = await ours._get_compaction_snapshot(2)
    assert snapshot is not None
    assert await snapshot.replace_suffix(1, [message("five")])
    await asyncio.to_thread(history.lose)
    assert await texts(ours) == ["one", "three", "five"]
    assert await texts(workers[1]) == ["one", "three", "five"]


async def test_a_popped_item_is_not_handed_out_again(workers: list[RedisHASession], history: History) -> None:
    first, second, _ = workers
    await first.add_items([message("one"), message("two")])
    await asyncio.to_thread(history.save)
    assert await first.pop_item() == message("two")
    await asyncio.to_thread(history.lose)
    await first.info()
    assert await second.pop_item() == message("one")


async def test_two_who_miss_each_others_changes_put_them_back_in_order(
    workers: list[RedisHASession], history: History
) -> None:
    first, second, third = workers
    await first.add_items([message("0")])
    await asyncio.to_thread(history.save)
    expected = ["0"]
    for i in range(1, 9):
        await (first, second)[i % 2].add_items([message(str(i))])
        expected.append(str(i))
    await asyncio.to_thread(history.lose)
    await asyncio.gather(first.add_items([message("a")]), second.add_items([message("b")]))
    stored = await texts(third)
    assert stored[:9] == expected
    assert sorted(stored[9:]) == ["a", "b"]


async def test_what_nobody_can_put_back_is_said_once(workers: list[RedisHASession], history: History) -> None:
    first, second, _ = workers
    await first.add_items([message("one")])
    await asyncio.to_thread(history.save)
    await second.add_items([message("two")])
    await first.add_items([message("three")])
    await second.close()  # its process dies with the second version
    await asyncio.to_thread(history.lose)
    with pytest.raises(HistoryLostError) as caught:
        await first.add_items([message("four")])
    assert caught.value.versions == (2,)
    assert caught.value.outcome.value in ("not_applied", "unknown")
    assert "version" in str(caught.value)
    await first.add_items([message("four")])
    assert await texts(first) == ["one", "three", "four"]


async def test_where_others_wrote_on_nothing_is_merged_silently(
    workers: list[RedisHASession], history: History
) -> None:
    first, second, _ = workers
    await first.add_items([message("one")])
    await asyncio.to_thread(history.save)
    await first.add_items([message("two")])
    await asyncio.to_thread(history.lose)
    await second.add_items([message("other")])
    with pytest.raises(HistoryLostError) as caught:
        await first.get_items()
    assert caught.value.versions == (2,)
    assert await texts(first) == ["one", "other"]


@pytest.mark.parametrize("lost", [["two"], ["two", "three"]], ids=["as many as others", "more than others"])
async def test_lost_appends_go_to_the_end_where_that_is_wanted(
    servers: lab.Lab, session_id: str, workers: list[RedisHASession], history: History, lost: list[str]
) -> None:
    async with SessionStore(servers.config(repair={"on_divergence": "append"})) as store:
        first = store.session(session_id)
        await first.add_items([message("one")])
        await asyncio.to_thread(history.save)
        for text in lost:
            await first.add_items([message(text)])
        await asyncio.to_thread(history.lose)
        await workers[1].add_items([message("other")])
        await first.add_items([message("last")])
        assert await texts(first) == ["one", "other", *lost, "last"]


@pytest.mark.parametrize("operation", ["append", "read", "info"])
async def test_a_session_that_was_deleted_by_hand_stays_deleted(
    workers: list[RedisHASession], history: History, operation: str
) -> None:
    ours = workers[0]
    await ours.add_items([message("one")])
    await asyncio.to_thread(history.flush)
    began = asyncio.get_running_loop().time()
    if operation == "append":
        await ours.add_items([message("new")])
    elif operation == "info":
        assert (await ours.info()).item_count == 0
    assert await texts(ours) == (["new"] if operation == "append" else [])
    assert asyncio.get_running_loop().time() - began < 1.9  # nobody is waited for


async def test_a_session_that_another_cleared_stays_cleared(workers: list[RedisHASession]) -> None:
    first, second, _ = workers
    await first.add_items([message("one")])
    await second.clear_session()
    assert await texts(first) == []
    await first.add_items([message("two")])
    assert await texts(second) == ["two"]


async def test_everybody_who_knew_is_told_of_what_others_gave_up(
    workers: list[RedisHASession], history: History
) -> None:
    first, second, third = workers
    await first.add_items([message("one")])
    await asyncio.to_thread(history.save)
    await third.add_items([message("two")])
    await second.add_items([message("three")])
    assert await texts(first) == ["one", "two", "three"]
    await first.add_items([message("four")])
    await first.close()
    await asyncio.to_thread(history.lose)
    # The second knows its own change alone, waits for the others in vain, and gives version 2 up.
    with pytest.raises(HistoryLostError) as caught:
        await second.get_items()
    assert caught.value.versions == (2,)
    # The third made it, and comes too late.
    with pytest.raises(HistoryLostError) as caught:
        await third.get_items()
    assert caught.value.versions == (2,)
    assert await texts(third) == ["one", "three"]


def test_what_is_known_outlives_an_event_loop(servers: lab.Lab, session_id: str, history: History) -> None:
    async def turn(*new: str) -> list[Any]:
        session = ha_session(servers.config(), session_id)
        for text in new:
            await session.add_items([message(text)])
        return await texts(session)

    asyncio.run(turn("one"))
    history.save()
    asyncio.run(turn("two"))
    history.lose()
    assert asyncio.run(turn()) == ["one", "two"]
    history.flush()
    assert asyncio.run(turn()) == []
