"""Who repairs, who writes on and who is told, where several do it at once or one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest

from agents_redis_ha import HistoryLostError, Outcome, RedisHASession, lab, session_keys
from agents_redis_ha._commands import Command, ServerState, SessionSpec, inspect, load_script
from agents_redis_ha._recovery import coordinator
from tests.support.history import History, Workers, say, texts, told_of_lost


@pytest.fixture
def topology() -> str:
    return "standalone"


async def lose_changes_of_two(history: History, first: RedisHASession, second: RedisHASession) -> None:
    """Have the servers lose a change of the first, which the second has not seen, and the second's behind it."""
    await say(first, "1")
    async with history.losing():
        await say(first, "2")
        await say(second, "3")


async def test_several_late_appends_go_to_the_end_before_the_one_that_notices(
    workers: Workers, history: History
) -> None:
    ours, other = await workers.make(repair={"on_divergence": "append"}), await workers.make()
    await say(ours, "1")
    async with history.losing():
        await say(ours, *"234")
    await say(other, "other")
    await say(ours, "5")
    assert await texts(other) == ["1", "other", "2", "3", "4", "5"]


async def test_a_session_that_expired_by_the_ttl_of_another_is_empty(workers: Workers) -> None:
    ours, other = await workers.make(), await workers.make(ttl=1)
    await say(ours, "1")
    await say(other, "2")
    await asyncio.sleep(1.1)
    began = asyncio.get_running_loop().time()
    assert await texts(ours) == []
    assert (await ours.info()).item_count == 0
    await say(ours, "3")
    assert await texts(ours) == ["3"] == await texts(other)
    assert asyncio.get_running_loop().time() - began < 10  # the deadline is 15 s


async def test_who_knew_nothing_of_the_lost_changes_is_not_told(workers: Workers, history: History) -> None:
    first, second, third = [await workers.make() for _ in range(3)]
    await lose_changes_of_two(history, first, second)
    with pytest.raises(HistoryLostError):
        await say(second, "4")
    await say(third, "5")


async def test_who_knew_nothing_restores_without_an_error(workers: Workers, history: History, servers: lab.Lab) -> None:
    first, second = await workers.make(retry={"deadline_seconds": 0.1}), await workers.make()
    await say(first, "1")
    async with history.losing():
        other = await workers.make()
        await say(other, "2")
        await say(first, "3")
    with pytest.raises(Exception, match="putting back"):
        await say(first, "4")
    await say(second, "5")
    assert await texts(second) == ["1", "3", "5"]


async def test_the_writer_of_a_change_that_others_gave_up_is_told(workers: Workers, history: History) -> None:
    first, second = await workers.make(), await workers.make()
    await lose_changes_of_two(history, first, second)
    with told_of_lost(2):
        await say(second, "4")
    with told_of_lost(2):
        await say(first, "5")
    await say(first, "5")
    assert await texts(second) == ["1", "3", "5"] == await texts(first)


async def test_what_was_read_is_not_put_behind_a_hole_twice(workers: Workers, history: History) -> None:
    first, second, third = [await workers.make() for _ in range(3)]
    await say(first, "1")
    async with history.losing():
        await say(first, "2")
        await say(second, "3")
        await say(third, "4")
        assert await texts(third) == ["1", "2", "3", "4"]
    with pytest.raises(HistoryLostError):
        await second.info()
    with pytest.raises(HistoryLostError):
        await third.get_items()
    assert await texts(third) == ["1", "3"]


async def test_too_few_replicas_for_a_repair_say_nothing_of_the_change(workers: Workers, history: History) -> None:
    durability = {"replicas": 1, "timeout_seconds": 0.1, "on_shortfall": "degrade"}  # this server has none
    patience = {"patience_seconds": 0.1}
    ours = await workers.make(durability=durability, repair=patience, retry={"deadline_seconds": 1})
    other = await workers.make()
    await say(ours, "1")
    async with history.losing():
        await say(other, "2")
        await say(ours, "3")
    with pytest.raises(HistoryLostError) as caught:
        await say(ours, "4")
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert await texts(ours) == ["1", "3"]


