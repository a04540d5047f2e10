"""A turn is stored once and whole, however often it is delivered and whatever comes between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import (
    HAConfig,
    OperationError,
    OutcomeLostError,
    RedisHASession,
    TurnBusyError,
    TurnCancelledError,
    TurnLostError,
    TurnMismatchError,
    ha_session,
    ha_turn,
    lab,
)
from agents_redis_ha._commands import load_script
from tests.support.history import History, Workers, message, texts

QUICK: Any = {"retry": {"deadline_seconds": 0.5}}
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


def whole(text: str) -> list[Any]:
    return [message(text), CALL, OUTPUT, ANSWER]


async def abandon(
    session: RedisHASession, turn_id: str, *batches: list[Any], text: str = "hello", **options: Any
) -> Any:
    """Begin a turn in a worker that is stopped then: the session is not given back."""

    async def begin() -> Any:
        block = ha_turn(session, turn_id, text, **{"lease_seconds": 0.5, **options})
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
            tasks.append(asyncio.create_task(run(session, f"t{i}", str(i))))
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


@standalone
async def test_one_whose_turn_runs_elsewhere_waits_for_its_result(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        repeat = asyncio.create_task(run(theirs, "t1", if_busy="reject"))  # that is for other ids
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
    await asyncio.sleep(0.7)  # longer than its lease
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
        async with ha_turn(ours, "t1", "one", lease_seconds=0.6) as turn:
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
    await asyncio.sleep(0.7)
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
    proxied: lab.Lab, session_id: str, script: str, times: int
) -> None:
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
        block = await abandon(ours, "t1", [message("one")], [CALL, OUTPUT], text="one")
    await block._turn.session.add_items([CALL | {"call_id": "c2"}, OUTPUT | {"call_id": "c2"}])
    with pytest.raises(TurnBusyError):
        await run(theirs, "t2", if_busy="reject")
    await asyncio.sleep(0.7)
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
