from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from agents_redis_ha import lab
from agents_redis_ha.lab import proxy as proxy_module
from agents_redis_ha.lab.ports import reserve_port


@pytest.fixture(scope="module")
def topology() -> Iterator[lab.Lab]:
    with lab.start("standalone", proxies=True) as started:
        yield started


@pytest.fixture
def proxy(topology: lab.Lab) -> Iterator[lab.Proxy]:
    found = topology.primary().proxy
    assert found is not None
    with topology.client(topology.primary()) as client:
        client.delete("key", "count")
    lab.wait_until(lambda: found.connections == 0, "the connections of the test before to close")
    found.reset_counters()
    yield found
    found.heal()


@pytest.fixture
def client(proxy: lab.Proxy) -> Iterator[redis.Redis]:
    """Return a client through the proxy that never resends."""
    with dial(proxy) as connected:
        yield connected


@pytest.fixture
def direct(topology: lab.Lab) -> Iterator[redis.Redis]:
    with topology.client(topology.primary()) as connected:
        yield connected


def dial(proxy: lab.Proxy, timeout: float = 10.0, **options: Any) -> redis.Redis:
    retry = Retry(NoBackoff(), 0)
    return redis.Redis(host=proxy.host, port=proxy.port, retry=retry, socket_timeout=timeout, **options)


def dial_impatiently(proxy: lab.Proxy) -> redis.Redis:
    """Return a client whose connection, made in peace, gives up a reply after a moment; the next one is patient."""
    client = dial(proxy, single_connection_client=True)
    client.ping()
    connection: Any = client.connection
    connection._sock.settimeout(0.1)
    return client


def test_a_cut_reply_leaves_the_value_stored_and_the_client_with_a_connection_error(
    proxy: lab.Proxy, client: redis.Redis, direct: redis.Redis
) -> None:
    client.ping()
    proxy.cut_replies()
    with pytest.raises(redis.ConnectionError):
        client.incr("count")
    assert direct.get("count") == b"1"
    proxy.heal()
    assert client.incr("count") == 2
    assert proxy.replies_cut == 1


def test_replies_are_cut_after_a_number_of_requests(proxy: lab.Proxy, client: redis.Redis, direct: redis.Redis) -> None:
    client.ping()
    proxy.cut_replies(after=2)
    assert [client.incr("count"), client.incr("count")] == [1, 2]
    with pytest.raises(redis.ConnectionError):
        client.incr("count")
    assert direct.get("count") == b"3"


def test_replies_are_cut_to_the_requests_that_a_function_chooses(proxy: lab.Proxy, client: redis.Redis) -> None:
    proxy.cut_replies(lambda request: b"INCRBY" in request)
    client.set("key", "1")
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.incrby("key", 10)
    assert client.get("key") == b"21"


def test_the_next_reply_to_a_kind_of_request_is_cut_so_many_times(proxy: lab.Proxy, client: redis.Redis) -> None:
    proxy.cut_next_reply(b"EVALSHA", b"EVAL", times=2)
    client.set("key", "1")
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.eval("return redis.call('INCR', KEYS[1])", 1, "key")
    assert not proxy.cuts_pending
    assert client.eval("return redis.call('INCR', KEYS[1])", 1, "key") == 4


def test_a_large_request_is_executed_before_its_reply_is_cut(
    proxy: lab.Proxy, client: redis.Redis, direct: redis.Redis
) -> None:
    proxy.cut_next_reply(b"RPUSH")
    items = [b"x" * 1000] * 3000
    with pytest.raises(redis.ConnectionError):
        client.rpush("key", *items)
    assert direct.llen("key") == 3000


def test_a_delayed_reply_is_late_although_the_command_was_executed_at_once(
    proxy: lab.Proxy, direct: redis.Redis
) -> None:
    with dial_impatiently(proxy) as client:
        proxy.delay(30)
        with pytest.raises(redis.TimeoutError):
            client.incr("count")
        assert direct.get("count") == b"1"


def test_a_delayed_request_is_executed_after_its_client_gave_up(proxy: lab.Proxy, direct: redis.Redis) -> None:
    with dial_impatiently(proxy) as client:
        proxy.delay(30, requests=True)
        with pytest.raises(redis.TimeoutError):
            client.incr("count")
    assert direct.get("count") is None
    proxy.heal()
    lab.wait_until(lambda: direct.get("count") == b"1", "the delayed request to be executed")


def test_healing_lets_delayed_traffic_through_at_once(proxy: lab.Proxy, client: redis.Redis) -> None:
    async def scenario() -> float:
        proxy.delay(30)
        began = time.monotonic()
        ping = asyncio.create_task(asyncio.to_thread(client.ping))
        await asyncio.to_thread(lab.wait_until, lambda: b"PING" in b"".join(proxy.commands), "the PING to arrive")
        proxy.heal()
        assert await ping
        return time.monotonic() - began

    client.echo("connected")
    assert asyncio.run(scenario()) < 30


def test_a_slow_link_takes_time_for_each_byte_both_ways_until_healed(proxy: lab.Proxy, client: redis.Redis) -> None:
    value = b"x" * 100_000
    client.ping()
    proxy.throttle(500_000)
    for step in (lambda: client.set("key", value), lambda: client.get("key")):
        began = time.monotonic()
        step()
        assert time.monotonic() - began > 0.19
    proxy.heal()
    assert client.get("key") == value


def test_healing_lets_what_a_slow_link_holds_through_at_once(proxy: lab.Proxy, client: redis.Redis) -> None:
    client.set("key", b"x" * 100_000)
    proxy.throttle(1)
    with ThreadPoolExecutor() as threads:
        reply = threads.submit(client.get, "key")
        lab.wait_until(lambda: b"GET" in b"".join(proxy.commands), "the GET to arrive")
        proxy.heal()
        assert len(reply.result(60) or b"") == 100_000


