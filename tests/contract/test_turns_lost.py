"""A turn that another one took, or whose session was changed, stores nothing, whenever its worker wakes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import HistoryLostError, TurnLostError, ha_session, ha_turn, lab
from agents_redis_ha._turns.grant import TurnGrant
from tests.support.history import History, Workers, forget_all, message, texts
from tests.support.turns import CALL, OUTPUT, abandon, elsewhere, run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


async def test_a_worker_that_wakes_after_its_turn_was_taken_is_refused(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    block = await abandon(ours, "t1", [message("hello")])
    await run(theirs, "t1")
    block._turn.answer("ours")
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == whole("hello")
    assert await run(theirs, "t1") == {"text": "hello", "attempt": 2}


@standalone
async def test_a_worker_that_wakes_goes_on_if_nobody_took_its_turn(workers: Workers) -> None:
    ours = await workers.make(**QUICK)
    block = await abandon(ours, "t1", [message("hello")])
    await asyncio.sleep(1.3)  # longer than its lease
    block._turn.answer("ours")
    await block.__aexit__(None, None, None)
    assert await texts(ours) == ["hello"]
    assert await run(ours, "t1") == "ours"


async def test_a_change_after_the_lease_fences_the_turn(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    block = await abandon(ours, "t1", [message("hello")])
    await theirs.add_items([message("plain")])  # it waits for the lease
    block._turn.answer()
    with pytest.raises(TurnLostError) as caught:
        await block.__aexit__(None, None, None)
    assert caught.value.outcome == "not_applied"
    assert await texts(theirs) == ["plain"]


@standalone
async def test_a_turn_that_came_and_went_without_a_change_fences_too(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    block = await abandon(ours, "t1", [message("hello")], [CALL, OUTPUT])
    await abandon(theirs, "t1")  # it resumes, and has the session now
    block._turn.answer()
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == []


@standalone
async def test_a_lost_turn_cancels_its_block_and_says_so_whatever_that_swallows(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    cancelled = asyncio.Event()

    async def lose() -> None:
        async with ha_turn(ours, "t1", "one", lease_seconds=1.0) as turn:
            await run(theirs, "t2", "two", if_busy="rollback")
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
            turn.answer()

    with pytest.raises(TurnLostError):
        await lose()
    assert cancelled.is_set()
    assert await theirs.get_items() == whole("two")


@standalone
async def test_a_lost_turn_cancels_a_block_that_waits_for_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()

    async def lose() -> None:
        async with ha_turn(ours, "t1", "one", lease_seconds=1.0):
            await run(theirs, "t2", "two", if_busy="rollback")
            while True:  # noqa: ASYNC110 (it waits for nothing: there is nothing else to cancel)
                await asyncio.sleep(0)

    with pytest.raises(TurnLostError):
        await lose()


@standalone
async def test_a_refused_attempt_puts_nothing_of_its_own_in_the_place_of_what_was_published(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    block = await abandon(ours, "t1", [message("of the lost attempt")])
    await asyncio.sleep(1.3)
    await history.save()
    await run(theirs, "t1")
    block._turn.answer("lost")
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    await theirs.get_items()
    await history.lose()
    assert await theirs.get_items() == whole("hello")
    assert await ours.get_items() == whole("hello")
    assert (await run(ours, "t1"))["attempt"] == 2


@standalone
async def test_one_whose_publication_was_replaced_by_another_attempts_is_told(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await run(ours, "t0", "zero")
    async with history.losing():
        await run(ours, "t1", "one")
    await run(theirs, "t1", "one")  # it knew nothing of it
    with pytest.raises(HistoryLostError):
        await ours.get_items()


@standalone
async def test_a_stale_turn_does_not_publish_into_a_session_that_was_deleted_and_expired(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    block = await abandon(ours, "t1", [message("stale")])
    await asyncio.sleep(1.3)
    await theirs.add_items([message("one")])
    await theirs.clear_session()
    await history.evict("meta", "ops")  # as they expire
    forget_all(ours)
    block._turn.answer()
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == []


@standalone
async def test_what_was_rolled_back_is_not_taken_up_by_a_save_that_comes_late(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    block = ha_turn(ours, "t1", "hello", on_error="rollback")
    await block.__aenter__()
    await block.__aexit__(KeyError, KeyError(), None)
    with pytest.raises(TurnLostError):
        await block._grant._renew()
    await theirs.add_items([message("at once")])
    assert (await run(theirs, "t1"))["attempt"] == 1


@standalone
async def test_a_token_fences_although_the_other_turn_ended_without_a_change(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    block = await abandon(ours, "t1", [message("stale")])
    async with ha_turn(theirs, "t2", "two"):
        pass
    block._turn.answer()
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == []


@standalone
async def test_renewals_hold_the_session_through_a_server_that_does_not_answer(
    proxied: lab.Lab, session_id: str
) -> None:
    config = {"pool": {"response_timeout_seconds": 0.2, "connect_timeout_seconds": 0.2}, **QUICK}
    session = ha_session(proxied.config(**config), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello", lease_seconds=1.0) as turn:
        proxy = proxied.primary(session._operations.spec.keys.items).proxy
        assert proxy is not None
        proxy.blackhole()
        await asyncio.sleep(1.5)
        proxy.heal()
        turn.answer("yes")
    assert turn.result == "yes"


@standalone
async def test_a_lost_turn_is_told_to_a_suspension_a_save_and_a_read(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    await theirs.add_items([message("one"), message("two")])
    blocks = [await abandon(ours, f"t{i}", [message("hello")]) for i in range(1)]
    await asyncio.sleep(1.3)
    await theirs.add_items([message("three")])
    granted = blocks[0]._grant
    with pytest.raises(TurnLostError):
        await granted.save([b"{}", b"{}"])
    with pytest.raises(TurnLostError):
        await granted.suspend([b"{}"], b"{}")
    with pytest.raises(TurnLostError):
        await granted.read(0)


@standalone
async def test_a_loss_that_a_renewal_is_told_of_while_the_turn_is_published_cancels_nothing(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    told: list[Any] = []
    published = TurnGrant.finish

    async def keep(grant: TurnGrant, on_loss: Any) -> None:
        told.append(on_loss)

    async def finish(grant: TurnGrant, *args: Any, **how: Any) -> None:
        told.pop()()  # the reply to a renewal comes in this moment
        await published(grant, *args, **how)

    monkeypatch.setattr(TurnGrant, "keep", keep)
    monkeypatch.setattr(TurnGrant, "finish", finish)

    async def lose() -> None:
        async with ha_turn(ours, "t1", "one", lease_seconds=1.0) as turn:
            await elsewhere(theirs.clear_session())  # behind the lease, which is not renewed
            turn.answer()

    with pytest.raises(TurnLostError):
        await lose()
    await asyncio.sleep(0)  # nothing is left to be cancelled
