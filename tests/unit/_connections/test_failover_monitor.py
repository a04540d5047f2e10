"""What waits for a node is woken and cut loose, with one look a round however many wait. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents_redis_ha import HAConfig, RetryConfig
from agents_redis_ha._connections.failover_monitor import FailoverMonitor
from agents_redis_ha._connections.failures import AttemptError, TakenOverError, classify
from agents_redis_ha._retry import Executor
from agents_redis_ha._telemetry import OperationSpan
from agents_redis_ha.errors import ConnectionsClosedError
from tests.support.fake_nodes import LOST, FakePool, command, fake_node
from tests.support.fakes import FakeLocator, failed, request
from tests.support.virtual_time import in_virtual_time

NOWHERE = AttemptError(LOST, node=None, sent=False)
LONG = 30.0


class Looks:
    """Counts the looks; `error` is what they raise, and `until` what each of them waits for."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.until: asyncio.Event | None = None

    async def __call__(self) -> None:
        self.count += 1
        await (self.until.wait() if self.until else asyncio.sleep(0))
        if self.error is not None:
            raise self.error


@pytest.fixture
def looks() -> Looks:
    return Looks()


def now() -> float:
    """Return the virtual time to the millisecond: each turn of the loop takes a microsecond."""
    return round(asyncio.get_running_loop().time(), 3)


def silent(name: str = "h:1", *, sent: bool = True) -> Any:
    """Return a node that owes every reply, or does not even get connected."""
    pool = FakePool(*(asyncio.get_running_loop().create_future() for _ in range(10)))
    if not sent:
        pool.may_connect.clear()
    return fake_node(pool, name=name)


async def turns(number: int = 5) -> None:
    """Let everything happen that is ready, without a move of the clock."""
    for _ in range(number):
        await asyncio.sleep(0)


def waiting(monitor: FailoverMonitor, number: int = 1) -> list[asyncio.Future[None]]:
    epoch = monitor.topology_epoch
    return [asyncio.ensure_future(monitor.wait_for_topology_change(LONG, epoch)) for _ in range(number)]