@pytest.mark.parametrize("operation", ["read", "append"])
async def test_who_read_what_others_gave_up_is_told_although_the_latest_change_is_there(
    workers: Workers, history: History, operation: str
) -> None:
    first, second, third = [await workers.make() for _ in range(3)]
    await say(first, "1")
    async with history.losing():
        await say(first, "2")
        await say(second, "3")
        assert await texts(third) == ["1", "2", "3"]
    with pytest.raises(HistoryLostError):
        await second.info()
    with told_of_lost(2):
        await (third.get_items() if operation == "read" else say(third, "4"))
    assert await texts(third) == ["1", "3"]


async def test_what_was_given_up_is_said_once_although_that_is_lost_too(workers: Workers, history: History) -> None:
    first, second, third = [await workers.make() for _ in range(3)]
    await lose_changes_of_two(history, first, second)
    with pytest.raises(HistoryLostError):
        await second.info()
    await history.lose()
    await say(second, "4")
    assert await texts(third) == ["1", "3", "4"]


async def test_a_loss_that_a_cancelled_change_finds_is_said_by_the_next(workers: Workers, history: History) -> None:
    first, second = await workers.make(), await workers.make()
    await lose_changes_of_two(history, first, second)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(say(second, "4"), 0.1)  # while it waits for the first
    with told_of_lost(2):
        await second.get_items()
    assert await texts(second) == ["1", "3", "4"]  # a cancelled change is seen through


async def test_a_repair_leaves_the_expiry_to_those_who_set_one(
    workers: Workers, history: History, servers: lab.Lab, session_id: str
) -> None:
    ours, other = await workers.make(), await workers.make(ttl=100)
    await say(other, "1")
    async with history.losing():
        await say(ours, "2")
    keys = session_keys("agents:ha", session_id)
    with servers.client(servers.primary(keys.items)) as client:
        client.expire(keys.items, 100)
        client.expire(keys.meta, 100)
        assert await texts(ours) == ["1", "2"]
        assert client.ttl(keys.items) > 90
        assert client.ttl(keys.meta) > 90


async def test_a_process_that_waits_for_others_leaves_hints_of_what_it_knows_once(
    workers: Workers, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    hinted: list[int] = []

    def inspecting(spec: SessionSpec, hints: Mapping[str, bytes]) -> Command[ServerState]:
        hinted.append(len(hints))
        return inspect(spec, hints)

    monkeypatch.setattr(coordinator, "inspect", inspecting)
    first, second = await workers.make(), await workers.make()
    async with history.losing():
        await say(first, "1")
        await say(second, "2")
    with pytest.raises(HistoryLostError):
        await second.get_items()
    assert len(hinted) > 3  # it looks again and again
    assert sum(hinted) == 1


@pytest.mark.parametrize("name", ["inspect", "restore"])
async def test_a_repair_whose_reply_is_lost_is_made_once(proxied: lab.Lab, session_id: str, name: str) -> None:
    history = History(proxied, session_id)
    async with AsyncExitStack() as stores:
        workers = Workers(proxied, session_id, stores)
        first, second = await workers.make(), await workers.make()
        await lose_changes_of_two(history, first, second)
        proxy = proxied.nodes[0].proxy
        assert proxy is not None
        proxy.cut_next_reply(load_script(name).sha)
        with pytest.raises(HistoryLostError) as caught:
            await second.get_items()
        assert not proxy.cuts_pending
        assert caught.value.versions == (2,)
        assert await texts(second) == ["1", "3"]


async def test_a_fence_by_a_clock_that_has_stepped_back_holds_nobody_up_for_longer_than_the_patience(
    workers: Workers, history: History
) -> None:
    ours, other = await workers.make(), await workers.make(patience_seconds=60)
    await lose_changes_of_two(history, ours, other)
    hour = 3_600_000 + int((await history.meta())[b"updated_at"])
    await history.set_meta(fence=3, fenced_at=hour)
    assert await texts(await workers.make(patience_seconds=0.1)) == ["1"]  # within the deadline of 15 s
    assert b"fence" not in await history.meta()
