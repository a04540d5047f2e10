"""Listening to one Sentinel's announcements."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from agents_redis_ha import SentinelConfig
from agents_redis_ha._connections import sentinel_events
from agents_redis_ha._connections.sentinel_events import STEPS
from tests.support.fake_nodes import LOST, listening, packed, unpacked
from tests.support.virtual_time import in_virtual_time

RETRY_SECONDS = 2.0
SETTINGS = SentinelConfig(poll_interval_seconds=RETRY_SECONDS, timeout_seconds=0.5)
AGAIN = object()


class Sentinel:
    """A client of a Sentinel; each subscription hears the next of `heard`, then silence; an error is raised.

    `AGAIN` is a reconnection by redis-py itself. A PING is answered as `pongs` says, one after another, and then well.
    """

    def __init__(self, *heard: list[Any], refusals: int = 0, pongs: list[Any] | None = None) -> None:
        kwargs: dict[str, Any] = {"socket_timeout": 0.4, "host": "s"}
        self.connection_pool = SimpleNamespace(connection_kwargs=kwargs)
        self.heard = list(heard)
        self.refusals = refusals
        self.pongs = pongs or []
        self.pings = 0
        self.log: list[str] = []
        self.channels: list[tuple[str, ...]] = []
        self.closed = 0

    def pubsub(self) -> Subscription:
        return Subscription(self)

    async def aclose(self) -> None:
        self.closed += 1


class Subscription:
    def __init__(self, sentinel: Sentinel) -> None:
        self.sentinel = sentinel

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.sentinel.log.append("given back")

    async def subscribe(self, *channels: str) -> None:
        self.sentinel.channels.append(channels)
        if self.sentinel.refusals:
            self.sentinel.refusals -= 1
            self.unread: list[Any] = [redis_errors.NoPermissionError("no channel for you")]
        else:
            self.unread = [*CONFIRMED, *(self.sentinel.heard.pop(0) if self.sentinel.heard else [])]

    async def ping(self) -> None:
        self.sentinel.pings += 1
        self.unread.append(self.sentinel.pongs.pop(0) if self.sentinel.pongs else PONG)

    async def get_message(self, timeout: float) -> Any:
        if self.unread and self.unread[0] is AGAIN:
            self.unread[:1] = CONFIRMED
        if not self.unread or self.unread[0] is None:
            self.unread = self.unread[1:]
            await asyncio.sleep(timeout)
            return None
        heard = self.unread.pop(0)
        if isinstance(heard, Exception):
            raise heard
        return heard if isinstance(heard, dict) else {"type": "message", "data": heard}


PONG = {"type": "pong", "data": b""}
CONFIRMED = [{"type": "subscribe", "data": count} for count in range(1, len(STEPS) + 1)]


async def followed(sentinel: Sentinel, seconds: float = 0.0) -> asyncio.Task[None]:
    """Listen for some seconds of the loop's time; what is called is in the Sentinel's log."""

    async def note(what: str) -> None:
        sentinel.log.append(what)

    following = sentinel_events.follow(
        sentinel,  # type: ignore[arg-type]
        "m",
        lambda: note("step"),
        lambda: note("subscribed"),
        SETTINGS,
    )
    task = asyncio.ensure_future(following)
    await asyncio.sleep(seconds)
    return task


@in_virtual_time
async def test_each_announced_step_of_the_services_failovers_is_told() -> None:
    sentinel = Sentinel([b"slave new:2 new 2 @ m old 1", b"m old 1 new 2"])
    await followed(sentinel, 1)
    assert sentinel.log == ["subscribed", "step", "step"]
    assert sentinel.channels == [STEPS]


@pytest.mark.parametrize("data", [b"other old 1 new 2", b"m2 old 1 new 2", b"slave m:2 m-2 2 @ other old 1", b"\xff"])
@in_virtual_time
async def test_an_announcement_of_another_service_is_passed_over(data: bytes) -> None:
    sentinel = Sentinel([data])
    await followed(sentinel, 1)
    assert sentinel.log == ["subscribed"]


@pytest.mark.parametrize(
    "lost",
    [LOST, redis_errors.TimeoutError("x"), OSError(104, "reset"), asyncio.TimeoutError(), TypeError("what no one saw")],
)
@in_virtual_time
async def test_after_a_lost_connection_the_listening_begins_again_and_says_so(lost: Exception) -> None:
    sentinel = Sentinel([b"m old 1 new 2", lost], [b"m new 2 old 1"])
    await followed(sentinel, RETRY_SECONDS - 0.1)
    assert sentinel.log == ["subscribed", "step", "given back"]
    await asyncio.sleep(0.2)
    assert sentinel.log == ["subscribed", "step", "given back", "subscribed", "step"]


@in_virtual_time
async def test_a_sentinel_that_refuses_is_asked_again_after_each_pause() -> None:
    sentinel = Sentinel(refusals=3)
    await followed(sentinel, 3 * RETRY_SECONDS - 0.1)
    assert "subscribed" not in sentinel.log
    await asyncio.sleep(0.2)
    assert sentinel.log[-1] == "subscribed"


@in_virtual_time
async def test_a_listener_may_wait_for_hours_while_the_sentinel_answers_its_probes() -> None:
    sentinel = Sentinel()
    task = await followed(sentinel, 36_000)
    assert not task.done()
    assert sentinel.log == ["subscribed"]
    assert sentinel.pings > 36_000 / RETRY_SECONDS * 0.9
    assert sentinel.connection_pool.connection_kwargs["socket_keepalive"] is True


@in_virtual_time
async def test_a_connection_that_is_silent_when_probed_is_made_anew() -> None:
    sentinel = Sentinel(pongs=[PONG, None])
    await followed(sentinel, 3 * RETRY_SECONDS + SETTINGS.timeout_seconds)
    assert sentinel.log == ["subscribed", "given back"]
    await asyncio.sleep(RETRY_SECONDS)
    assert sentinel.log == ["subscribed", "given back", "subscribed"]


@in_virtual_time
async def test_a_sentinel_that_confirms_no_subscription_is_asked_on_another_connection() -> None:
    sentinel = Sentinel(pongs=[None])
    subscribe = Subscription.subscribe

    async def unanswered(self: Subscription, *channels: str) -> None:
        await subscribe(self, *channels)
        if len(sentinel.channels) == 1:
            self.unread = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "subscribe", unanswered)
        await followed(sentinel, RETRY_SECONDS + SETTINGS.timeout_seconds + 0.1)
    assert sentinel.log == ["given back", "subscribed"]


@in_virtual_time
async def test_a_refusal_of_the_probe_is_an_answer() -> None:
    sentinel = Sentinel(pongs=[redis_errors.NoPermissionError("no PING for you")] * 100)
    await followed(sentinel, 50 * RETRY_SECONDS)
    assert sentinel.log == ["subscribed"]
    assert sentinel.pings > 40


@in_virtual_time
async def test_a_probe_comes_before_a_nat_forgets_however_slow_the_polls_are() -> None:
    sentinel = Sentinel()
    following = sentinel_events.follow(
        sentinel,  # type: ignore[arg-type]
        "m",
        lambda: asyncio.sleep(0),
        lambda: asyncio.sleep(0),
        SentinelConfig(poll_interval_seconds=3600),
    )
    task = asyncio.ensure_future(following)
    await asyncio.sleep(25)
    assert sentinel.pings == 2
    task.cancel()


@in_virtual_time
async def test_a_subscription_that_redis_py_renewed_by_itself_is_told_too() -> None:
    sentinel = Sentinel([b"m old 1 new 2", AGAIN, b"m new 2 old 1"])
    await followed(sentinel, 1)
    assert sentinel.log == ["subscribed", "step", "subscribed", "step"]


@pytest.mark.parametrize(("given", "seconds"), [(0.7, 1.4), (None, 2 * SETTINGS.timeout_seconds)])
@in_virtual_time
async def test_a_connection_that_is_never_made_is_given_up(given: float | None, seconds: float) -> None:
    async def hang(self: Subscription, *channels: str) -> None:
        sentinel.channels.append(channels)
        await asyncio.get_running_loop().create_future()

    sentinel = Sentinel()
    kwargs = sentinel.connection_pool.connection_kwargs
    kwargs |= {"socket_timeout": given, "socket_connect_timeout": given, "health_check_interval": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "subscribe", hang)
        await followed(sentinel, seconds - 0.1)
        assert sentinel.log == []
        await asyncio.sleep(0.2)
    assert sentinel.log == ["given back"]
    # redis-py's own timeout swallows cancellations, and its own probe notices no answer that does not come.
    assert (kwargs["socket_timeout"], kwargs["health_check_interval"], kwargs["host"]) == (None, 0, "s")


@in_virtual_time
async def test_a_connection_that_redis_py_cannot_renew_by_itself_is_given_up() -> None:
    async def hang(self: Subscription, timeout: float) -> Any:
        await asyncio.get_running_loop().create_future()

    sentinel = Sentinel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Subscription, "get_message", hang)
        await followed(sentinel, 3)
    assert sentinel.log == ["given back"]


@in_virtual_time
async def test_a_listener_that_is_cancelled_closes_its_client() -> None:
    for seconds in (1.0, RETRY_SECONDS + 0.5):  # while it listens, and in the pause after a failure
        sentinel = Sentinel([], refusals=int(seconds > RETRY_SECONDS) * 2)
        task = await followed(sentinel, seconds)
        task.cancel()
        await asyncio.wait([task])
        assert (task.cancelled(), sentinel.closed) == (True, 1)


@pytest.mark.parametrize("decode_responses", [False, True])
async def test_a_users_client_is_listened_to_whether_or_not_it_decodes(decode_responses: bool) -> None:
    def answer(piece: bytes) -> bytes:
        replies = [b"+OK\r\n" if command[0] != b"SUBSCRIBE" else subscribed(command) for command in unpacked(piece)]
        return b"".join(replies)

    def subscribed(command: tuple[bytes, ...]) -> bytes:
        replies = [b"*3\r\n" + packed(b"subscribe", channel)[4:] + b":1\r\n" for channel in command[1:]]
        return b"".join(replies) + packed(b"message", b"+switch-master", b"m old 1 new 2")

    async def nothing() -> None: ...

    async def step() -> None:
        told.set()

    told = asyncio.Event()
    async with listening(answer) as address:
        client = Redis(host=address.host, port=address.port, protocol=2, decode_responses=decode_responses)
        task = asyncio.ensure_future(sentinel_events.follow(client, "m", step, nothing, SETTINGS))
        await asyncio.wait([task, asyncio.ensure_future(told.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
