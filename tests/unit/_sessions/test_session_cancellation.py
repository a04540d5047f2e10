"""A change that was begun is seen through when its caller is cancelled: sent again under its id, and once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import HistoryLostError, RetryConfig
from agents_redis_ha._commands import NO_POSITION, EarlierAttempts, Status
from agents_redis_ha._connections import Request
from agents_redis_ha._recovery import RecoveryCoordinator
from tests.support.fakes import FakeServer, a_digest, a_position, applied, described, failed
from tests.support.sessions import session
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import eventually

APPLIED, REPEAT = Status.APPLIED, Status.REPEAT
ITEM: Any = {"n": 1}


class Gate:
    """A reply that is held back until it is let through."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.reached = self.answered = False
        self.opened = asyncio.Event()

    async def __call__(self, request: Request) -> Any:
        request.sent = True
        self.reached = True
        await self.opened.wait()
        self.answered = True
        return self.answer


async def cancel_at(gate: Gate, call: Awaitable[Any]) -> asyncio.Future[Any]:
    """Return the task of a call that was cancelled while it waited for its reply."""
    task = asyncio.ensure_future(call)
    await eventually(lambda: gate.reached, "the request has left")
    task.cancel()
    return task


CHANGES: list[Any] = [
    ("append", applied(1), lambda found: found.add_items([ITEM])),
    ("pop", applied(1, b"{}"), lambda found: found.pop_item()),
    ("clear", applied(1, b"1"), lambda found: found.clear_session()),
    ("replace", applied(1), lambda found: found._atomic_replace_items([ITEM])),
]


@pytest.mark.parametrize(("name", "answer", "call"), CHANGES, ids=[name for name, *_ in CHANGES])
async def test_a_cancelled_change_is_sent_again_under_its_id_by_a_task_that_is_not_cancelled(
    name: str, answer: Any, call: Any
) -> None:
    never = Gate(None)
    server = FakeServer(**{name: [never, answer]})
    task = await cancel_at(never, call(session(server)))
    with pytest.raises(asyncio.CancelledError):
        await task
    first, second = server.sent(name)
    assert second == replace(first, repeats=True)  # type: ignore[call-arg]  # a change's
    # The second operation knows nothing of the first one's attempts but that there may have been some.
    assert server.requests[1].earlier == EarlierAttempts(NO_POSITION, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_second_cancellation_does_not_stop_it(cancellations: int) -> None:
    never, late = Gate(None), Gate([REPEAT, 1, a_digest(1)])
    server = FakeServer(append=[never, late])
    task = await cancel_at(never, session(server).add_items([ITEM]))
    await eventually(lambda: late.reached, "the change is sent again")
    for _ in range(cancellations):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    late.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert late.answered


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("read", lambda found: found.get_items()),
        ("info", lambda found: found.info()),
        ("read", lambda found: found._get_compaction_snapshot(5)),
    ],
)
async def test_a_cancelled_read_is_not_sent_again(name: str, call: Any) -> None:
    never = Gate(None)
    server = FakeServer(**{name: [never, RuntimeError("it is not asked again")]})
    task = await cancel_at(never, call(session(server)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.asked == [name]


async def test_a_cancelled_change_that_had_succeeded_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Gate(None)
    server = FakeServer(append=[never, applied(1)], info=[described(1, 1)])
    found = session(server)
    task = await cancel_at(never, found.add_items([ITEM]))
    with pytest.raises(asyncio.CancelledError):
        await task
    await found.info()
    assert server.positions[-1] == a_position(1)


async def test_a_loss_is_not_told_to_a_cancelled_caller_and_told_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    execute = RecoveryCoordinator.execute

    async def noting(self: RecoveryCoordinator, *given: Any, report_loss: bool = True) -> Any:
        told.append(report_loss)
        return await execute(self, *given, report_loss=report_loss)

    monkeypatch.setattr(RecoveryCoordinator, "execute", noting)
    never = Gate(None)
    server = FakeServer(append=[never, applied(1)], info=[described(1, 1)])
    found = session(server)
    task = asyncio.ensure_future(found.add_items([ITEM]))
    await eventually(lambda: never.reached, "the request has left")
    (log,) = found._operations._source()._journal
    log.lost = (4,)  # another task finds it out meanwhile
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [True, False]
    with pytest.raises(HistoryLostError):
        await found.info()


async def test_the_error_of_a_change_that_is_sent_again_in_vain_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", reported.append)
    never = Gate(None)
    server = FakeServer(append=[never, failed(redis_errors.NoPermissionError("no"))])
    task = await cancel_at(never, session(server).add_items([ITEM]))
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()
    assert (len(server.sent("append")), reported) == (2, [])


async def test_a_session_that_is_closed_meanwhile_sees_its_change_through() -> None:
    never = Gate(None)
    server = FakeServer(append=[never, applied(1)])
    found = session(server)
    task = asyncio.ensure_future(found.add_items([ITEM]))
    await eventually(lambda: never.reached, "the request has left")
    await found.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(server.sent("append")) == 2


@in_virtual_time
async def test_a_cancelled_change_is_seen_through_within_one_more_deadline() -> None:
    loop, never = asyncio.get_running_loop(), Gate(None)
    found = session(FakeServer(append=[never]), retry=RetryConfig(deadline_seconds=5))
    task = await cancel_at(never, found.add_items([ITEM]))
    since = loop.time()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.time() - since == pytest.approx(5, abs=0.01)


async def test_an_undisturbed_change_pays_for_no_task_of_its_own() -> None:
    seen: set[Any] = set()

    async def note(request: Request) -> Any:
        seen.update(asyncio.all_tasks())
        return applied(1)

    await session(FakeServer(append=[note])).add_items([ITEM])
    assert seen == {asyncio.current_task()}
