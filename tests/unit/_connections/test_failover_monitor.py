"""Who waits for a node is woken, cut loose and counted: the watch, without servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import exceptions as redis_errors
from tests.unit._connections.conftest import FakeLocator, FakeRequest, failed

from agents_redis_ha import HAConfig, RetryConfig
from agents_redis_ha._connections import watch as watching
from agents_redis_ha._connections.failover_monitor import Watch
from agents_redis_ha._connections.failures import AttemptError, TakenOverError, classify
from agents_redis_ha._connections.node import Node
from agents_redis_ha._retry import Executor
from agents_redis_ha._telemetry import Observation
from agents_redis_ha.errors import ConnectionsClosedError

LOST = redis_errors.ConnectionError("lost")
NOWHERE = AttemptError(LOST, node=None, sent=False)
LONG = 30.0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for is the subject's own state)
        await asyncio.sleep(0.001)


class Looks:
    """Counts the looks; `error` is what they raise."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.count += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def reach(self, count: int) -> None:
        await until(lambda: self.count >= count)


class Hanging(FakeRequest):
    """A request without a reply."""

    def __init__(self, *, sent: bool = True) -> None:
        self.leaves = sent
        self.ended: BaseException | None = None

    async def send(self, node: Node, *, asking: bool = False, only_first_key: bool = False) -> Any:
        self.sent = self.leaves
        try:
            await asyncio.sleep(LONG)
        except BaseException as error:
            self.ended = error
            raise


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(watching, "_SHORTEST_ROUND_SECONDS", 0.005)
    monkeypatch.setattr(watching, "_LEAST_PAUSE_SECONDS", 0.001)


