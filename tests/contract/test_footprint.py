"""What a session takes on the server beside its items, and what a large one asks of it."""

from __future__ import annotations

import asyncio

import pytest

from agents_redis_ha import ha_session, lab, session_keys
from tests.support.history import History, Workers, message, say, texts

LARGE = message("x" * 100_000)


async def test_an_id_takes_less_than_40_bytes_however_many_there_are(workers: Workers, history: History) -> None:
    ours = await workers.make()
    for number in range(1_000):
        await say(ours, str(number))
    assert await history.bytes_of("ops") < 40 * 1_000
    await ours.add_items([message("x" * 1_000)])
    await ours.pop_item()
    assert await history.bytes_of("ops") < 40 * 1_003


@pytest.mark.parametrize("item", [message("x" * 50_000), LARGE], ids=["judged by the server", "too large for that"])
async def test_what_was_popped_is_not_kept_once_it_has_arrived(
    workers: Workers, history: History, item: dict[str, str]
) -> None:
    ours, other = await workers.make(), await workers.make()
    for _ in range(4):
        await ours.add_items([item] * 12)
    for _ in range(48):
        assert await ours.pop_item() == item
    assert await ours.pop_item() is None
    # 48 times 50,000 were popped; the last one may be asked for again.
    assert await history.bytes_of("ops") + await history.bytes_of("meta") < 120_000
    assert await texts(other) == []


async def test_ids_are_kept_for_the_retention_and_a_quarter(workers: Workers, history: History) -> None:
    ours = await workers.make(op_retention_seconds=100)
    await say(ours, *map(str, range(10)))
    now = int((await history.meta())[b"updated_at"])
    await history.set_meta(low_watermarks=f"3:{now - 130_000} 5:{now - 101_000} 8:{now - 60_000} 9:{now - 30_000}")
    await say(ours, "10")
    assert await kept_ids(history) == 6  # those behind version 5
    assert (await history.meta())[b"low_watermarks"].startswith(f"8:{now - 60_000} 9:{now - 30_000} 11:".encode())
    await say(ours, "11")
    assert await kept_ids(history) == 7


async def kept_ids(history: History) -> int:
    return len(await history.ops()) // 2


async def test_a_clock_that_steps_back_drops_no_id_and_keeps_none_for_longer(
    workers: Workers, history: History
) -> None:
    ours = await workers.make(op_retention_seconds=100)
    await say(ours, "1")
    now = int((await history.meta())[b"updated_at"])
    await history.set_meta(low_watermarks=f"1:{now + 3_600_000}")
    await say(ours, "2")
    assert await kept_ids(history) == 2
    mark = (await history.meta())[b"low_watermarks"].decode()
    assert mark.startswith("2:")
    assert now <= int(mark[2:]) < now + 3_600_000


async def test_results_are_dropped_with_their_ids(workers: Workers, history: History) -> None:
    ours = await workers.make(op_retention_seconds=100)
    await say(ours, "1", "2")
    assert await ours.pop_item() == message("2")
    assert b"result:3" in await history.meta()
    now = int((await history.meta())[b"updated_at"])
    await history.set_meta(low_watermarks=f"3:{now - 101_000}")
    await say(ours, "3")
    assert b"result:3" not in await history.meta()


async def test_a_large_item_is_judged_by_the_client(proxied: lab.Lab, session_id: str) -> None:
    async with ha_session(proxied.config(), session_id) as ours:
        proxy = proxied.primary(session_keys("agents:ha", session_id).items).proxy
        assert proxy is not None
        took: dict[str, list[int]] = {"large": [], "small": []}
        for _ in range(5):  # in a cluster, the slot map may be asked for beside one of them
            await ours.add_items([message("1"), LARGE])
            for size, item in (("large", LARGE), ("small", message("1"))):
                proxy.reset_counters()
                assert await ours.pop_item() == item
                took[size].append(proxy.round_trips)
        assert min(took["large"]) == 3  # asked, read, removed by its index
        assert min(took["small"]) == 1


async def test_a_large_element_that_is_no_item_is_passed_over(
    workers: Workers, servers: lab.Lab, session_id: str
) -> None:
    ours = await workers.make()
    await say(ours, "1")
    keys = session_keys("agents:ha", session_id)
    with servers.client(servers.primary(keys.items)) as client:
        client.rpush(keys.items, b"{" * 70_000)
        assert await ours.pop_item() == message("1")
        assert client.lrange(keys.items, 0, -1) == [b"{" * 70_000]


async def test_a_large_item_that_another_worker_popped_meanwhile_is_handed_out_once(workers: Workers) -> None:
    sessions = [await workers.make() for _ in range(4)]
    await sessions[0].add_items([message(f"{number}" * 70_000) for number in range(8)])
    popped = await asyncio.gather(*(session.pop_item() for session in sessions for _ in range(2)))
    assert sorted(str(item)[-3] for item in popped) == list("01234567")


async def test_a_result_of_a_later_conversation_is_kept_for_its_own_pop(workers: Workers, history: History) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "1")
    assert await ours.pop_item() == message("1")
    await history.delete()
    await say(other, "2")
    assert await other.pop_item() == message("2")  # version 2, too
    await say(ours, "3")
    assert await ours.pop_item() == message("3")
    assert b"result:2" in await history.meta()
