"""A network of hosts: who listens where, which names lead where, and the connections that are made.

Left out: the sizes of sockets' buffers (a writer never has to wait), the loss of single packets (that is delay), TLS (a
handshake fails as with a server that speaks plain text).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.flows import Flow, Link, LinkEnd, Pipe, Transport, ignore, until_the_end
from tests.simulation.loop import Process, SimulatedLoop

_SYN_SECONDS = (1.0, 3.0, 7.0, 15.0)


class Accepted(Protocol):
    """A connection from the server's side."""

    def receive(self, data: bytes) -> None: ...

    def closed(self) -> None: ...


class Listener(Protocol):
    """What accepts connections of clients, and streams of other servers."""

    def connect(self, peer: str, send: Callable[[bytes], None], close: Callable[[], None]) -> Accepted: ...

    def accept(self, peer: str, link: Any) -> Any: ...


class Network:
    """Hosts, names and what is between them.

    Attributes:
        names: Which host a name leads to; a name that is not there is the host itself.
        on_accept: Called with each flow that a process made, once the server has it.
    """

    def __init__(self, loop: SimulatedLoop, stream: Callable[[str], random.Random]) -> None:
        """Make a network without hosts.

        Args:
            loop: Its time.
            stream: Returns the chance of a link by its name.
        """
        self.loop = loop
        self.names: dict[str, str] = {}
        self.flows: dict[Flow, None] = {}
        self.on_accept: Callable[[Flow], None] = ignore
        self.default_latency, self.default_jitter = 0.0003, 0.0004
        self._stream = stream
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._off: set[str] = set()
        self._hosts: dict[Process, str] = {}
        self._ports = 40_000
        loop.connect = self.connect

    def place(self, process: Process, host: str) -> None:
        """Let a process run on a host."""
        self._hosts[process] = host

    def listen(self, host: str, port: int, listener: Listener) -> None:
        """Accept connections there from now on."""
        self._listeners[host, port] = listener

    def deafen(self, host: str, port: int) -> None:
        """Refuse connections there from now on."""
        self._listeners.pop((host, port), None)

    def link(self, source: str, target: str) -> Link:
        """Return the way from a host to another."""
        found = self._links.get((source, target))
        if found is None:
            stream = self._stream(f"link/{source}/{target}")
            found = Link(stream, self.default_latency, self.default_jitter)
            self._links[source, target] = found
        return found

    def restore(self, link: Link) -> None:
        """Let a link be as fast again as it was in the beginning."""
        link.latency, link.jitter, link.bytes_per_second = self.default_latency, self.default_jitter, None

    def block(self, source: str, target: str) -> None:
        """Let nothing pass from a host to another."""
        self.link(source, target).is_blocked = True

    def unblock(self, source: str, target: str) -> None:
        """Let everything pass again."""
        link = self.link(source, target)
        link.is_blocked = False
        waiting, link.waiting = link.waiting, {}
        for pipe in waiting:
            pipe.flush()

    def flows_of(self, host: str) -> list[Flow]:
        """Return the flows that begin or end at a host, the oldest first."""
        return [flow for flow in self.flows if host in (flow.client, flow.server)]

    def host_of(self, process: Process | None) -> str:
        """Return where a process runs."""
        return self._hosts[process] if process is not None else "world"

    async def connect(
        self, owner: Process | None, protocol_factory: Callable[[], Any], host: str, port: int, *, tls: bool
    ) -> tuple[Transport, Any]:
        """Make a connection, as the event loop's `create_connection`."""
        source, target = self.host_of(owner), self.names.get(host, host)
        listener = await self._handshake(source, target, port)
        if tls:
            raise ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
        flow = Flow(self, source, target, owner)
        protocol = protocol_factory()
        transport = Transport(self.loop, flow, protocol, (target, port))
        self._accept(flow, listener)
        self.on_accept(flow)
        protocol.connection_made(transport)
        return transport, protocol

    async def _handshake(self, source: str, target: str, port: int) -> Listener:
        there, back = self.link(source, target), self.link(target, source)
        began, tries = self.loop.time(), iter(_SYN_SECONDS)
        while there.is_blocked or back.is_blocked or target in self._off:
            again = began + next(tries, 3600.0)
            await asyncio.sleep(again - self.loop.time())
        now = self.loop.time()
        trip = there.arrival(now, 0) + back.arrival(now, 0) - 2 * now
        await asyncio.sleep(trip)
        listener = self._listeners.get((target, port))
        if listener is None:
            raise ConnectionRefusedError(111, f"Connect call failed ({target!r}, {port})")
        return listener

    def _accept(self, flow: Flow, listener: Listener) -> None:

        def close() -> None:
            flow.back.send(None)
            flow.server_vanishes()

        accepted = listener.connect(f"{flow.client}:{self._next_port()}", flow.back.send, close)
        flow.on_server = until_the_end(flow, "on_server", accepted.receive, accepted.closed)

    def dial(
        self, source: str, host: str, port: int, receive: Callable[[Any], None], closed: Callable[[], None]
    ) -> LinkEnd | None:
        """Open a stream of messages from a server to another one.

        It can be used at once: what is sent before it is up waits for it, as by one that waits.

        Returns:
            None if the address is refused.
        """
        target = self.names.get(host, host)
        listener = self._listeners.get((target, port))
        if listener is None:
            return None
        flow = Flow(self, source, target, None)

        def end_of(pipe: Pipe, own: str) -> LinkEnd:
            return LinkEnd(pipe, lambda: setattr(flow, own, ignore))

        accepted = listener.accept(f"{source}:{self._next_port()}", end_of(flow.back, "on_server"))
        flow.on_server = until_the_end(flow, "on_server", accepted.receive, accepted.closed)
        flow.on_client = until_the_end(flow, "on_client", receive, closed)
        return end_of(flow.there, "on_client")

    def call(
        self, source: str, host: str, port: int, receive: Callable[[bytes], None], closed: Callable[[], None]
    ) -> LinkEnd | None:
        """Connect as a client from something that is no process; otherwise as `dial`."""
        target = self.names.get(host, host)
        listener = self._listeners.get((target, port))
        if listener is None:
            return None
        flow = Flow(self, source, target, None)
        flow.on_client = until_the_end(flow, "on_client", receive, closed)
        self._accept(flow, listener)
        return LinkEnd(flow.there, lambda: setattr(flow, "on_client", ignore))

    def _next_port(self) -> int:
        self._ports += 1
        return self._ports
