"""What is seen through is seen through, and no error of a background task is logged as never retrieved."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable
from typing import Any

import anyio
import pytest

from agents_redis_ha._asyncio import (
    Alarms,
    BackgroundTasks,
    UnlessSilent,
    Until,
    retrieve_exception,
    run_shielded,
    timeout_at,
)
from tests.support.virtual_time import VirtualTimeLoop, in_virtual_time
from tests.support.waiting import eventually


class Work:
    """An operation that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.ended = False, False
        self.gate = asyncio.Event()

    async def __call__(self, error: Exception | None = None) -> str:
        self.begun = True
        await self.gate.wait()
        self.ended = True
        if error is not None:
            raise error
        return "its result"


@pytest.mark.parametrize("cancellations", [1, 2, 5])
async def test_a_shielded_operation_ends_however_often_its_waiter_is_cancelled(cancellations: int) -> None:
    work = Work()
    waiter = asyncio.ensure_future(run_shielded(work()))
    await eventually(lambda: work.begun, "the operation has begun")
    for _ in range(cancellations):
        waiter.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiter.done()
        assert not work.ended
    work.gate.set()
    await waiter
    assert work.ended


async def test_a_waiter_that_is_cancelled_before_it_waits_sees_the_operation_through_too() -> None:
    async def caller() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            waiting.cancel()  # again, while nothing has been awaited since
            await run_shielded(work())
            raise

    work = Work()
    waiting = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    waiting.cancel()
    await eventually(lambda: work.begun, "the operation has begun")
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.ended


async def test_a_shielded_operations_result_and_error_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = reports(monkeypatch)
    work = Work()
    work.gate.set()
    await run_shielded(work())
    await run_shielded(work(ValueError("dropped")))
    gc.collect()
    assert reported == []