@contextmanager
def quick_enough(seconds: float = 5.0) -> Iterator[None]:
    """Fail if the block takes anything like the waits in it, on a machine however busy."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    yield
    assert loop.time() - since < seconds


def node(name: str = "h:1") -> Node:
    return Node(name, lambda: None, owned=False)  # type: ignore[arg-type,return-value]


async def test_all_who_wait_are_woken_by_one_change(looks: Looks) -> None:
    watch = Watch(looks)
    waiters = [asyncio.ensure_future(watch.wait_for_change(LONG, 0)) for _ in range(300)]
    await asyncio.sleep(0)
    with quick_enough():
        watch.changed()
        await asyncio.gather(*waiters)
    assert looks.count == 0


async def test_a_wait_without_a_change_lasts_as_long_as_it_says(looks: Looks) -> None:
    watch = Watch(looks)
    loop = asyncio.get_running_loop()
    watch.changed()
    since = loop.time()
    await watch.wait_for_change(0.03, watch.changes)
    assert loop.time() - since > 0.025


async def test_a_change_during_the_attempt_ends_the_wait_after_it(looks: Looks) -> None:
    watch = Watch(looks)
    seen = watch.changes
    watch.changed()
    with quick_enough():
        await watch.wait_for_change(LONG, seen)


async def test_nobody_looks_around_while_replies_come(looks: Looks) -> None:
    class Prompt(FakeRequest):
        async def send(self, node: Node, *, asking: bool = False, only_first_key: bool = False) -> Any:
            await asyncio.sleep(0)
            return "reply"

    watch, target = Watch(looks), node()
    end = asyncio.get_running_loop().time() + 0.05
    while asyncio.get_running_loop().time() < end:
        assert await watch.send(Prompt(), target) == "reply"
    assert looks.count == 0
    await watch.aclose()


async def test_a_request_without_a_reply_makes_the_watch_begin_and_go_on(looks: Looks) -> None:
    watch = Watch(looks)
    task = asyncio.ensure_future(watch.send(Hanging(), node()))
    await looks.reach(4)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await watch.aclose()


async def test_the_watch_ends_by_itself_when_nobody_waits(looks: Looks) -> None:
    watch = Watch(looks)
    watch.begin()
    await until(lambda: watch._task is not None and watch._task.done())
    assert 1 <= looks.count <= 3
    watch.begin()  # and can begin again
    await looks.reach(4)
    await watch.aclose()


@pytest.mark.parametrize("sent", [True, False])
async def test_requests_to_a_node_that_was_taken_over_are_cut_and_others_are_not(looks: Looks, sent: bool) -> None:
    watch, old, other = Watch(looks), node("old:1"), node("other:2")
    requests = [Hanging(sent=sent) for _ in range(3)]
    cut = [asyncio.ensure_future(watch.send(request, old)) for request in requests]
    left = asyncio.ensure_future(watch.send(Hanging(), other))
    await asyncio.sleep(0)
    with quick_enough():
        watch.cut(old)
        watch.cut(old)
        await asyncio.wait(cut)
    for task in cut:
        error = task.exception()
        assert isinstance(error, AttemptError)
        assert isinstance(error.cause, TakenOverError)
        assert (error.node, error.sent) == ("old:1", sent)
        assert classify(error.cause, sent=error.sent).retry
        assert classify(error.cause, sent=error.sent).applied is sent
    assert not left.done()
    left.cancel()
    await asyncio.wait([left])
    await watch.aclose()


async def test_a_callers_own_cancellation_stays_one_even_in_the_moment_of_a_cut(looks: Looks) -> None:
    if not hasattr(asyncio.Task, "uncancel"):
        pytest.skip("before Python 3.11 two cancellations of one moment cannot be told apart")
    watch, old = Watch(looks), node()
    task = asyncio.ensure_future(watch.send(Hanging(), old))
    await asyncio.sleep(0)
    watch.cut(old)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await watch.aclose()


async def test_a_task_whose_request_was_cut_is_not_cancelled_afterwards(looks: Looks) -> None:
    watch, old = Watch(looks), node()
    request = Hanging()

    async def work() -> int:
        with pytest.raises(AttemptError):
            await watch.send(request, old)
        await asyncio.sleep(0)
        task: Any = asyncio.current_task()
        return int(task.cancelling()) if hasattr(task, "cancelling") else 0

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    watch.cut(old)
    assert await task == 0
    assert isinstance(request.ended, asyncio.CancelledError)
    await watch.aclose()


async def test_hundreds_who_wait_for_a_look_share_one() -> None:
    looked, gate = 0, asyncio.Event()

    async def look() -> None:
        nonlocal looked
        looked += 1
        await gate.wait()

    watch = Watch(look)
    watch.begin()
    waiting = [asyncio.ensure_future(watch.looked()) for _ in range(300)]
    await until(lambda: looked > 0)
    gate.set()
    await asyncio.gather(*waiting)
    assert looked == 1
    await watch.aclose()


async def test_who_waits_for_a_look_is_told_how_it_failed(looks: Looks) -> None:
    looks.error = NOWHERE
    watch = Watch(looks)
    watch.begin()
    results = await asyncio.gather(*(watch.looked() for _ in range(5)), return_exceptions=True)
    assert results == [NOWHERE] * 5
    waiter = asyncio.ensure_future(watch.wait_for_change(LONG, watch.changes))
    count = looks.count
    with pytest.raises(AttemptError):  # also between two looks, at once
        await watch.looked()
    assert looks.count == count
    looks.error = KeyError("a bug")
    await looks.reach(count + 2)
    with pytest.raises(AttemptError, match="a bug"):
        await watch.looked()
    looks.error = None
    await waiter
    await watch.looked()
    await watch.aclose()


async def test_without_a_watch_a_look_is_taken_at_once(looks: Looks) -> None:
    looks.error = NOWHERE
    with pytest.raises(AttemptError):
        await Watch(looks).looked()
    assert looks.count == 1


async def test_a_look_that_succeeds_after_one_that_failed_wakes_those_who_wait(looks: Looks) -> None:
    looks.error = NOWHERE
    watch = Watch(looks)
    watch.begin()
    waiter = asyncio.ensure_future(watch.wait_for_change(LONG, 0))
    await looks.reach(3)
    assert not waiter.done()
    looks.error = None
    with quick_enough():
        await waiter
    assert watch.changes == 1
    await watch.aclose()


async def test_looks_that_keep_succeeding_wake_nobody(looks: Looks) -> None:
    watch = Watch(looks)
    watch.begin()
    waiter = asyncio.ensure_future(watch.wait_for_change(LONG, 0))
    await looks.reach(6)
    assert not waiter.done()
    await watch.aclose()
    await waiter


async def test_closing_wakes_those_who_wait_and_leaves_no_task(looks: Looks) -> None:
    looks.error = NOWHERE
    watch = Watch(looks)
    watch.begin()
    waiters = [asyncio.ensure_future(watch.wait_for_change(LONG, 0)), asyncio.ensure_future(watch.looked())]
    await looks.reach(1)
    with quick_enough():
        await watch.aclose()
        await asyncio.wait(waiters)
    watch.begin()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def executor(locator: FakeLocator) -> Executor:
    retry = RetryConfig(deadline_seconds=60, initial_backoff_seconds=LONG, max_backoff_seconds=LONG)
    return Executor(HAConfig(nodes=["h"], retry=retry), locator)


def running(locator: FakeLocator) -> asyncio.Future[Any]:
    run = executor(locator).begin(Observation("append", "sentinel", "id", "hashed"), changes=True).run(FakeRequest())
    return asyncio.ensure_future(run)


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)


@pytest.mark.usefixtures("longest_backoff")
async def test_an_operation_that_backs_off_is_tried_again_at_the_change(looks: Looks) -> None:
    locator = FakeLocator(failed(LOST), failed(LOST), "reply")
    locator.watch = Watch(looks)
    task = running(locator)
    with quick_enough():
        for attempts in (1, 2):
            await until(lambda expected=attempts: locator.attempts >= expected)
            await asyncio.sleep(0.02)
            assert locator.attempts == attempts  # once a change: then the backoff goes on
            locator.watch.changed()
        assert await task == "reply"


@pytest.mark.usefixtures("longest_backoff")
async def test_a_change_while_the_attempt_failed_is_not_missed(looks: Looks) -> None:
    async def attempt(request: Any) -> Any:
        locator.watch.changed()
        raise failed(LOST, sent=True)

    locator = FakeLocator(attempt, attempt, "reply")
    locator.watch = Watch(looks)
    with quick_enough():
        assert await running(locator) == "reply"


@pytest.mark.usefixtures("longest_backoff")
async def test_closing_ends_an_operation_that_backs_off(looks: Looks) -> None:
    locator = FakeLocator(failed(LOST))
    locator.watch = Watch(looks)
    used = executor(locator)
    run = used.begin(Observation("append", "sentinel", "id", "hashed"), changes=True).run(FakeRequest())
    task = asyncio.ensure_future(run)
    await asyncio.sleep(0.01)
    used.closed = True
    with quick_enough():
        await locator.watch.aclose()
        with pytest.raises(ConnectionsClosedError):
            await task
