"""One simulated server: what clients are told, without a network."""

from __future__ import annotations

import random

import pytest

from tests.simulation.reading import PlainReader
from tests.simulation.redis.memory import Memory
from tests.simulation.redis.server import Server
from tests.simulation.resp import Failure, NullArray, Simple, encode, encode_request
from tests.simulation.timers import Timers


class Client:
    """Sends to one server and keeps the bytes that it answers."""

    def __init__(self, server: Server) -> None:
        self.received = b""
        self.is_closed = False
        self.connection = server.connect("10.0.0.9:1000", self._receive, self._close)

    def _receive(self, data: bytes) -> None:
        self.received += data

    def _close(self) -> None:
        self.is_closed = True

    def ask(self, *arguments: bytes | str | int) -> bytes:
        self.received = b""
        self.connection.receive(encode_request(*arguments))
        return self.received


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def server(timers: Timers) -> Server:
    return Server("10.0.0.1:6379", clock=timers.clock, call_later=timers.call_later, random=random.Random(1))


def test_a_script_runs_and_is_known_by_its_digest_afterwards(server: Server) -> None:
    client = Client(server)
    assert client.ask("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0).startswith(b"-NOSCRIPT")
    assert client.ask("SCRIPT", "LOAD", "return 1") == b"$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n"
    assert client.ask("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0) == b":1\r\n"


def test_requests_of_one_write_are_answered_in_one(server: Server) -> None:
    client = Client(server)
    client.connection.receive(encode_request("SET", "a", "1") + encode_request("GET", "a")[:9])
    assert client.received == b"+OK\r\n"
    client.connection.receive(encode_request("GET", "a")[9:] + encode_request("PING"))
    assert client.received == b"+OK\r\n$1\r\n1\r\n+PONG\r\n"


def test_a_stopped_server_answers_when_it_goes_on(server: Server, timers: Timers) -> None:
    client = Client(server)
    server.pause(2.0)
    timers.advance(1.0)
    assert client.ask("PING") == b""
    timers.advance(1.5)
    assert client.received == b"+PONG\r\n"


SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[1]) return redis.call('LLEN', KEYS[2])"


def test_a_scripts_changes_are_one_batch_that_a_power_cut_takes_or_leaves(timers: Timers) -> None:
    for kept in range(4):
        server = new_server(timers, appendonly="yes")
        client = Client(server)
        for value in ("1", "2", "3"):
            client.ask("EVAL", SCRIPT, 2, "key", "list", value)
        server.crash()
        assert client.is_closed
        server.restart("aof", batches=kept)
        client = Client(server)
        assert client.ask("LLEN", "list") == b":%d\r\n" % kept
        assert client.ask("GET", "key") == (b"$1\r\n%d\r\n" % kept if kept else b"$-1\r\n")


def test_a_power_cut_takes_what_was_not_flushed_within_the_last_second(timers: Timers) -> None:
    server = new_server(timers, appendonly="yes")
    client = Client(server)
    client.ask("SET", "first", "1")
    timers.advance(0.5)
    client.ask("SET", "second", "1")
    timers.advance(0.3)
    server.crash()
    server.restart("aof")
    assert Client(server).ask("MGET", "first", "second") == b"*2\r\n$1\r\n1\r\n$-1\r\n"


def test_a_restart_leaves_the_snapshot_or_nothing_and_no_script(timers: Timers) -> None:
    server = new_server(timers)
    client = Client(server)
    client.ask("SET", "saved", "1")
    client.ask("SAVE")
    client.ask("SET", "lost", "1")
    sha = client.ask("SCRIPT", "LOAD", SCRIPT)[5:45]
    server.crash()
    server.restart("snapshot")
    client = Client(server)
    assert client.ask("MGET", "saved", "lost") == b"*2\r\n$1\r\n1\r\n$-1\r\n"
    assert client.ask("EVALSHA", sha, 0).startswith(b"-NOSCRIPT")
    server.crash()
    server.restart("nothing")
    assert Client(server).ask("DBSIZE") == b":0\r\n"


def test_keys_are_evicted_where_the_policy_allows_it(timers: Timers) -> None:
    server = new_server(timers, **{"maxmemory": str(Memory.BASE + 3_000), "maxmemory-policy": "allkeys-lru"})
    client = Client(server)
    for at in range(10):
        assert client.ask("SET", f"key{at}", "x" * 500) == b"+OK\r\n"
        timers.advance(1.0)
        client.ask("GET", "key0")
    assert client.ask("EXISTS", "key0") == b":1\r\n"
    assert server.stats["evicted_keys"] >= 4
    client.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    client.ask("CONFIG", "SET", "maxmemory", 1)
    assert client.ask("SET", "more", "1").startswith(b"-OOM command not allowed")
    assert client.ask("EVAL", SCRIPT, 2, "k", "l", "v").startswith(b"-OOM command not allowed")


def test_clients_are_killed_and_told_on_channels(server: Server) -> None:
    one, other, listener = Client(server), Client(server), Client(server)
    assert listener.ask("SUBSCRIBE", "news").endswith(b"$4\r\nnews\r\n:1\r\n")
    assert other.ask("PUBLISH", "news", "first") == b":1\r\n"
    assert listener.received.endswith(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nfirst\r\n")
    assert one.ask("CLIENT", "KILL", "TYPE", "normal") == b":1\r\n"
    assert (one.is_closed, other.is_closed, listener.is_closed) == (False, True, False)
    assert one.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") == b":1\r\n"
    assert one.is_closed


def test_a_server_has_the_clock_that_it_was_given(timers: Timers) -> None:
    ahead = 0.0
    server = Server(
        "10.0.0.1:6379", clock=lambda: timers.now + ahead, call_later=timers.call_later, random=random.Random(1)
    )
    client = Client(server)
    client.ask("SET", "key", "1", "PX", 10_000)
    ahead = 20.0
    assert client.ask("TIME").startswith(b"*2\r\n$10\r\n%d" % int(timers.now + 20))
    assert client.ask("GET", "key") == b"$-1\r\n"


def test_the_same_seed_makes_the_same_ids(timers: Timers) -> None:
    said = [Client(new_server(timers)).ask("INFO") for _ in range(2)]
    assert said[0] == said[1]


def new_server(timers: Timers, **config: str) -> Server:
    return Server(
        "10.0.0.1:6379", clock=timers.clock, call_later=timers.call_later, random=random.Random(1), config=config
    )


def test_replies_are_read_alike_with_and_without_hiredis() -> None:
    hiredis = pytest.importorskip("hiredis")
    sent = encode([b"a", 1, None, [Failure(b"ERR no"), Simple(b"OK")], NullArray()]) + encode(b"b") + encode(b"c")[:-3]
    found = []
    for reader in (hiredis.Reader(replyError=ValueError), PlainReader(replyError=ValueError)):
        for at in range(0, len(sent), 7):
            reader.feed(sent[at : at + 7])
        found.append([repr(reader.gets()) for _ in range(3)])
    assert found[0] == found[1]
    assert found[0][1:] == ["b'b'", "False"]