def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list to which the loop adds what it would log."""
    reported: list[Any] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", reported.append)
    return reported


@pytest.mark.parametrize("retrieved", [True, False])
async def test_the_error_of_a_background_task_is_not_logged_once_it_was_retrieved(
    retrieved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = reports(monkeypatch)

    async def fail() -> None:
        raise ValueError("in the background")

    task = asyncio.ensure_future(fail())
    if retrieved:
        task.add_done_callback(retrieve_exception)
    await asyncio.wait((task,))
    del task
    gc.collect()
    assert len(reported) == (0 if retrieved else 1)


async def test_of_a_cancelled_task_there_is_nothing_to_retrieve() -> None:
    task = asyncio.ensure_future(asyncio.sleep(600))
    task.add_done_callback(retrieve_exception)
    task.cancel()
    await asyncio.wait((task,))
    retrieve_exception(task)
    assert task.cancelled()


@in_virtual_time
async def test_a_timeout_is_a_time_of_the_loop_and_an_error_of_asyncio() -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + 5
    with pytest.raises(asyncio.TimeoutError):
        async with timeout_at(until):
            await asyncio.sleep(600)
    assert loop.time() == pytest.approx(until, abs=0.001)


@in_virtual_time
async def test_background_tasks_are_waited_for_whatever_becomes_of_them() -> None:
    tasks, ended = BackgroundTasks(), []
    await tasks.wait()

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)
        raise ValueError("unseen")

    for seconds in (3.0, 1.0):
        tasks.start(work(seconds))
    await tasks.wait()
    assert ended == [1.0, 3.0]


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_cancelled_anyio_scope_does_not_keep_the_processor_busy(
    monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """Without the shield, anyio cancels the waiter in each turn of the loop."""
    work, waits, wait = Work(), list[None](), asyncio.wait

    async def counting(*what: Any) -> Any:
        waits.append(None)
        return await wait(*what)

    monkeypatch.setattr(asyncio, "wait", counting)
    if not loaded:
        monkeypatch.delitem(sys.modules, "anyio")
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_later(0, scope.cancel)

        async def end() -> None:
            for _ in range(300):
                await asyncio.sleep(0)
            work.gate.set()

        ending = asyncio.ensure_future(end())
        try:
            await anyio.sleep(60)
        except asyncio.CancelledError:  # as a session sees a cancelled change through
            await run_shielded(work())
            raise
    assert (work.ended, scope.cancelled_caught, ending.done()) == (True, True, True)
    assert (len(waits) < 5) == loaded


async def waits(*seconds: float) -> str:
    for each in seconds:
        await asyncio.sleep(each)
    return "its result"


@in_virtual_time
async def test_an_operation_that_goes_on_is_awaited_however_long_it_takes() -> None:
    assert await UnlessSilent(waits(0.1, 4.8, *[0.9] * 100, 0), 1, "silent", Alarms(), at_least=5) == "its result"


@in_virtual_time
@pytest.mark.parametrize("seconds", [(5.1,), (4.9, 1.1), (0, 0, 0.5, 5.1)])
async def test_an_operation_for_which_nothing_comes_is_cancelled(seconds: tuple[float, ...]) -> None:
    with pytest.raises(asyncio.TimeoutError, match="silent for"):
        await UnlessSilent(waits(*seconds), 1, "silent", Alarms(), at_least=5)


async def until(deadline: float, alarms: Alarms, operation: Awaitable[str]) -> str:
    with Until(deadline, alarms):
        return await operation


async def silent(operation: UnlessSilent[str]) -> str:
    return await operation


@in_virtual_time
@pytest.mark.parametrize("first", ["alarm", "caller"])
@pytest.mark.parametrize("kind", ["silence", "deadline"])
async def test_a_caller_that_cancels_in_the_moment_of_the_timeout_is_cancelled(kind: str, first: str) -> None:
    loop, alarms = asyncio.get_running_loop(), Alarms()
    ends_at = loop.time() + 1
    waiting = {
        "silence": lambda: silent(UnlessSilent(waits(9), 1, "silent", alarms)),
        "deadline": lambda: until(ends_at, alarms, waits(9)),
    }
    task = asyncio.ensure_future(waiting[kind]())
    await asyncio.sleep(0.999)
    (wait,) = alarms._ends
    for step in (lambda: wait.ring(ends_at), task.cancel)[:: 1 if first == "alarm" else -1]:
        step()
    await asyncio.wait([task])
    assert task.cancelled()


@in_virtual_time
@pytest.mark.parametrize("seconds", [5.0, 0.0, -1.0])
async def test_an_operation_is_cancelled_at_its_deadline_however_much_comes(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(asyncio.TimeoutError):
        await until(began + seconds, Alarms(), waits(*[0.3] * 100))
    assert loop.time() == pytest.approx(began + max(seconds, 0), abs=0.002)
    assert await until(loop.time() + 1, Alarms(), waits(0.1, 0)) == "its result"


@in_virtual_time
async def test_an_operation_that_is_just_going_on_at_its_deadline_is_cancelled_shortly_after() -> None:
    loop = asyncio.get_running_loop()
    began, gate = loop.time(), loop.create_future()

    async def goes_on() -> str:
        await gate
        return await waits(9)

    loop.call_at(began + 1, gate.set_result, None)  # in front of the alarm, in the same turn of the loop
    with pytest.raises(asyncio.TimeoutError):
        await until(began + 1, Alarms(), goes_on())
    assert loop.time() == pytest.approx(began + 1, abs=0.01)


@in_virtual_time
async def test_the_silence_within_a_deadline_and_the_deadline_are_told_apart() -> None:
    loop, alarms = asyncio.get_running_loop(), Alarms()
    for pauses, text in ((9.0,), "silent for 1 s"), ((0.9,) * 9, ""):
        with pytest.raises(asyncio.TimeoutError) as caught:
            await until(loop.time() + 5, alarms, UnlessSilent(waits(*pauses), 1, "silent", alarms))
        assert str(caught.value) == text


@in_virtual_time
async def test_waits_that_follow_each_other_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, alarms = asyncio.get_running_loop(), Alarms()
    timers, call_at = list[float](), loop.call_at

    def counted(when: float, callback: Any, *args: Any, **context: Any) -> Any:
        if callback == alarms._ring:
            timers.append(when)
        return call_at(when, callback, *args, **context)

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(100):
        await UnlessSilent(waits(0.001), 5, "silent", alarms)
    assert len(timers) == 1
    await asyncio.sleep(6)
    assert not alarms._ends
    assert len(timers) == 1  # nothing is left that could ring


def test_in_another_event_loop_the_waits_of_the_one_before_are_nothing() -> None:
    alarms, left = Alarms(), list[asyncio.Task[str]]()

    async def abandoned() -> None:
        deadline = asyncio.get_running_loop().time() + 50
        left.append(asyncio.ensure_future(until(deadline, alarms, waits(99))))  # the loop ends before it does
        await asyncio.sleep(0)

    async def next_one() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await until(loop.time() + 60, alarms, waits(99))
        assert list(alarms._ends) == []

    for run in (abandoned, next_one):
        loop = VirtualTimeLoop()
        loop.run_until_complete(run())
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # its end is not awaited: on purpose
        loop.close()


@in_virtual_time
async def test_of_several_waits_each_ends_at_its_own_time() -> None:
    loop, alarms = asyncio.get_running_loop(), Alarms()
    began, ended = loop.time(), dict[float, float]()

    async def ends(seconds: float) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await until(began + seconds, alarms, waits(99))
        ended[seconds] = loop.time() - began

    all_ends = (7.0, 2.0, 5.0, 2.0)
    await asyncio.gather(*map(ends, all_ends), until(began + 1.5, alarms, waits(1)))
    assert ended == {seconds: pytest.approx(seconds, abs=0.002) for seconds in all_ends}
