"""Flows: TCP connections between two hosts, over links that delay, throttle and block what is sent.

What one end sends reaches the other whole and in order, or not at all. A reset may overtake what was sent before it.
While a link is blocked, nothing passes; what was sent meanwhile is sent again by TCP, at retransmission times that
double from 0.2 s, so a request can arrive long after its sender gave it up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Process, SimulatedLoop

if TYPE_CHECKING:
    from tests.simulation.network import Network

_JUST_BEHIND_SECONDS = 1e-6
_RETRANSMISSION_SECONDS = 0.2
_MTU = 1460
RESET = ConnectionResetError(104, "Connection reset by peer")


class Link:
    """The way from one host to another, in this direction.

    Attributes:
        latency: Seconds, at least.
        jitter: Seconds more, at most; now and then twenty times as many.
        bytes_per_second: None means that nothing has to wait.
        is_blocked: Whether nothing passes.
    """

    __slots__ = ("_free_at", "_random", "bytes_per_second", "is_blocked", "jitter", "latency", "waiting")

    def __init__(self, stream: random.Random, latency: float, jitter: float) -> None:
        self.latency, self.jitter = latency, jitter
        self.bytes_per_second: float | None = None
        self.is_blocked = False
        self.waiting: dict[Pipe, None] = {}
        self._random = stream.random
        self._free_at = 0.0

    def arrival(self, now: float, size: int) -> float:
        """Return when something arrives that is sent now."""
        if self.bytes_per_second is None:
            return now + self.delay()
        self._free_at = max(self._free_at, now) + size / self.bytes_per_second
        return self._free_at + self.delay()

    def delay(self) -> float:
        """Return how long something takes on its way."""
        drawn = self._random()
        return self.latency + self.jitter * (drawn if drawn < 0.98 else 20 * drawn)


class Pipe:
    """One direction of a flow."""

    __slots__ = (
        "_held",
        "_last",
        "_loop",
        "_receive",
        "dropped_from",
        "held_until",
        "is_closed",
        "is_dead",
        "link",
        "owner",
        "tap",
    )

    def __init__(self, loop: SimulatedLoop, link: Link, owner: Process | None, receive: Callable[[Any], None]) -> None:
        self._loop = loop
        self._receive = receive
        self._last = 0.0
        self._held: list[tuple[float, Any, int]] = []
        self.link = link
        self.owner = owner
        self.is_dead = self.is_closed = False
        self.dropped_from = float("inf")
        self.held_until = 0.0
        self.tap: Callable[[bytes], bool] | None = None

    def send(self, data: Any, size: int = 0) -> None:
        """Send bytes or a message, or the end: None in order (FIN), an exception ahead of what is under way (RST).

        Args:
            data: What to send.
            size: How long a message is, in bytes; for a link that is throttled.
        """
        if self.is_dead or self.is_closed:
            return
        now, link = self._loop._now, self.link
        if link.is_blocked:
            self._held.append((now, data, size))
            link.waiting[self] = None
        elif link.bytes_per_second is not None and isinstance(data, bytes) and len(data) > _MTU:
            for at in range(0, len(data), _MTU):
                self._pass_on(now, data[at : at + _MTU], _MTU)
        elif link.bytes_per_second is None and not isinstance(data, Exception):
            delay = link.delay()
            when = max(now + delay, self._last, self.held_until)
            self._last = when
            self._loop.deliver_at(when, self.owner, self._arrive, now, data)
        else:
            self._pass_on(now, data, size)

    def _pass_on(self, now: float, data: Any, size: int) -> None:
        when = self.link.arrival(now, size)
        if not isinstance(data, Exception):
            when = self._last = max(when, self._last, self.held_until)
        self._loop.deliver_at(when, self.owner, self._arrive, now, data)

    def _arrive(self, sent_at: float, data: Any) -> None:
        if self.is_dead or sent_at >= self.dropped_from:
            return
        if self.held_until > self._loop._now and not isinstance(data, Exception):  # it was held up on the way
            self._loop.deliver_at(self.held_until, self.owner, self._arrive, sent_at, data)
            return
        if self.tap is not None and isinstance(data, bytes) and not self.tap(data):
            return
        self._receive(data)

    def flush(self) -> None:
        """Send again what was held up, at TCP's next try."""
        held, self._held = self._held, []
        if not held or self.is_dead:
            return
        now, began = self._loop._now, held[0][0]
        wait = _RETRANSMISSION_SECONDS
        while began + wait < now:
            wait *= 2
        self.held_until = max(self.held_until, began + wait)
        # What was sent before and is still under way arrives then, too, and in front of this.
        self._last = max(self._last, self.held_until + _JUST_BEHIND_SECONDS)
        for _, data, size in held:
            self._pass_on(now, data, size)


