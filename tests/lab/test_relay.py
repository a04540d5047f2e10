"""One connection through a proxy, in a loop whose every turn the test counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agents_redis_ha.lab import relay as relay_module
from agents_redis_ha.lab.exchange import Exchange
from agents_redis_ha.lab.faults import Faults, Flow, Traffic
from agents_redis_ha.lab.wire import Wire

ENOUGH_TURNS = 50  # of the loop; a relay without sockets needs about ten to end
REQUEST = b"PING\r\n"


class Sink:
    """A writer that has no socket."""

    def __init__(self) -> None:
        self.transport = self
        self.closed = False
        self.written = b""
        self.drained = asyncio.Event()
        self.drained.set()
        self.error: Exception | None = None

    def write(self, chunk: bytes) -> None:
        self.written += chunk

    async def drain(self) -> None:
        await self.drained.wait()
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True

    abort = close

    async def wait_closed(self) -> None:
        pass

    def get_extra_info(self, _: str) -> None:
        if self.closed:  # as a TLS transport of Python 3.11 that was closed twice
            raise AttributeError("'NoneType' object has no attribute '_get_extra_info'")


class Ends:
    """The streams of both sides: the client's and the server's, the latter found by whoever dials it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readers = [asyncio.StreamReader(), asyncio.StreamReader()]
        self.sinks = [Sink(), Sink()]
        streams = list(zip(self.readers, self.sinks, strict=True))

        async def accept(*_: Any) -> Any:
            return streams[0]

        async def dial(*_: Any, **__: Any) -> Any:
            return streams[1]

        monkeypatch.setattr(relay_module, "open_accepted", accept)
        monkeypatch.setattr(asyncio, "open_connection", dial)

    @property
    def closed(self) -> bool:
        return all(sink.closed for sink in self.sinks)


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    return Ends(monkeypatch)


def exchange(ends: Ends, faults: Faults, healed: asyncio.Event) -> Exchange:
    return Exchange(
        socket.socket(), ("", 0), tls=None, upstream_tls=None, faults=faults, traffic=Traffic(), healed=lambda: healed
    )


async def test_a_connection_that_both_sides_have_closed_can_be_aborted(ends: Ends) -> None:
    relay = exchange(ends, Faults(), asyncio.Event())
    task = relay.start()
    await turns(ENOUGH_TURNS)
    for reader, sink in zip(ends.readers, ends.sinks, strict=True):
        sink.close()
        reader.feed_eof()
    await turns(ENOUGH_TURNS)
    relay.abort()
    assert (task.done(), task.exception()) == (True, None)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("lead", range(-5, 6))
async def test_a_connection_ends_whose_one_side_closes_while_healing_lets_the_other_go(
    ends: Ends, side: int, lead: int
) -> None:
    faults, healed = Faults(), asyncio.Event()
    faults.reply_delay, faults.request_delay = (30, 0) if side == 0 else (0, 30)
    task = exchange(ends, faults, healed).start()
    for reader in ends.readers:
        reader.feed_data(REQUEST)
    await turns(ENOUGH_TURNS)
    assert not task.done()
    events: list[Callable[[], None]] = [ends.readers[side].feed_eof, healed.set]
    for event in events if lead >= 0 else reversed(events):
        event()
        await turns(abs(lead))
    await turns(ENOUGH_TURNS)
    assert task.done()
    assert ends.closed


async def test_a_request_that_was_held_when_the_blackhole_opened_is_lost(ends: Ends) -> None:
    faults, healed = Faults(), asyncio.Event()
    faults.request_delay = 30
    task = exchange(ends, faults, healed).start()
    ends.readers[0].feed_data(REQUEST)
    await turns(ENOUGH_TURNS)
    faults.flow = Flow.BLACKHOLE
    healed.set()
    ends.readers[0].feed_eof()
    await task
    assert ends.sinks[1].written == b""


async def test_what_follows_on_lost_bytes_is_lost_too_until_the_connection_is_reset(ends: Ends) -> None:
    faults = Faults()
    relay = exchange(ends, faults, asyncio.Event())
    task = relay.start()
    faults.flow = Flow.BLACKHOLE
    ends.readers[0].feed_data(REQUEST)
    await turns(ENOUGH_TURNS)
    faults.clear()
    ends.readers[0].feed_data(REQUEST)
    await turns(ENOUGH_TURNS)
    assert ends.sinks[1].written == b""
    assert relay.mends
    relay.abort()
    await turns(ENOUGH_TURNS)
    assert task.done()
    assert ends.closed


async def test_a_peer_that_dies_in_a_partition_vanishes_also_for_one_who_waits_to_write_to_it(ends: Ends) -> None:
    is_open = True
    relay = Wire(socket.socket(), ("", 0), lambda: is_open)
    task = relay.start()
    ends.sinks[1].drained.clear()
    ends.readers[0].feed_data(REQUEST)
    await turns(ENOUGH_TURNS)
    is_open = False
    ends.sinks[1].error = ConnectionResetError()
    ends.sinks[1].drained.set()
    await turns(ENOUGH_TURNS)
    assert not task.done()
    is_open = True
    assert relay.mends
    relay.abort()
    await turns(ENOUGH_TURNS)
    assert task.done()
    assert ends.closed