def test_refusing_resets_connections_and_turns_new_ones_away_until_healed(
    proxy: lab.Proxy, client: redis.Redis
) -> None:
    assert client.ping()
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    lab.wait_until(lambda: proxy.connections == 0, "the connections to be closed")
    proxy.heal()
    assert client.ping()


def test_a_blackhole_accepts_and_reads_but_nothing_arrives(proxy: lab.Proxy, direct: redis.Redis) -> None:
    with dial_impatiently(proxy) as established, dial(proxy, timeout=0.1) as fresh:
        proxy.blackhole()
        for client in (established, fresh):
            with pytest.raises(redis.TimeoutError):
                client.set("key", "lost")
        proxy.heal()
        assert direct.get("key") is None
        assert established.ping()
    with dial(proxy) as fresh:
        assert fresh.ping()


def test_a_forgotten_connection_loses_what_it_sends_and_a_new_one_passes(proxy: lab.Proxy, direct: redis.Redis) -> None:
    with dial_impatiently(proxy) as client:
        proxy.forget()
        with pytest.raises(redis.TimeoutError):
            client.incr("count")
        assert client.incr("count") == 1
    assert direct.get("count") == b"1"


def test_healing_resets_what_was_forgotten(proxy: lab.Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.forget()
    assert proxy.connections == 1
    proxy.heal()
    lab.wait_until(lambda: proxy.connections == 0, "the forgotten connection to be reset")
    assert client.ping()


def test_round_trips_count_the_alternations_of_request_and_reply(proxy: lab.Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.reset_counters()
    client.set("key", "1")
    client.get("key")
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(50):
            pipeline.incr("count")
        pipeline.execute()
    assert proxy.round_trips == 3
    assert proxy.commands[0] == b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\n1\r\n"
    assert (proxy.connections, proxy.connections_total) == (1, 0)


def test_a_proxy_works_while_the_event_loop_of_the_test_waits(proxy: lab.Proxy) -> None:
    async def scenario() -> bytes:
        async with redis.asyncio.Redis(host=proxy.host, port=proxy.port) as client:
            await client.set("key", "1")
            with dial(proxy) as blocking:  # blocks the loop that the asynchronous client runs in
                return bytes(blocking.get("key") or b"")

    assert asyncio.run(scenario()) == b"1"


def test_a_proxy_can_be_used_alone_and_says_where_it_leads(topology: lab.Lab) -> None:
    node = topology.primary()
    with lab.Proxy(node.host, node.port) as alone:
        assert repr(alone) == f"<Proxy {alone.address} -> {node.address} open>"
        with dial(alone) as client:
            assert client.ping()
    with pytest.raises(lab.LabError, match="is closed"):
        alone.refuse()


def test_a_proxy_survives_a_restart_of_its_server(topology: lab.Lab, proxy: lab.Proxy) -> None:
    with dial(proxy) as client:
        client.set("key", "1")
        topology.kill(topology.primary())
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        topology.restart(topology.primary())
        assert client.ping()


def test_refusing_resets_a_connection_whose_way_to_the_server_is_still_being_made(
    proxy: lab.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialling, cut_off = threading.Event(), asyncio.Event()
    dial_now = asyncio.open_connection

    async def dial_slowly(*args: Any, **options: Any) -> Any:
        dialling.set()
        await cut_off.wait()
        return await dial_now(*args, **options)

    async def go_on() -> None:
        cut_off.set()

    monkeypatch.setattr(asyncio, "open_connection", dial_slowly)
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as connection:
        assert dialling.wait(10)
        proxy.refuse()
        proxy._loop.run(go_on())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        lab.wait_until(lambda: proxy.connections == 0, "the connection to be given up")


@pytest.mark.parametrize("turns", range(6))
def test_closing_ends_a_connection_that_is_just_being_accepted(topology: lab.Lab, turns: int) -> None:
    node = topology.primary()
    proxy = lab.Proxy(node.host, node.port)

    async def connect() -> socket.socket:  # in the proxy's own thread, which turns so many times before it closes
        connection = socket.create_connection((proxy.host, proxy.port), timeout=10)
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy._stop_listening()
        return connection

    with proxy._loop.run(connect()) as connection:
        proxy.close()
        gc.collect()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_closing_cuts_a_connection_to_a_server_that_does_not_take_what_is_left_of_a_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        with lab.Proxy(*server.getsockname()) as proxy:
            with socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
                client.settimeout(0.5)
                with contextlib.suppress(TimeoutError):  # neither the kernel nor the proxy holds more
                    while True:
                        client.send(b"x" * 65536)
            taken, _ = server.accept()
        gc.collect()
        with taken, contextlib.suppress(ConnectionResetError):
            taken.settimeout(10)
            while taken.recv(65536):
                pass


def test_an_error_in_a_function_that_chooses_requests_is_told(
    proxy: lab.Proxy, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def choose(request: bytes) -> bool:
        raise ValueError("a mistake in the test")

    proxy.cut_replies(choose)
    with pytest.raises(redis.ConnectionError):
        client.ping()
    lab.wait_until(lambda: "a mistake in the test" in caplog.text, "the mistake to be told")


def test_a_lab_whose_proxy_finds_its_port_taken_starts_with_other_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, ports = reserve_port, iter([taken.getsockname()[1]])
        monkeypatch.setattr(proxy_module, "reserve_port", lambda: next(ports, None) or free())
        with lab.start("standalone", proxies=True) as topology:
            proxy = topology.primary().proxy
            assert proxy is not None
            with dial(proxy) as client:
                assert client.ping()