class Flow:
    """A connection between two hosts.

    Attributes:
        name: Who to whom.
        there: The way from the one that made it to the other, and `back` the other way.
        since: When something passed last.
    """

    __slots__ = ("_network", "back", "client", "name", "on_client", "on_server", "server", "there")

    def __init__(self, network: Network, client: str, server: str, owner: Process | None) -> None:
        self._network = network
        self.client, self.server = client, server
        self.name = f"{client}>{server}"
        self.on_client: Callable[[Any], None] = ignore
        self.on_server: Callable[[Any], None] = ignore
        loop = network.loop
        self.there = Pipe(loop, network.link(client, server), None, self._to_server)
        self.back = Pipe(loop, network.link(server, client), owner, self._to_client)
        network.flows[self] = None

    def _to_server(self, data: Any) -> None:
        self.on_server(data)

    def _to_client(self, data: Any) -> None:
        self.on_client(data)

    def end(self) -> None:
        """Forget it: both ends have closed."""
        self.there.is_dead = self.back.is_dead = True
        self._network.flows.pop(self, None)

    def cut(self) -> None:
        """Reset it at both ends; what is under way is lost."""
        if self.there.is_dead and self.back.is_dead:
            return
        self.end()
        loop = self._network.loop
        loop.deliver_at(loop._now, self.back.owner, self.on_client, RESET)
        loop.deliver_at(loop._now, None, self.on_server, RESET)

    def forget(self) -> None:
        """Let both ends go on sending for nothing, as behind a NAT that has forgotten it."""
        self.there.is_dead = self.back.is_dead = True
        self._network.flows.pop(self, None)

    def server_vanishes(self) -> None:
        """Let the server's end be gone without a word: what is sent there from now on is answered by a reset."""
        self.back.is_closed = True
        self.there.tap = None
        self.on_server = partial(self._refuse, self.back, self._to_client)

    def vanish(self, host: str) -> None:
        """Let a host's end be gone without a word, as `server_vanishes`."""
        if host == self.server:
            self.server_vanishes()
        else:
            self.there.is_closed = True
            self.back.tap = None
            self.on_client = partial(self._refuse, self.there, self._to_server)

    def _refuse(self, pipe: Pipe, tell: Callable[[Any], None], data: Any) -> None:
        self.end()
        if data is not None and not isinstance(data, Exception):
            loop = self._network.loop
            loop.deliver_at(pipe.link.arrival(loop._now, 0), pipe.owner, tell, RESET)


def ignore(data: Any) -> None:
    """Drop what arrives."""


class Transport(asyncio.Transport):
    """A client's end of a flow, as asyncio's streams use it."""

    def __init__(self, loop: SimulatedLoop, flow: Flow, protocol: Any, peer: tuple[str, int]) -> None:
        super().__init__()
        self._loop, self._flow, self._protocol = loop, flow, protocol
        self._peer = peer
        self._closing = self._finished = False
        flow.on_client = self._arrived

    def _arrived(self, data: Any) -> None:
        if self._finished or self._closing:
            return
        if isinstance(data, bytes):
            self._protocol.data_received(data)
        elif data is None:
            self._loop.call_soon(self._protocol.eof_received)  # a turn after what came before it
        else:
            self._closing = True
            self._loop.call_soon(self._lost, data)

    def _lost(self, error: Exception | None) -> None:
        if not self._finished:
            self._finished = True
            self._protocol.connection_lost(error)

    def write(self, data: Any) -> None:
        if not self._closing:
            self._flow.there.send(bytes(data))

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._flow.there.send(None)
            self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._flow.there.send(RESET)
            self._loop.call_soon(self._lost, None)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Not modelled: a reader takes what comes."""

    def resume_reading(self) -> None:
        """Not modelled: a reader takes what comes."""

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer if name == "peername" else default


class LinkEnd:
    """One end of a stream of messages between two servers."""

    def __init__(self, pipe: Pipe, ignore: Callable[[], None]) -> None:
        self._pipe = pipe
        self.ignore = ignore

    def send(self, data: Any, size: int = 0) -> None:
        self._pipe.send(data, size)

    def close(self) -> None:
        self.ignore()
        self._pipe.send(None)


def until_the_end(
    flow: Flow, own: str, receive: Callable[[Any], None], closed: Callable[[], None]
) -> Callable[[Any], None]:
    """Return what passes messages on until the stream ends."""

    def arrived(data: Any) -> None:
        if data is None or isinstance(data, Exception):
            setattr(flow, own, ignore)
            flow.end()
            closed()
        else:
            receive(data)

    return arrived
