"""A turn is stored once and whole, however often it is delivered and whatever comes between."""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from agents import Agent, UserError
from agents.extensions.memory import EncryptedSession
from pydantic import BaseModel

from agents_redis_ha import (
    ClosedError,
    DeadlineExceededError,
    HAConfig,
    HistoryLostError,
    InvalidResultError,
    OperationError,
    OutcomeLostError,
    RedisHASession,
    TurnBusyError,
    TurnCancelledError,
    TurnLostError,
    TurnMismatchError,
    WrongKeyTypeError,
    claim_turn,
    counters,
    ha_session,
    ha_turn,
    lab,
    list_suspended,
)
from agents_redis_ha._commands import load_script
from agents_redis_ha._turns import grant
from tests.support.history import History, Workers, forget_all, message, texts

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
CALL: Any = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT: Any = {"type": "function_call_output", "call_id": "c1", "output": "o"}
ANSWER: Any = {"role": "assistant", "content": "answer"}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)
SCRIPTS = ("turn_begin", "turn_save", "turn_finish", "turn_end")


async def run(session: Any, turn_id: str, text: str = "hello", **options: Any) -> Any:
    """Run a turn that calls one tool, as the Runner does."""
    async with ha_turn(session, turn_id, text, **options) as turn:
        if turn.is_answered:
            return turn.result
        if not turn.is_resumed:
            await turn.session.add_items([message(text)])
            await turn.session.add_items([CALL, OUTPUT])
        await turn.session.add_items([ANSWER])
        turn.answer({"text": text, "attempt": turn.attempt})
    return turn.result


def elsewhere(work: Any) -> asyncio.Task[Any]:
    """Let a task run that is no part of a turn's block."""
    return Context().run(asyncio.create_task, work)


def whole(text: str) -> list[Any]:
    return [message(text), CALL, OUTPUT, ANSWER]


