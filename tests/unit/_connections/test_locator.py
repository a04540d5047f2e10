"""What topologies share: a majority of answers, and one run for all tasks that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from agents_redis_ha import Address, PoolConfig
from agents_redis_ha._connections.failures import AttemptError, classify
from agents_redis_ha._connections.locator import Patience, SingleFlight, ask_all, is_majority
from tests.support.fake_nodes import LOST
from tests.support.virtual_time import in_virtual_time


async def after(seconds: float, value: Any) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(value, Exception):
        raise value
    return value


def questions(*answers: tuple[float, Any]) -> dict[Address, Awaitable[Any]]:
    """Return one question a node h:1, h:2 …, each with the seconds until its answer, and the answer or error."""
    return {Address("h", port): after(*answer) for port, answer in enumerate(answers, 1)}


async def asked(*answers: tuple[float, Any], timeout: float = 3.0, **how: bool) -> tuple[list[Any], set[int], float]:
    """Return the answers, the ports of the nodes with errors, and the seconds that it took."""
    since = asyncio.get_running_loop().time()
    found, errors = await ask_all(questions(*answers), timeout, **how)
    took = asyncio.get_running_loop().time() - since
    return sorted(found.values()), {address.port for address in errors}, round(took, 3)


@in_virtual_time
async def test_a_slow_node_holds_nothing_up_once_a_majority_answered() -> None:
    assert await asked((0.1, 1), (0.2, 2), (60, 3)) == ([1, 2], {3}, 0.25)


@in_virtual_time
async def test_an_answer_right_behind_the_majoritys_is_heard() -> None:
    assert await asked((0.1, 1), (0.2, 2), (0.24, 3)) == ([1, 2, 3], set(), 0.24)


@in_virtual_time
async def test_nothing_is_waited_for_when_all_have_answered() -> None:
    assert await asked((0, 1), (0, 2), (0, 3)) == ([1, 2, 3], set(), 0.0)


@in_virtual_time
async def test_without_a_majority_all_are_waited_for_until_the_time_is_over() -> None:
    assert await asked((0.1, 1), (60, 2), (60, 3)) == ([1], {2, 3}, 3.0)
    assert await asked((0.1, 1), (2.9, 2), (60, 3)) == ([1, 2], {3}, 2.95)


@in_virtual_time
async def test_where_one_answer_is_enough_the_others_have_as_long_as_it_shows_them_to_be_far() -> None:
    near = await asked((0.001, 1), (60, 2), (60, 3), one_is_enough=True)
    assert near == ([1], {2, 3}, 0.5)
    far = await asked((0.3, 1), (1.7, 2), (60, 3), (60, 4), one_is_enough=True)
    assert far == ([1, 2], {3, 4}, 1.8)
    assert await asked((2.9, 1), (60, 2), one_is_enough=True) == ([1], {2}, 3.0)
    assert await asked((60, 1), (60, 2), one_is_enough=True) == ([], {1, 2}, 3.0)


def test_servers_that_do_not_answer_are_waited_for_longer_each_time_until_one_shows_how_far_they_are() -> None:
    patience, seconds = Patience(PoolConfig(connect_timeout_seconds=1, response_timeout_seconds=2)), []
    for _ in range(4):
        seconds.append(patience.seconds)
        patience.silent()
    assert seconds == [0.5, 1.0, 2.0, 3.0]
    for took, next_time in ((0.3, 1.8), (0.001, 0.5), (9.0, 3.0)):
        patience.answered(took)
        assert patience.seconds == pytest.approx(next_time)


@in_virtual_time
async def test_the_grace_ends_with_the_time() -> None:
    assert await asked((0, 1), (2.99, 2), (60, 3)) == ([1, 2], {3}, 3.0)


@in_virtual_time
async def test_a_failure_is_an_error_and_no_answer() -> None:
    assert await asked((0, 1), (0, LOST), (0.3, 3)) == ([1, 3], {2}, 0.3)
    assert await asked((0, LOST), (0, LOST), (0.3, 3)) == ([3], {1, 2}, 0.3)
    assert await asked((0, LOST)) == ([], {1}, 0.0)
    assert await asked() == ([], set(), 0.0)


@in_virtual_time
async def test_errors_say_how_each_node_failed() -> None:
    found, errors = await ask_all(questions((0, LOST), (60, 2)), 0.5)
    assert found == {}
    assert errors[Address("h", 1)] is LOST
    assert isinstance(errors[Address("h", 2)], asyncio.TimeoutError)
    assert "within 0.5 s" in str(errors[Address("h", 2)])


@in_virtual_time
async def test_a_question_that_is_not_waited_for_any_more_is_cancelled() -> None:
    ended = asyncio.Event()

    async def slow() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return 0

    await ask_all({**questions((0, 1), (0, 2)), Address("h", 3): slow()}, 3)
    await asyncio.wait_for(ended.wait(), 1)
    asking = asyncio.ensure_future(ask_all({Address("h", 3): slow()}, 3))
    ended.clear()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait_for(ended.wait(), 1)
    assert asking.cancelled()


@pytest.mark.parametrize(("voters", "seconds"), [(None, 3.0), (3, 0.25), (9, 3.0)])
@in_virtual_time
async def test_a_majority_may_be_that_of_fewer_or_more_than_are_asked(voters: int | None, seconds: float) -> None:
    since = asyncio.get_running_loop().time()
    await ask_all(questions((0.1, 1), (0.2, 2), (60, 3), (60, 4)), 3.0, voters)
    assert round(asyncio.get_running_loop().time() - since, 3) == seconds


@pytest.mark.parametrize(("some", "of", "expected"), [(0, 0, False), (1, 2, False), (2, 3, True), (3, 3, True)])
def test_a_majority_is_more_than_half(some: int, of: int, expected: bool) -> None:
    assert is_majority(range(some), range(of)) is expected


class Work:
    """What is to run once for all: counts its runs, each of which ends when the gate opens."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.error = error

    async def __call__(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error


async def waiting(flight: SingleFlight, number: int) -> list[asyncio.Future[None]]:
    tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(flight.run()) for _ in range(number)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_one_run_serves_all_that_wait_and_the_next_one_starts_anew() -> None:
    flight = SingleFlight(work := Work())
    tasks = await waiting(flight, 10)
    assert not any(task.done() for task in tasks)
    work.gate.set()
    await asyncio.gather(*tasks)
    assert work.runs == 1
    await flight.run()
    assert work.runs == 2


async def test_what_was_started_ahead_is_the_run_that_is_waited_for() -> None:
    flight = SingleFlight(work := Work(error := AttemptError(LOST, node=None, sent=False)))
    assert flight.start() is flight.start()
    (waiter,) = await waiting(flight, 1)
    work.gate.set()
    with pytest.raises(AttemptError) as caught:
        await waiter
    assert (caught.value, work.runs) == (error, 1)


async def test_a_cancelled_waiter_does_not_stop_the_run_for_the_others() -> None:
    flight = SingleFlight(work := Work())
    first, second = await waiting(flight, 2)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    work.gate.set()
    await second
    assert work.runs == 1


async def test_a_run_whose_waiters_were_all_cancelled_serves_the_next_one() -> None:
    flight = SingleFlight(work := Work())
    (first,) = await waiting(flight, 1)
    first.cancel()
    (second,) = await waiting(flight, 1)
    work.gate.set()
    await second
    assert work.runs == 1


async def test_a_failed_run_tells_all_that_waited_and_is_tried_again() -> None:
    flight = SingleFlight(work := Work(error := AttemptError(LOST, node=None, sent=False)))
    work.gate.set()
    assert await asyncio.gather(flight.run(), flight.run(), return_exceptions=True) == [error, error]
    with pytest.raises(AttemptError):
        await flight.run()
    assert work.runs == 2


async def test_those_that_wait_for_a_run_that_is_closed_are_told_and_not_cancelled() -> None:
    flight = SingleFlight(Work())
    tasks = await waiting(flight, 2)
    await flight.aclose()
    for task in tasks:
        with pytest.raises(AttemptError, match="closed") as caught:
            await task
        assert classify(caught.value.cause, sent=caught.value.sent).may_have_applied is False


async def test_closing_waits_for_the_end_of_the_run_and_does_nothing_without_one() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    flight = SingleFlight(work)
    await flight.aclose()
    await waiting(flight, 1)
    await flight.aclose()
    await flight.aclose()
    assert ended == [True]