def sending(monitor: FailoverMonitor, node: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(monitor.send(request(command()), node))


@in_virtual_time
async def test_one_change_wakes_all_that_wait_without_a_look(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    waiters = waiting(monitor, 300)
    await turns()
    since = now()
    monitor.topology_changed()
    await asyncio.gather(*waiters)
    assert (now() - since, looks.count) == (0, 0)


@in_virtual_time
async def test_a_wait_without_a_change_lasts_as_long_as_it_says(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    monitor.topology_changed()
    since = now()
    await monitor.wait_for_topology_change(7, monitor.topology_epoch)
    assert now() - since == pytest.approx(7)


@in_virtual_time
async def test_a_change_during_the_attempt_ends_the_wait_after_it(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    seen, since = monitor.topology_epoch, now()
    monitor.topology_changed()
    await monitor.wait_for_topology_change(LONG, seen)
    assert now() == since


@in_virtual_time
async def test_there_is_no_look_while_replies_come(looks: Looks) -> None:
    monitor, node = FailoverMonitor(looks), fake_node()
    for _ in range(100):
        reply = await monitor.send(request(command()), node)
        assert reply.value == b"OK"
        await asyncio.sleep(0.05)
    assert looks.count == 0
    await monitor.aclose()


@in_virtual_time
async def test_a_request_that_goes_unanswered_for_a_moment_makes_the_looks_begin_and_go_on(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    task = sending(monitor, silent())
    await asyncio.sleep(0.19)
    assert looks.count == 0
    await asyncio.sleep(0.02)
    assert looks.count == 1
    await asyncio.sleep(3)
    assert looks.count > 10
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await monitor.aclose()


@in_virtual_time
async def test_a_younger_request_does_not_hide_the_one_that_hangs(looks: Looks) -> None:
    monitor, quick = FailoverMonitor(looks), fake_node()
    await monitor.send(request(command()), quick)  # the timer that it began is not the next one's
    await asyncio.sleep(0.15)
    task = sending(monitor, silent())
    await asyncio.sleep(0.19)
    assert looks.count == 0
    await monitor.send(request(command()), quick)
    await asyncio.sleep(0.02)
    assert looks.count == 1
    task.cancel()
    await monitor.aclose()


@in_virtual_time
async def test_the_looks_end_by_themselves_when_no_operation_waits(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    monitor.begin()
    await asyncio.sleep(LONG)
    assert looks.count == 2
    monitor.begin()  # and can begin again
    await asyncio.sleep(LONG)
    assert looks.count == 4
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_looks_become_rarer_the_longer_an_outage_lasts(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    looks.error = NOWHERE
    (waiter,) = waiting(monitor)
    monitor.begin()
    await asyncio.sleep(1)
    assert 8 <= looks.count <= 13  # every 0.1 s, at random 20 % more or less
    await asyncio.sleep(LONG - 2)
    before = looks.count
    await asyncio.sleep(0.9)
    assert 2 <= looks.count - before <= 5  # every 0.25 s
    waiter.cancel()
    await monitor.aclose()


@pytest.mark.parametrize("sent", [True, False])
@in_virtual_time
async def test_requests_to_a_node_that_was_taken_over_are_cut_and_others_are_not(looks: Looks, sent: bool) -> None:
    monitor, old, other = FailoverMonitor(looks), silent("old:1", sent=sent), silent("other:2")
    cut = [sending(monitor, old) for _ in range(3)]
    left = sending(monitor, other)
    await turns()
    since = now()
    monitor.cut(old)
    monitor.cut(old)
    await asyncio.wait(cut)
    assert now() == since
    for task in cut:
        error = task.exception()
        assert isinstance(error, AttemptError)
        assert isinstance(error.cause, TakenOverError)
        assert (error.node, error.sent) == ("old:1", sent)
        found = classify(error.cause, sent=error.sent)
        assert (found.retry, found.may_have_applied) == (True, sent)
    assert not left.done()
    left.cancel()
    await asyncio.wait([left])
    await monitor.aclose()


@in_virtual_time
@pytest.mark.parametrize("first", ["cut", "cancelled"])
@pytest.mark.parametrize("sent", [True, False])
async def test_a_callers_own_cancellation_stays_one_even_in_the_moment_of_a_cut(
    looks: Looks, sent: bool, first: str
) -> None:
    monitor, old = FailoverMonitor(looks), silent(sent=sent)
    task = sending(monitor, old)
    await turns()
    for step in (lambda: monitor.cut(old), task.cancel)[:: 1 if first == "cut" else -1]:
        step()
    await asyncio.wait([task])
    assert task.cancelled()
    await monitor.aclose()


class Converting:
    """A node whose connection makes a lost connection of a cancellation, as redis-py's timeouts may."""

    name = "h:1"

    async def execute(self, request: Any, **how: Any) -> Any:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise failed(LOST, sent=True) from None


@pytest.mark.parametrize(("make", "cause"), [(silent, TakenOverError), (Converting, type(LOST))])
@in_virtual_time
async def test_a_task_whose_request_was_cut_is_not_cancelled_afterwards(looks: Looks, make: Any, cause: Any) -> None:
    monitor, old = FailoverMonitor(looks), make()

    async def work() -> tuple[Any, int]:
        with pytest.raises(AttemptError) as caught:
            await monitor.send(request(command()), old)
        await asyncio.sleep(0)
        task: Any = asyncio.current_task()
        return type(caught.value.cause), int(task.cancelling()) if hasattr(task, "cancelling") else 0

    task = asyncio.ensure_future(work())
    await turns()
    monitor.cut(old)
    assert await task == (cause, 0)
    await monitor.aclose()


@in_virtual_time
async def test_hundreds_that_wait_for_a_look_share_one(looks: Looks) -> None:
    looks.until = asyncio.Event()
    monitor = FailoverMonitor(looks)
    monitor.begin()
    waiters = [asyncio.ensure_future(monitor.looked()) for _ in range(300)]
    await turns()
    looks.until.set()
    await asyncio.gather(*waiters)
    assert looks.count == 1
    await monitor.aclose()


@in_virtual_time
async def test_what_waits_for_a_look_is_told_how_it_failed(looks: Looks) -> None:
    looks.error = NOWHERE
    monitor = FailoverMonitor(looks)
    monitor.begin()
    assert await asyncio.gather(*(monitor.looked() for _ in range(5)), return_exceptions=True) == [NOWHERE] * 5
    (waiter,) = waiting(monitor)
    with pytest.raises(AttemptError):  # also between two looks, at once
        await monitor.looked()
    assert looks.count == 1
    looks.error = KeyError("a bug")
    await asyncio.sleep(1)
    with pytest.raises(AttemptError, match="a bug"):
        await monitor.looked()
    looks.error = None
    await waiter
    await monitor.looked()
    await monitor.aclose()


@in_virtual_time
async def test_while_no_looks_go_on_one_is_taken_at_once(looks: Looks) -> None:
    looks.error = NOWHERE
    with pytest.raises(AttemptError):
        await FailoverMonitor(looks).looked()
    assert looks.count == 1


@in_virtual_time
async def test_a_look_that_succeeds_after_one_that_failed_wakes_what_waits(looks: Looks) -> None:
    looks.error = NOWHERE
    monitor = FailoverMonitor(looks)
    monitor.begin()
    (waiter,) = waiting(monitor)
    await asyncio.sleep(5)
    assert not waiter.done()
    looks.error, since = None, now()
    await waiter
    assert now() - since < 0.31  # the longest round
    assert monitor.topology_epoch == 1
    await monitor.aclose()


@in_virtual_time
async def test_looks_that_keep_succeeding_wake_nothing(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    monitor.begin()
    (waiter,) = waiting(monitor)
    await asyncio.sleep(LONG - 1)
    assert looks.count > 10
    assert not waiter.done()
    await monitor.aclose()
    await waiter


@in_virtual_time
async def test_closing_wakes_what_waits_and_leaves_no_task(looks: Looks) -> None:
    looks.error = NOWHERE
    monitor = FailoverMonitor(looks)
    monitor.begin()
    waiters = [*waiting(monitor), asyncio.ensure_future(monitor.looked())]
    await turns()
    since = now()
    await monitor.aclose()
    await asyncio.wait(waiters)
    assert now() == since
    monitor.begin()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_closed_monitor_still_sends_and_never_looks(looks: Looks) -> None:
    monitor = FailoverMonitor(looks)
    await monitor.aclose()
    task = sending(monitor, silent())
    await asyncio.sleep(LONG)
    assert (task.done(), looks.count) == (False, 0)
    task.cancel()


def running(locator: FakeLocator) -> tuple[Executor, asyncio.Future[Any]]:
    """Return an executor and an operation of it that backs off for as long as it can."""
    retry = RetryConfig(deadline_seconds=60, initial_backoff_seconds=LONG, max_backoff_seconds=LONG)
    executor = Executor(HAConfig(nodes=["h"], retry=retry), locator)
    operation = executor.begin(OperationSpan("append", "sentinel", "id", "hashed"), changes=True)
    return executor, asyncio.ensure_future(operation.run(command(), request().known))


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents_redis_ha._ambient.uniform", lambda low, high: high)


@pytest.mark.usefixtures("longest_backoff")
@in_virtual_time
async def test_an_operation_that_backs_off_is_tried_again_at_each_change(looks: Looks) -> None:
    locator = FakeLocator(failed(LOST), failed(LOST), "value")
    locator.monitor = FailoverMonitor(looks)
    _, task = running(locator)
    for attempts in (1, 2):
        await asyncio.sleep(1)
        assert locator.attempts == attempts  # once a change: then the backoff goes on
        locator.monitor.topology_changed()
    assert (await task).value == "value"


@pytest.mark.usefixtures("longest_backoff")
@in_virtual_time
async def test_a_change_while_the_attempt_failed_is_not_missed(looks: Looks) -> None:
    async def attempt(request: Any) -> Any:
        locator.monitor.topology_changed()
        raise failed(LOST, sent=True)

    locator, since = FakeLocator(attempt, attempt, "value"), now()
    locator.monitor = FailoverMonitor(looks)
    _, task = running(locator)
    assert (await task).value == "value"
    assert now() == since


@pytest.mark.usefixtures("longest_backoff")
@in_virtual_time
async def test_closing_ends_an_operation_that_backs_off(looks: Looks) -> None:
    locator, since = FakeLocator(failed(LOST)), now()
    locator.monitor = FailoverMonitor(looks)
    executor, task = running(locator)
    await turns()
    executor.closed = True
    await locator.monitor.aclose()
    with pytest.raises(ConnectionsClosedError):
        await task
    assert now() == since