async def abandon(
    session: RedisHASession, turn_id: str, *batches: list[Any], text: str = "hello", **options: Any
) -> Any:
    """Begin a turn in a worker that is stopped then: the session is not given back."""

    async def begin() -> Any:
        block = ha_turn(session, turn_id, text, **{"lease_seconds": 1.0, **options})
        turn = await block.__aenter__()
        for batch in batches:
            await turn.session.add_items(batch)
        block._renewal.cancel()
        return block

    return await asyncio.create_task(begin())


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
async def test_the_same_id_with_another_message_is_refused(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await run(session, "t1")
    with pytest.raises(TurnMismatchError):
        await run(session, "t1", "something else")
    assert await session.get_items() == whole("hello")


async def test_turns_do_not_interleave_and_run_in_the_order_of_arrival(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    tasks = []
    async with ha_turn(session, "first") as turn:
        for i in range(5):
            tasks.append(elsewhere(run(session, f"t{i}", str(i))))
            await queued(servers, session, i + 1)
        turn.answer()
    await asyncio.gather(*tasks)
    assert await session.get_items() == [item for i in range(5) for item in whole(str(i))]


async def queued(servers: lab.Lab, session: RedisHASession, number: int) -> None:
    """Wait until so many turns are in the queue."""
    keys = session._operations.spec.keys
    client = servers.client(servers.primary(keys.items))

    def waits() -> bool:
        queue: Any = client.hget(keys.turns, "queue")
        return len((queue or b"").split()) == 2 * number

    await asyncio.to_thread(lab.wait_until, waits, f"{number} turns wait", 20)


async def test_info_tells_which_turn_has_the_session_and_since_when(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make()
    assert (await theirs.info()).turn is None
    await abandon(ours, "t1", [message("hello")])
    first = (await theirs.info()).turn
    async with ha_turn(theirs, "t1", "hello") as turn:  # as soon as the lease is over
        begun = (await ours.info()).turn
        await turn.session.add_items([CALL, OUTPUT])
        renewed = (await ours.info()).turn
        turn.answer()
    assert first is not None
    assert begun is not None
    assert renewed is not None
    assert [(each.id, each.attempt) for each in (first, begun, renewed)] == [("t1", 1), ("t1", 2), ("t1", 2)]
    assert first.held_since + timedelta(seconds=1) == first.held_until <= begun.held_since == renewed.held_since
    assert begun.held_until <= renewed.held_until
    info = await theirs.info()
    assert (info.turn, info.item_count) == (None, 2)


@standalone
async def test_one_whose_turn_runs_elsewhere_waits_for_its_result(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        repeat = elsewhere(run(theirs, "t1", if_busy="reject"))  # that is for other ids
        await asyncio.sleep(0.1)
        assert not repeat.done()
        turn.answer("ours")
    assert await repeat == "ours"


@standalone
async def test_a_turn_that_may_not_wait_is_refused(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        with pytest.raises(TurnBusyError) as caught:
            await run(session, "t2", if_busy="reject")
        assert caught.value.outcome == "not_applied"
        with pytest.raises(TurnBusyError):
            await run(session, "t2", wait_seconds=0.2)
        turn.answer()
    assert await run(session, "t2") == {"text": "hello", "attempt": 1}


@standalone
@pytest.mark.parametrize("save", ["steps", "end"])
async def test_an_interrupted_turn_leaves_what_it_had_saved(workers: Workers, save: Any) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_interrupted() -> None:
        async with ha_turn(ours, "t1", "one", save=save) as turn:
            await turn.session.add_items([message("one")])
            await turn.session.add_items([CALL, OUTPUT])
            await turn.session.add_items([CALL])  # no output: it is not saved
            await run(theirs, "t2", "two", if_busy="interrupt")
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_interrupted()
    saved = [message("one"), CALL, OUTPUT] if save == "steps" else []
    assert await theirs.get_items() == [*saved, *whole("two")]
    with pytest.raises(TurnCancelledError):
        await run(ours, "t1", "one")
    assert await ours.get_items() == [*saved, *whole("two")]


@standalone
async def test_a_turn_that_is_rolled_back_leaves_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_rolled_back() -> None:
        async with ha_turn(ours, "t1", "one") as turn:
            await turn.session.add_items([message("one")])
            await turn.session.add_items([CALL, OUTPUT])
            await run(theirs, "t2", "two", if_busy="rollback")
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_rolled_back()
    assert await theirs.get_items() == whole("two")
    with pytest.raises(TurnCancelledError):
        await run(theirs, "t1", "one")


@standalone
async def test_a_turn_that_was_cancelled_stays_so_where_the_other_one_changed_nothing(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()

    async def be_cancelled() -> None:
        async with ha_turn(ours, "t1", "one") as turn:
            async with ha_turn(theirs, "t2", "two", if_busy="rollback"):
                pass
            turn.answer()

    with pytest.raises(TurnLostError):
        await be_cancelled()
    with pytest.raises(TurnCancelledError):
        await run(ours, "t1", "one")
    assert await theirs.get_items() == []


@pytest.mark.parametrize(("if_unanswered", "resumed"), [("resume", [message("hello"), CALL, OUTPUT]), ("restart", [])])
async def test_what_a_worker_had_saved_is_resumed(workers: Workers, if_unanswered: Any, resumed: list[Any]) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    await abandon(ours, "t1", [message("hello")], [CALL, OUTPUT], [CALL])
    async with ha_turn(theirs, "t1", "hello", if_unanswered=if_unanswered) as turn:
        assert await turn.session.get_items() == resumed
        assert (turn.is_resumed, turn.input) == ((True, []) if resumed else (False, "hello"))
        assert turn.attempt == 2
        await turn.session.add_items([ANSWER])
        turn.answer()
    assert await theirs.get_items() == [*resumed, ANSWER]


@standalone
async def test_a_draft_is_no_part_of_the_history_until_it_is_resumed(workers: Workers) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    await abandon(ours, "t1", [message("hello")], [CALL, OUTPUT])
    await run(theirs, "t2", "two")
    assert await theirs.get_items() == whole("two")
    await run(theirs, "t1")
    assert await theirs.get_items() == [*whole("two"), message("hello"), CALL, OUTPUT, ANSWER]


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


async def test_plain_changes_wait_for_a_turn(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    has_begun = asyncio.Event()

    async def append() -> None:
        await has_begun.wait()
        await theirs.add_items([message("plain")])

    appended = asyncio.create_task(append())  # not from within the turn
    async with ha_turn(ours, "t1", "hello") as turn:
        has_begun.set()
        await turn.session.add_items([message("hello")])
        await asyncio.sleep(0.1)
        assert not appended.done()
        turn.answer()
    await appended
    assert await texts(ours) == ["hello", "plain"]


@standalone
@pytest.mark.parametrize("operation", ["add_items", "pop_item", "clear_session"])
async def test_a_change_that_waits_too_long_is_refused(workers: Workers, operation: str) -> None:
    ours, theirs = await workers.make(), await workers.make(**QUICK)
    await ours.add_items([message("before")])
    async with ha_turn(ours, "t1", "hello") as turn:
        arguments = ([message("no")],) if operation == "add_items" else ()
        with pytest.raises(TurnBusyError) as caught:
            await getattr(theirs, operation)(*arguments)
        assert caught.value.outcome == "not_applied"
        turn.answer()
    assert await texts(ours) == ["before"]


@standalone
async def test_a_tool_that_writes_to_the_plain_session_of_its_turn_is_told_at_once(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(retry={"deadline_seconds": 30.0}), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TurnBusyError, match=r"turn\.session"):
            await asyncio.create_task(session.add_items([message("no")]))
        assert asyncio.get_running_loop().time() - began < 15  # not the deadline
        turn.answer()
    await session.add_items([message("behind it")])
    assert await texts(session) == ["behind it"]


@standalone
@pytest.mark.parametrize(("on_error", "attempt", "resumed"), [("keep", 2, True), ("rollback", 1, False)])
@pytest.mark.parametrize("as_function", [False, True])
async def test_a_block_that_raises(
    servers: lab.Lab, session_id: str, on_error: Any, attempt: int, resumed: bool, as_function: bool
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    met: list[BaseException] = []

    def decide(error: BaseException) -> Any:
        met.append(error)
        return on_error

    async def fail() -> None:
        async with ha_turn(session, "t1", "hello", on_error=decide if as_function else on_error) as turn:
            await turn.session.add_items([message("hello")])
            await turn.session.add_items([CALL, OUTPUT])
            raise KeyError("what")

    with pytest.raises(KeyError):
        await fail()
    assert [type(error) for error in met] == ([KeyError] if as_function else [])
    assert await session.get_items() == []
    async with ha_turn(session, "t1", "hello") as turn:  # it waits for no lease
        assert (turn.attempt, turn.is_resumed) == (attempt, resumed)
        turn.answer()


@standalone
async def test_a_block_that_is_left_without_an_answer_is_unanswered(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        await turn.session.add_items([message("hello")])
    assert await session.get_items() == []
    assert await run(session, "t1") == {"text": "hello", "attempt": 2}
    assert await session.get_items() == whole("hello")


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
async def test_a_cancelled_block_stays_cancelled(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    began = asyncio.Event()

    async def block() -> None:
        async with ha_turn(session, "t1", "hello"):
            began.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(block())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await run(session, "t1") == {"text": "hello", "attempt": 2}


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
async def test_clearing_drops_results_and_drafts_and_keeps_the_ids(workers: Workers, history: History) -> None:
    ours, theirs = await workers.make(**QUICK), await workers.make(**QUICK)
    async with ha_turn(ours, "t1", "hello") as turn:
        turn.answer("a secret answer")
    await abandon(ours, "t2", [message("hello")], [CALL, OUTPUT | {"output": "a secret output"}])
    await asyncio.sleep(1.3)
    await theirs.clear_session()
    stored = await history.turns()
    assert b"secret" not in b" ".join(stored.values())
    async with ha_turn(ours, "t1", "hello") as turn:
        assert turn.is_answered
        with pytest.raises(OutcomeLostError):
            assert turn.result
    async with ha_turn(ours, "t2", "hello") as turn:
        assert not turn.is_resumed


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


async def test_one_that_had_read_the_turn_puts_it_back_and_it_does_not_run_again(
    workers: Workers, history: History
) -> None:
    ours, theirs = await workers.make(), await workers.make()
    await run(ours, "t0", "zero")
    async with history.losing():
        await run(ours, "t1", "one")
        await theirs.get_items()
    assert await theirs.get_items() == [*whole("zero"), *whole("one")]
    async with ha_turn(theirs, "t1", "one") as turn:
        assert turn.is_answered  # its result went with the process that published it
        with pytest.raises(OutcomeLostError):
            assert turn.result


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


async def test_what_cannot_be_is_refused_before_anything_is_sent(session_id: str) -> None:
    session = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    for wrong in (
        {"if_busy": "wait"},
        {"if_unanswered": "go on"},
        {"save": "never"},
        {"on_error": "forget"},
        {"lease_seconds": 1.0},
        {"wait_seconds": -1.0},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            ha_turn(session, "t1", **wrong)
    for wrong_id in ("", "x" * 513, 7):
        with pytest.raises(ValueError, match="turn_id"):
            ha_turn(session, wrong_id)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="session"):
        ha_turn(object(), "t1")
    with pytest.raises(OperationError):
        await run(ha_session(HAConfig(nodes=["127.0.0.1:1"], **QUICK), session_id), "t1")


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
async def test_a_turn_is_remembered_from_its_answer_on_and_as_long_as_any_process_asked(workers: Workers) -> None:
    ours = await workers.make(turn_retention_seconds=2)
    longer = await workers.make(turn_retention_seconds=600)
    async with ha_turn(longer, "t1", "hello"):
        pass
    await asyncio.sleep(1.2)
    await run(longer, "t1")
    await asyncio.sleep(1.2)
    for i in range(4):
        await run(ours, f"other{i}", "other")
    assert (await run(ours, "t1"))["attempt"] == 2


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
async def test_nothing_is_taken_once_the_block_was_left(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1", "hello") as turn:
        staged = turn.session
        turn.answer("first")
    for late in (staged.add_items([message("late")]), staged.get_items(), staged.pop_item(), staged.clear_session()):
        with pytest.raises(ClosedError):
            await late
    with pytest.raises(ValueError, match="answer"):
        turn.answer("second")
    assert turn.result == "first"


@standalone
async def test_a_key_of_another_type_is_met_before_the_first_write(
    servers: lab.Lab, session_id: str, history: History
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one")])
    keys = session._operations.spec.keys
    servers.client(servers.primary(keys.items)).set(keys.turns, "another application's")
    with pytest.raises(WrongKeyTypeError):
        await session.clear_session()
    with pytest.raises(WrongKeyTypeError):
        await run(session, "t1")
    assert await texts(session) == ["one"]


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


async def test_sessions_whose_methods_would_be_bypassed_are_refused(session_id: str) -> None:
    class Own(RedisHASession):
        pass

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner, self.session_id = inner, inner.session_id

    session: Any = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    own = Own(HAConfig(nodes=["127.0.0.1:1"]), session_id, session._operations._source)
    with pytest.raises(ValueError, match="bypassed"):
        ha_turn(own, "t1")
    with pytest.raises(ValueError, match="underlying_session"):
        ha_turn(session, "t1", wrap=Wrapper)  # type: ignore[arg-type]


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
async def test_a_turn_ends_although_its_session_was_closed_in_its_block(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        await ours.close()
        await turn.session.add_items([message("hello")])
        turn.answer()
    assert await texts(theirs) == ["hello"]


@standalone
async def test_a_turn_that_gave_up_its_place_holds_nobody_up(workers: Workers, history: History) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        with pytest.raises(TurnBusyError):
            await elsewhere(run(theirs, "t2", wait_seconds=0.2))
        assert b"queue" not in await history.turns()
        with pytest.raises(TurnBusyError, match="in whose block"):
            await run(ours, "t3")
        turn.answer()
    assert (await run(theirs, "t3", if_busy="reject"))["attempt"] == 1


@standalone
async def test_a_block_is_begun_once(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    block = ha_turn(session, "t1", "hello")
    results = await asyncio.gather(block.__aenter__(), block.__aenter__(), return_exceptions=True)
    assert sorted(isinstance(each, ValueError) for each in results) == [False, True]
    await block.__aexit__(None, None, None)


@standalone
async def test_a_change_of_another_task_waits_for_its_whole_deadline(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make(**QUICK)
    async with ha_turn(ours, "t1", "hello") as turn:
        # On a busy machine its last attempt may be cut off.
        with pytest.raises((TurnBusyError, DeadlineExceededError)):
            await elsewhere(theirs.add_items([message("no")]))
        turn.answer()
    assert await ours.get_items() == []


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
async def test_a_function_that_fails_to_decide_keeps_the_turn_and_the_blocks_error(
    servers: lab.Lab, session_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)

    def decide(error: BaseException) -> Any:
        raise RuntimeError("no decision")

    async def fail() -> None:
        async with ha_turn(session, "t1", "hello", on_error=decide):
            raise KeyError("what")

    with pytest.raises(KeyError):
        await fail()
    assert "on_error" in caplog.text
    assert (await run(session, "t1"))["attempt"] == 2


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


@standalone
async def test_a_turn_without_an_id_is_taken_by_no_other_call(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    ids = set()
    for _ in range(2):
        async with ha_turn(session, None) as turn:
            assert turn.input == []
            with pytest.raises(ValueError, match="not answered"):
                assert turn.result
            assert turn.idempotency_key("c1") != turn.idempotency_key("c2")
            assert turn.idempotency_key("c1") == turn.idempotency_key("c1")
            ids.add((turn.id, turn.idempotency_key("c1")))
            turn.answer()
        assert "attempt=1" in repr(turn)
    assert len(ids) == 2


async def test_a_message_and_an_encrypted_session_that_cannot_be_are_refused(session_id: str) -> None:
    session: Any = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    encrypted = EncryptedSession(session_id, session, encryption_key="a-test-key")
    with pytest.raises(ValueError, match="message"):
        ha_turn(session, "t1", [{1, 2}])
    with pytest.raises(ValueError, match="wrap"):
        ha_turn(encrypted, "t1", wrap=lambda inner: inner)


@standalone
async def test_a_result_that_is_no_json_or_too_large_leaves_the_turn_as_it_is(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1") as turn:
        for wrong in (object(), float("nan"), "x" * 65_536):
            with pytest.raises(InvalidResultError):
                turn.answer(wrong)
        assert not turn.is_answered
        turn.answer("\ud800 is no UTF-8")
    assert turn.result == "\ud800 is no UTF-8"
    async with ha_turn(session, "t1") as turn:
        with pytest.raises(ValueError, match="suspend"):
            await turn.suspend(None)  # type: ignore[arg-type]


@standalone
async def test_a_claim_whose_state_cannot_be_read_leaves_the_turn_to_be_claimed(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)

    class State:
        def to_json(self) -> Any:
            return {"no": "state of the SDK's"}

    async with ha_turn(session, "t1", "hello") as turn:
        await turn.suspend(State())  # type: ignore[arg-type]
    with pytest.raises(UserError):
        await claim_turn(session, "t1", Agent(name="a")).__aenter__()
    (waiting,) = await list_suspended(session)
    assert (waiting.id, waiting.attempts) == ("t1", 2)
