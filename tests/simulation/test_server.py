"""One simulated server: what clients are told, without a network."""

from __future__ import annotations

import random

import pytest

from tests.simulation.redis.server import Server
from tests.simulation.resp import encode_request
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
