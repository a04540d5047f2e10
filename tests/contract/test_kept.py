"""Lost history is noticed by the next operation and put back, or said; what was deleted on purpose stays deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import (
    RedisHASession,
    SessionStore,
    close_shared_connections,
    counters,
    ha_session,
    lab,
    session_keys,
)
from tests.support.history import History, Workers, message, say, texts, told_of_lost


@pytest.fixture
async def sessions(workers: Workers) -> list[RedisHASession]:
    """Sessions of the same id in different processes, as their users have them."""
    return [await workers.make(patience_seconds=2.0) for _ in range(3)]


async def test_own_appends_that_a_failover_dropped_are_put_back(
    sessions: list[RedisHASession], history: History
) -> None:
    ours = sessions[0]
    await say(ours, "one")
    async with history.losing():
        await ours.add_items([message("two"), message("three")])
        await say(ours, "four")
    restored = counters()["changes_restored"]
    assert await texts(ours) == ["one", "two", "three", "four"]
    assert counters()["changes_restored"] == restored + 2
    assert await texts(sessions[1]) == ["one", "two", "three", "four"]


async def test_the_next_append_notices(sessions: list[RedisHASession], history: History) -> None:
    ours = sessions[0]
    await say(ours, "one")
    async with history.losing():
        await say(ours, "two")
    await say(ours, "three")
    assert await texts(sessions[1]) == ["one", "two", "three"]


async def test_a_session_that_is_gone_altogether_comes_back(sessions: list[RedisHASession], history: History) -> None:
    first, second, _ = sessions
    await first.add_items([message("one"), message("two")])
    await first.pop_item()
    await say(first, "three")
    assert await texts(second) == ["one", "three"]
    await say(second, "four")
    await history.lose()
    # The second has read what the first wrote; the first is not needed.
    assert await texts(second) == ["one", "three", "four"]
    assert await texts(first) == ["one", "three", "four"]


async def test_pops_clears_and_replacements_are_made_again(sessions: list[RedisHASession], history: History) -> None:
    ours = sessions[0]
    await say(ours, "gone")
    async with history.losing():
        await ours.clear_session()
        await ours.add_items([message("one"), message("two")])
        await ours.pop_item()
        await ours.add_items([message("three"), message("four")])
        snapshot = await ours._get_compaction_snapshot(2)
        assert snapshot is not None
        assert await snapshot.replace_suffix(1, [message("five")])
    assert await texts(ours) == ["one", "three", "five"]
    assert await texts(sessions[1]) == ["one", "three", "five"]


async def test_a_popped_item_is_not_handed_out_again(sessions: list[RedisHASession], history: History) -> None:
    first, second, _ = sessions
    await first.add_items([message("one"), message("two")])
    async with history.losing():
        assert await first.pop_item() == message("two")
    await first.info()
    assert await second.pop_item() == message("one")


async def test_two_who_miss_each_others_changes_put_them_back_in_order(
    sessions: list[RedisHASession], history: History
) -> None:
    first, second, third = sessions
    await say(first, "0")
    async with history.losing():
        expected = ["0"]
        for i in range(1, 9):
            await say((first, second)[i % 2], str(i))
            expected.append(str(i))
    await asyncio.gather(first.add_items([message("a")]), second.add_items([message("b")]))
    stored = await texts(third)
    assert stored[:9] == expected
    assert sorted(stored[9:]) == ["a", "b"]


async def test_what_nobody_can_put_back_is_said_once(sessions: list[RedisHASession], history: History) -> None:
    first, second, _ = sessions
    await say(first, "one")
    async with history.losing():
        await say(second, "two")
        await say(first, "three")
        await second.close()  # its process dies with the second version
    with told_of_lost(2) as caught:
        await say(first, "four")
    assert caught.value.outcome.value in ("not_applied", "unknown")
    assert "version" in str(caught.value)
    await say(first, "four")
    assert await texts(first) == ["one", "three", "four"]


async def test_where_others_wrote_on_nothing_is_merged_silently(
    sessions: list[RedisHASession], history: History
) -> None:
    first, second, _ = sessions
    await say(first, "one")
    async with history.losing():
        await say(first, "two")
    await say(second, "other")
    with told_of_lost(2):
        await first.get_items()
    assert await texts(first) == ["one", "other"]


@pytest.mark.parametrize("lost", [["two"], ["two", "three"]], ids=["as many as others", "more than others"])
async def test_lost_appends_go_to_the_end_where_that_is_wanted(
    servers: lab.Lab, session_id: str, sessions: list[RedisHASession], history: History, lost: list[str]
) -> None:
    async with SessionStore(servers.config(repair={"on_divergence": "append"})) as store:
        first = store.session(session_id)
        await say(first, "one")
        async with history.losing():
            await say(first, *lost)
        await say(sessions[1], "other")
        await say(first, "last")
        assert await texts(first) == ["one", "other", *lost, "last"]


@pytest.mark.parametrize("operation", ["append", "read", "info"])
async def test_a_session_that_was_deleted_by_hand_stays_deleted(
    workers: Workers, history: History, operation: str
) -> None:
    ours = await workers.make(patience_seconds=10)
    await say(ours, "one")
    await history.delete()
    began = asyncio.get_running_loop().time()
    if operation == "append":
        await say(ours, "new")
    elif operation == "info":
        assert (await ours.info()).item_count == 0
    assert await texts(ours) == (["new"] if operation == "append" else [])
    assert asyncio.get_running_loop().time() - began < 10  # no other process is waited for


@pytest.mark.parametrize("topology", ["sentinel", "cluster"], indirect=True)
async def test_a_session_that_was_deleted_by_hand_after_a_failover_stays_deleted(
    servers: lab.Lab, session_id: str, workers: Workers, history: History
) -> None:
    ours = await workers.make(patience_seconds=10)
    await say(ours, "one")
    replica = servers.replicas_of(servers.primary(session_keys("agents:ha", session_id).items))[0]
    await asyncio.to_thread(servers.promote, replica)
    await say(ours, "two")
    await history.delete()
    assert await texts(ours) == []


@pytest.mark.parametrize("topology", ["sentinel", "cluster"], indirect=True)
async def test_a_session_that_was_deleted_by_hand_before_a_failover_is_taken_for_lost_unless_it_was_used_in_between(
    servers: lab.Lab, session_id: str, workers: Workers, history: History
) -> None:
    ours, other = await workers.make(patience_seconds=0.1), await workers.make(patience_seconds=0.1)
    await say(ours, "one")
    assert await texts(other) == ["one"]
    await history.delete()
    assert await texts(other) == []
    replica = servers.replicas_of(servers.primary(session_keys("agents:ha", session_id).items))[0]
    await asyncio.to_thread(servers.promote, replica)
    assert await texts(other) == []
    assert await texts(ours) == ["one"]


async def test_a_session_that_another_cleared_stays_cleared(sessions: list[RedisHASession]) -> None:
    first, second, _ = sessions
    await say(first, "one")
    await second.clear_session()
    assert await texts(first) == []
    await say(first, "two")
    assert await texts(second) == ["two"]


async def test_everybody_who_knew_is_told_of_what_others_gave_up(
    sessions: list[RedisHASession], history: History
) -> None:
    first, second, third = sessions
    await say(first, "one")
    async with history.losing():
        await say(third, "two")
        await say(second, "three")
        assert await texts(first) == ["one", "two", "three"]
        await say(first, "four")
        await first.close()
    # The second knows its own change alone, waits for the others in vain, and gives version 2 up.
    with told_of_lost(2):
        await second.get_items()
    # The third made it, and comes too late.
    with told_of_lost(2):
        await third.get_items()
    assert await texts(third) == ["one", "three"]


async def test_what_is_known_through_one_set_of_options_is_known_through_another(
    servers: lab.Lab, session_id: str, history: History
) -> None:
    one, other = (
        ha_session(servers.config(), session_id, retry={"deadline_seconds": seconds}, repair={"max_changes": changes})
        for seconds, changes in ((15, 500), (20, 600))
    )
    await say(one, "one")
    async with history.losing():
        await say(one, "two")
        await say(other, "three")
    assert await texts(other) == ["one", "two", "three"]
    assert await texts(one) == ["one", "two", "three"]
    await close_shared_connections()


def test_what_is_known_outlives_an_event_loop(servers: lab.Lab, session_id: str, history: History) -> None:
    async def turn(*new: str) -> list[Any]:
        session = ha_session(servers.config(), session_id)
        await say(session, *new)
        return await texts(session)

    asyncio.run(turn("one"))
    asyncio.run(history.save())
    asyncio.run(turn("two"))
    asyncio.run(history.lose())
    assert asyncio.run(turn()) == ["one", "two"]
    asyncio.run(history.delete())
    assert asyncio.run(turn()) == []
