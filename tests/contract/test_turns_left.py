"""What a turn leaves when its block is left, or its worker is gone, and what is remembered of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from agents import Agent, UserError

from agents_redis_ha import (
    ClosedError,
    DeadlineExceededError,
    Outcome,
    OutcomeLostError,
    claim_turn,
    ha_session,
    ha_turn,
    lab,
    list_suspended,
)
from agents_redis_ha._recovery import SessionOperations
from tests.support.history import History, Workers, message, texts
from tests.support.turns import ANSWER, CALL, OUTPUT, abandon, run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


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
async def test_a_turn_ends_although_its_session_was_closed_in_its_block(workers: Workers) -> None:
    ours, theirs = await workers.make(), await workers.make()
    async with ha_turn(ours, "t1", "hello") as turn:
        await ours.close()
        await turn.session.add_items([message("hello")])
        turn.answer()
    assert await texts(theirs) == ["hello"]


@standalone
async def test_a_block_is_begun_once(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    block = ha_turn(session, "t1", "hello")
    results = await asyncio.gather(block.__aenter__(), block.__aenter__(), return_exceptions=True)
    assert sorted(isinstance(each, ValueError) for each in results) == [False, True]
    await block.__aexit__(None, None, None)


def fails_to_decide(error: BaseException) -> Any:
    raise RuntimeError("no decision")


def decides_later(error: BaseException) -> Any:
    async def decide() -> str:
        return "rollback"

    return decide()


@standalone
@pytest.mark.parametrize("decide", [fails_to_decide, decides_later])
async def test_a_function_that_fails_to_decide_keeps_the_turn_and_the_blocks_error(
    servers: lab.Lab, session_id: str, caplog: pytest.LogCaptureFixture, decide: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)

    async def fail() -> None:
        async with ha_turn(session, "t1", "hello", on_error=decide):
            raise KeyError("what")

    with pytest.raises(KeyError):
        await fail()
    assert "on_error" in caplog.text
    assert (await run(session, "t1"))["attempt"] == 2


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


@standalone
@pytest.mark.parametrize(("failing", "already"), [("turn_save", 3), ("turn_end", 2)])
async def test_a_piece_that_comes_late_takes_nothing_back_that_was_saved_after_it(
    servers: lab.Lab, session_id: str, failing: str, already: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    items = [message("hello"), *(each | {"call_id": id_} for id_ in ("c1", "c2", "c3") for each in (CALL, OUTPUT))]
    execute, under_way = SessionOperations.execute, list[Any]()

    async def hold(operations: SessionOperations, command: Any, **options: Any) -> Any:
        if command.name != failing or under_way:
            return await execute(operations, command, **options)
        under_way.append(command)
        raise DeadlineExceededError("x", operation=failing, topology="standalone", outcome=Outcome.UNKNOWN)

    async def fail() -> None:
        block = ha_turn(session, "t1", "hello")
        async with block as turn:
            monkeypatch.setattr(SessionOperations, "execute", hold)
            with contextlib.suppress(DeadlineExceededError):
                await turn.session.add_items(items[:already])
                await block._grant.suspend(block._staged.draft, b"{}")
            await turn.session.add_items(items[already:5])
            await execute(session._operations, under_way[0])  # now it comes
            await turn.session.add_items(items[5:])
            raise KeyError("what")

    with pytest.raises(KeyError):
        await fail()
    async with ha_turn(session, "t1", "hello") as turn:
        assert await turn.session.get_items() == items


@standalone
@pytest.mark.parametrize("outcome", [None, Outcome.NOT_APPLIED, Outcome.UNKNOWN])
async def test_a_turn_that_is_cancelled_while_it_publishes_is_published_or_gives_the_session_back(
    servers: lab.Lab, session_id: str, outcome: Outcome | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    execute, publishes, is_cancelled = SessionOperations.execute, asyncio.Event(), asyncio.Event()

    async def hold(operations: SessionOperations, command: Any, **options: Any) -> Any:
        if command.name == "turn_finish":
            publishes.set()
            await is_cancelled.wait()
            if outcome is not None:
                raise DeadlineExceededError("x", operation="turn_finish", topology="standalone", outcome=outcome)
        return await execute(operations, command, **options)

    monkeypatch.setattr(SessionOperations, "execute", hold)
    publishing = asyncio.create_task(run(session, "t1"))
    await publishes.wait()
    publishing.cancel()
    asyncio.get_running_loop().call_soon(is_cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await publishing
    monkeypatch.undo()
    async with ha_turn(session, "t2", if_busy="reject"):
        pass  # it waits for no lease
    assert await run(session, "t1") == {"text": "hello", "attempt": 1 if outcome is None else 2}
    assert await session.get_items() == whole("hello")
