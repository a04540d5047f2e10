"""One connection through a proxy, in a loop whose every turn the test counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from agents_redis_ha.lab.faults import Faults, Traffic
from agents_redis_ha.lab.relay import Relay

ENOUGH_TURNS = 50  # of the loop; a relay without sockets needs about five to end


class Sink:
    """A writer that has no socket and is never full."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, chunk: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def held(faults: Faults) -> tuple[asyncio.Event, list[asyncio.StreamReader], list[Sink], asyncio.Task[None]]:
    """Return the healing, both readers, both writers and the task of a relay that holds a request or a reply."""
    healed = asyncio.Event()
    readers, sinks = [asyncio.StreamReader(), asyncio.StreamReader()], [Sink(), Sink()]
    client, server = ((reader, cast(Any, sink)) for reader, sink in zip(readers, sinks, strict=True))
    task = asyncio.ensure_future(Relay(client, server, faults, Traffic(), lambda: healed).run())
    for reader in readers:
        reader.feed_data(b"+PING\r\n")
    await turns(10)
    assert not task.done()
    return healed, readers, sinks, task


@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("lead", range(-5, 6))
async def test_a_connection_ends_whose_one_side_closes_while_healing_lets_the_other_go(side: int, lead: int) -> None:
    faults = Faults()
    faults.reply_delay, faults.request_delay = (30, 0) if side == 0 else (0, 30)
    healed, readers, sinks, task = await held(faults)
    events: list[Callable[[], None]] = [readers[side].feed_eof, healed.set]
    for event in events if lead >= 0 else reversed(events):
        event()
        await turns(abs(lead))
    await turns(ENOUGH_TURNS)
    assert task.done()
    assert all(sink.closed for sink in sinks)
