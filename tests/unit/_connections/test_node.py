"""The corners of nodes and locators that no server is needed for: races, failing closes, and what waiters are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as redis_errors
from tests.unit._connections.conftest import I_AM, WHO_IS_THERE, introduction

from agents_redis_ha import Address, HAConfig, PoolConfig
from agents_redis_ha._connections.failures import AttemptError, classify
from agents_redis_ha._connections.locator import SingleFlight, ask_all
from agents_redis_ha._connections.node import Node
from agents_redis_ha._connections.sentinel import SentinelLocator


class Connection:
    """Answers +OK, and notes what was written to it, and how often it was asked who is there."""

    socket_timeout = 3.0

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.replies: list[Any] = []
        self.identity: Any = I_AM
        self.introduced = 0
        self.connected: list[Callable[[Any], None]] = []
        self.closed = 0
        self._first: list[Any] = []

    async def send_packed_command(self, packed: bytes, check_health: bool) -> None:
        question, rest = introduction(packed)
        self._first = [self.identity] * len(question)
        self.introduced += len(question)
        self.written.append(rest)

    def register_connect_callback(self, callback: Callable[[Any], None]) -> None:
        self.connected.append(callback)

    async def read_response(self, disable_decoding: bool) -> Any:
        if self._first:
            return self._first.pop()
        reply = self.replies.pop(0) if self.replies else b"OK"
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def disconnect(self, nowait: bool = False) -> None:
        self.closed += 1


class Pool:
    """A pool of one connection. `connecting` holds it back; `failing` is how disconnecting fails."""

    def __init__(self, failing: BaseException | None = None) -> None:
        self.connection = Connection()
        self.connecting = asyncio.Event()
        self.connecting.set()
        self.failing = failing
        self.in_use = 0
        self.disconnected = 0

    async def get_connection(self) -> Connection:
        await self.connecting.wait()
        self.in_use += 1
        return self.connection

    async def release(self, connection: Connection) -> None:
        self.in_use -= 1

    async def disconnect(self, inuse_connections: bool = True) -> None:
        self.disconnected += 1
        if self.failing is not None:
            raise self.failing


class Client:
    def __init__(self, pool: Pool) -> None:
        self.connection_pool = pool

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.connection_pool.disconnect()


# What redis-py raises where a peer that is gone does not take part in closing: TLS, or bytes that never left.
CANNOT_CLOSE = redis_errors.TimeoutError("Timed out closing connection after 1.5")


def node(*pools: Pool, owned: bool = True) -> Node:
    clients = [Client(pool) for pool in pools]
    return Node("h:1", lambda: clients.pop(0), owned=owned)  # type: ignore[arg-type,return-value]


async def test_replies_come_in_order_and_the_connection_goes_back() -> None:
    pool = Pool()
    error = redis_errors.AskError("7 h:1")
    pool.connection.replies = [1, error, 3]
    assert await node(pool).call(("A",), ("B", 1), ("C",)) == [1, error, 3]
    assert pool.connection.written == [b"*1\r\n$1\r\nA\r\n*2\r\n$1\r\nB\r\n$1\r\n1\r\n*1\r\n$1\r\nC\r\n"]
    assert (pool.in_use, pool.connection.closed) == (0, 0)


async def test_an_error_reply_keeps_the_connection_and_a_lost_one_closes_it() -> None:
    for error, closed in ((redis_errors.ResponseError("no"), 0), (redis_errors.ConnectionError("lost"), 1)):
        pool = Pool()
        pool.connection.replies = [error]
        with pytest.raises(AttemptError) as caught:
            await node(pool, Pool()).call(("A",))
        assert (caught.value.cause, caught.value.sent, caught.value.node) == (error, True, "h:1")
        assert pool.in_use == 0
        assert (pool.connection.closed > 0) is bool(closed)


async def test_an_unread_reply_never_stays_on_a_connection() -> None:
    pool = Pool()
    pool.connection.replies = [1, redis_errors.BusyLoadingError("loading"), 3]
    with pytest.raises(AttemptError):
        await node(pool, Pool()).call(("A",), ("B",), ("C",))
    assert pool.connection.closed


async def test_a_request_without_a_connection_was_not_sent() -> None:
    class Exhausted(Pool):
        async def get_connection(self) -> Connection:
            raise redis_errors.ConnectionError("No connection available.")

    sent = []
    with pytest.raises(AttemptError) as caught:
        await node(Exhausted()).call(("A",), on_send=lambda: sent.append(True))
    assert (caught.value.sent, sent) == (False, [])


async def test_a_cancelled_request_closes_its_connection_and_gives_it_back() -> None:
    pool = Pool()

    async def hang(disable_decoding: bool) -> Any:
        await asyncio.sleep(60)

    pool.connection.read_response = hang  # type: ignore[method-assign]
    task = asyncio.ensure_future(node(pool).call(("A",)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (pool.in_use, pool.connection.closed) == (0, 1)


async def test_after_a_failure_the_next_request_uses_a_new_pool() -> None:
    first, second = Pool(), Pool()
    first.connection.replies = [redis_errors.ConnectionError("lost")]
    used = node(first, second)
    with pytest.raises(AttemptError):
        await used.call(("A",))
    await used.call(("B",))
    await asyncio.sleep(0)  # the old pool is closed in the background
    assert (first.disconnected, second.connection.written) == (1, [b"*1\r\n$1\r\nB\r\n"])


async def test_a_users_own_client_is_never_replaced_or_closed() -> None:
    pool = Pool()
    pool.connection.replies = [redis_errors.ConnectionError("lost")]
    used = node(pool, owned=False)
    with pytest.raises(AttemptError):
        await used.call(("A",))
    await used.call(("B",))
    await used.aclose()
    assert pool.disconnected == 0


async def test_nothing_is_sent_to_a_retired_node() -> None:
    pool = Pool()
    used = node(pool)
    used.retire()
    with pytest.raises(AttemptError) as caught:
        await used.call(("A",))
    assert (caught.value.sent, pool.connection.written) == (False, [])


async def test_nothing_is_sent_to_a_node_that_was_retired_while_it_was_connected_to() -> None:
    pool = Pool()
    pool.connecting.clear()
    used = node(pool)
    task = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    used.retire()
    pool.connecting.set()
    await asyncio.wait([task])
    assert pool.connection.written == []
    assert isinstance(task.exception(), AttemptError)


async def test_a_close_that_fails_does_not_take_the_place_of_the_attempts_error() -> None:
    pool = Pool(failing=CANNOT_CLOSE)
    pool.connection.replies = [redis_errors.ConnectionError("lost")]
    with pytest.raises(AttemptError):
        await node(pool, Pool()).call(("A",))


async def test_a_node_can_be_retired_although_its_connections_cannot_be_closed() -> None:
    pool = Pool(failing=CANNOT_CLOSE)
    used = node(pool)
    used.retire()
    await used.aclose()
    assert pool.disconnected


def sentinels(*answers: tuple[str, int], down: bool = False) -> SentinelLocator:
    """Return a locator whose one Sentinel gives these addresses in turn, the last one for ever."""
    given = list(answers)

    class Sentinel:
        connection_pool: Any = None

        async def sentinel_master(self, name: str) -> dict[str, Any]:
            host, port = given[0]
            return {"ip": host, "port": port, "config-epoch": 5 - len(given), "is_sdown": down, "is_odown": down}

        async def sentinel_get_master_addr_by_name(self, name: str) -> tuple[str, int]:
            return given.pop(0) if len(given) > 1 else given[0]

        async def aclose(self) -> None: ...

    config = HAConfig(topology="sentinel", nodes=["s:1"], service_name="m")
    locator = SentinelLocator(
        config,
        data_client=lambda address: Client(Pool(failing=CANNOT_CLOSE)),  # type: ignore[arg-type,return-value]
        sentinel_client=lambda address: Sentinel(),  # type: ignore[arg-type,return-value]
    )
    locator._start_listening = lambda: None  # type: ignore[method-assign]
    return locator


async def test_a_failover_away_from_a_primary_that_cannot_be_closed_is_followed() -> None:
    locator = sentinels(("old", 1), ("new", 2))
    await locator.primaries()
    assert [found.name for found in await locator.primaries()] == ["new:2"]


async def test_polling_goes_on_whatever_one_round_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    locator = sentinels(("old", 1))
    rounds = []

    async def fail() -> None:
        rounds.append(len(rounds))
        raise redis_errors.TimeoutError("Timed out closing connection after 1.5")

    monkeypatch.setattr(locator._refresh, "run", fail)
    locator._settings = locator._settings.replace(poll_interval_seconds=0.001)
    task = asyncio.ensure_future(locator._poll())
    await asyncio.wait([task], timeout=0.1)
    died = task.done() and not task.cancelled() and task.exception()
    task.cancel()
    await asyncio.wait([task])
    assert not died
    assert len(rounds) > 1


async def test_one_flight_serves_all_who_wait_and_the_next_one_starts_anew() -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        await asyncio.sleep(0)

    flight = SingleFlight(work)
    await asyncio.gather(*(flight.run() for _ in range(10)))
    assert len(runs) == 1
    await flight.run()
    assert len(runs) == 2


async def test_a_cancelled_waiter_does_not_stop_the_flight_for_the_others() -> None:
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()

    flight = SingleFlight(work)
    waiters = [asyncio.ensure_future(flight.run()) for _ in range(2)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    go.set()
    await waiters[1]
    assert waiters[0].cancelled()


async def test_a_failed_flight_tells_all_who_waited_and_is_tried_again() -> None:
    async def work() -> None:
        raise AttemptError(redis_errors.ConnectionError("x"), node=None, sent=False)

    flight = SingleFlight(work)
    results = await asyncio.gather(flight.run(), flight.run(), return_exceptions=True)
    assert all(isinstance(result, AttemptError) for result in results)
    with pytest.raises(AttemptError):
        await flight.run()


async def test_waiters_of_a_flight_that_is_closed_are_not_cancelled() -> None:
    async def work() -> None:
        await asyncio.sleep(60)

    flight = SingleFlight(work)
    waiter = asyncio.ensure_future(flight.run())
    await asyncio.sleep(0)
    await flight.aclose()
    await asyncio.wait([waiter])
    assert not waiter.cancelled()


async def test_a_majority_is_enough_and_the_slow_are_errors() -> None:
    async def answer(value: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return value

    async def fail() -> int:
        raise OSError("down")

    nodes = [Address("h", port) for port in range(1, 6)]
    questions = dict(zip(nodes, [answer(1, 0), answer(2, 0), answer(3, 0), answer(4, 60), fail()], strict=True))
    answers, errors = await ask_all(questions, 30)
    assert sorted(answers.values()) == [1, 2, 3]
    assert set(errors) == set(nodes[3:])
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.cancelling()] \
        if hasattr(asyncio.Task, "cancelling") else True  # fmt: skip


async def test_an_answer_that_makes_the_majority_may_take_its_time_and_one_right_behind_it_is_heard() -> None:
    async def answer(value: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return value

    nodes = [Address("h", port) for port in range(1, 4)]
    questions = dict(zip(nodes, [answer(1, 0), answer(2, 0.15), answer(3, 0.16)], strict=True))
    answers, errors = await ask_all(questions, 30)
    assert (sorted(answers.values()), errors) == ([1, 2, 3], {})


async def test_without_a_majority_all_are_waited_for_until_the_time_is_over() -> None:
    async def hang() -> int:
        await asyncio.sleep(60)
        return 0

    async def answer() -> int:
        return 7

    nodes = [Address("h", port) for port in range(1, 4)]
    answers, errors = await ask_all(dict(zip(nodes, [answer(), hang(), hang()], strict=True)), 0.02)
    assert (list(answers.values()), set(errors)) == ([7], set(nodes[1:]))
    assert all(isinstance(error, asyncio.TimeoutError) for error in errors.values())


async def test_who_finds_no_free_connection_in_time_has_sent_nothing() -> None:
    pool = Pool()
    pool.connecting.clear()
    used = Node(
        "h:1", lambda: SimpleNamespace(connection_pool=pool), PoolConfig(max_connections=1, wait_timeout_seconds=0.01)
    )  # type: ignore[arg-type, return-value]
    first = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    with pytest.raises(AttemptError) as caught:
        await used.call(("B",))
    assert (caught.value.sent, classify(caught.value.cause, sent=False).reason) == (False, "pool_exhausted")
    pool.connecting.set()
    await first
    assert await used.call(("C",))


async def test_a_connection_is_asked_once_who_is_there_and_again_when_it_was_made_anew() -> None:
    pool = Pool()
    used = node(pool)
    assert used.replication_id is None
    for _ in range(3):
        assert await used.call(("A",)) == [b"OK"]
    assert (pool.connection.introduced, used.replication_id) == (1, "1f" * 20)
    pool.connection.identity = b"master_replid:2e\r\n"
    (reconnected,) = pool.connection.connected
    reconnected(pool.connection)
    await used.call(("A",))
    assert (pool.connection.introduced, used.replication_id) == (2, "2e")
    assert WHO_IS_THERE not in b"".join(pool.connection.written)


@pytest.mark.parametrize("identity", [b"role:master\r\n", redis_errors.NoPermissionError("no INFO for you")])
async def test_a_server_that_does_not_say_who_it_is_serves_all_the_same(identity: Any) -> None:
    pool = Pool()
    pool.connection.identity = identity
    used = node(pool)
    assert await used.call(("A",)) == [b"OK"]
    assert used.replication_id is None


async def test_an_error_reply_to_the_first_request_of_a_connection_is_raised_like_any_other() -> None:
    pool = Pool()
    pool.connection.replies = [redis_errors.ResponseError("no"), 1, redis_errors.ResponseError("half")]
    used = node(pool)
    with pytest.raises(AttemptError):
        await used.call(("A",))
    assert (pool.in_use, pool.connection.closed) == (0, 0)
    found = await node(pool).call(("A",), ("B",))
    assert (found[0], type(found[1])) == (1, redis_errors.ResponseError)
