"""A turn is stored once and whole through lost replies and lost servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import (
    OutcomeLostError,
    RedisHASession,
    TurnBusyError,
    TurnLostError,
    WrongKeyTypeError,
    ha_session,
    ha_turn,
    lab,
    list_suspended,
)
from agents_redis_ha._commands import load_script
from agents_redis_ha._turns import grant
from tests.support.history import History, Workers, message, texts
from tests.support.turns import CALL, OUTPUT, abandon, run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)
SCRIPTS = ("turn_begin", "turn_save", "turn_finish", "turn_end")


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("script", SCRIPTS)
async def test_each_step_is_made_once_when_its_reply_is_lost(
    proxied: lab.Lab, session_id: str, script: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grant, "_LEAVING_SECONDS", 30.0)  # all of the replies are to be lost, however slow that is
    for node in proxied.primaries():
        for name in (*SCRIPTS, "info", "read"):
            proxied.client(node).script_load(load_script(name).source)
    session = ha_session(proxied.config(), session_id, ttl=600)
    await session.add_items([message("before")])
    proxy = proxied.primary(session._operations.spec.keys.items).proxy
    assert proxy is not None
    sha = load_script(script).sha
    async with ha_turn(session, "t0", "hello", on_error="rollback"):
        pass
    proxy.cut_next_reply(sha, times=times)
    if script == "turn_end":
        async with ha_turn(session, "t1", "hello"):
            pass
    result = await run(session, "t1")
    assert result == {"text": "hello", "attempt": 2 if script == "turn_end" else 1}
    assert not proxy.cuts_pending
    assert await session.get_items() == [message("before"), *whole("hello")]
    assert (await session.info()).version == 2
    assert await run(session, "t1") == result


async def test_a_published_turn_that_a_failover_dropped_is_put_back_with_its_result(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(2.0), await workers.make(2.0)
    await run(ours, "t0", "zero")
    async with history.losing():
        await run(ours, "t1", "one")
    assert await ours.get_items() == [*whole("zero"), *whole("one")]
    assert await run(theirs, "t1", "one") == {"text": "one", "attempt": 1}
    assert await theirs.get_items() == [*whole("zero"), *whole("one")]


async def put_back_what_was_read(workers: Workers, history: History) -> RedisHASession:
    """Lose a turn with the server, and return a process that had read it and put it back."""
    ours, theirs = await workers.make(), await workers.make()
    await run(ours, "t0", "zero")
    async with history.losing():
        await run(ours, "t1", "one")
        await theirs.get_items()
    assert await theirs.get_items() == [*whole("zero"), *whole("one")]
    return theirs


async def test_one_that_had_read_the_turn_puts_it_back_and_it_does_not_run_again(
    workers: Workers, history: History
) -> None:
    theirs = await put_back_what_was_read(workers, history)
    async with ha_turn(theirs, "t1", "one") as turn:
        assert turn.is_answered  # its result went with the process that published it
        with pytest.raises(OutcomeLostError):
            assert turn.result


@pytest.mark.parametrize("clears", [False, True])
async def test_a_turn_that_a_reader_put_back_does_not_run_again_when_its_id_is_not_remembered_any_more(
    workers: Workers, history: History, clears: bool
) -> None:
    theirs = await put_back_what_was_read(workers, history)
    if clears:
        await theirs.clear_session()
    await history.evict("ops")  # as it expires
    async with ha_turn(theirs, "t1", "one") as turn:
        assert turn.is_answered
        with pytest.raises(OutcomeLostError):
            assert turn.result
    assert await list_suspended(theirs) == []
    assert await run(theirs, "t2", "two") == {"text": "two", "attempt": 1}


async def test_a_grant_that_was_lost_with_a_server_goes_on_and_its_draft_is_sent_again(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    await run(ours, "t0", "zero")
    async with history.losing():
        block = await abandon(ours, "t1", [message("one")], [CALL, OUTPUT], text="one", lease_seconds=3.0)
    await block._turn.session.add_items([CALL | {"call_id": "c2"}, OUTPUT | {"call_id": "c2"}])
    with pytest.raises(TurnBusyError):
        await run(theirs, "t2", if_busy="reject")
    await asyncio.sleep(3.3)
    async with ha_turn(theirs, "t1", "one") as turn:
        assert len(await turn.session.get_items()) == len(whole("zero")) + 5
        turn.answer()


async def test_a_turn_is_refused_where_the_server_gave_the_session_to_another_after_it_lost_the_grant(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    await run(ours, "t0", "zero")
    async with history.losing():
        block = await abandon(ours, "t1", [message("one")], text="one", lease_seconds=30)
    await abandon(theirs, "t2", [message("two")], text="two", lease_seconds=30)
    block._turn.answer()
    with pytest.raises(TurnLostError):
        await block.__aexit__(None, None, None)
    assert await theirs.get_items() == whole("zero")


@standalone
async def test_a_published_turn_of_which_only_the_begin_was_left_does_not_run_again(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await run(ours, "t0", "zero")
    async with ha_turn(ours, "t1", "one") as turn:
        await turn.session.add_items([message("one")])
        await history.save()  # the replica has the begin, and nothing that follows
        turn.answer("yes")
    await theirs.get_items()
    await history.lose()
    assert await theirs.get_items() == [*whole("zero"), message("one")]
    async with ha_turn(theirs, "t1", "one") as turn:
        assert turn.is_answered
    assert await ours.get_items() == [*whole("zero"), message("one")]


@standalone
async def test_a_clear_that_is_put_back_drops_results_and_drafts(workers: Workers, history: History) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        turn.answer("a secret answer")
    async with history.losing():
        await ours.clear_session()
        await ours.add_items([message("new")])
    assert await texts(ours) == ["new"]
    assert b"secret" not in b" ".join((await history.turns()).values())
    async with ha_turn(theirs, "t1", "hello") as turn:
        assert turn.is_answered


@standalone
async def test_a_turn_that_cannot_be_published_is_begun_again(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(**QUICK), session_id, ttl=600)
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))

    async def fail() -> None:
        async with ha_turn(session, "t1", "hello", lease_seconds=1.0) as turn:
            await turn.session.add_items([message("hello")])
            turn.answer()
            client.set(keys.items, "another application's")

    with pytest.raises(WrongKeyTypeError):
        await fail()
    client.delete(keys.items)
    assert (await run(session, "t1"))["attempt"] == 2
    assert await session.get_items() == whole("hello")
