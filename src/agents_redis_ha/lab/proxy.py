"""A TCP proxy in front of one server, to lose, delay and count what passes.

It runs in a thread with an event loop of its own, so that it works while the test's loop is busy or
not running.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable

from .errors import LabError, PortTakenError
from .exchange import Exchange
from .faults import Faults, Flow, Matcher, Traffic
from .loop_thread import LoopThread
from .ports import HOST, release_port, reserve_port
from .relays import Listener, Relays


class Proxy:
    """A proxy on 127.0.0.1, on a port of its own; it listens from construction to `close`.

    A *request* is what the client sends between two replies: one command, or one pipeline. Faults
    stay until `heal`.

    Args:
        upstream_host: Where to forward to.
        upstream_port: Its port.
        tls: A server's context: the proxy ends TLS here, so that it sees plain requests. None:
            bytes pass as they are.
        upstream_tls: A client's context: the proxy speaks TLS to the server.
        port: The port to listen on; None chooses a free one.

    Attributes:
        host: 127.0.0.1.
        port: The port it listens on.

    Raises:
        LabError: It cannot listen on the port.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        tls: ssl.SSLContext | None = None,
        upstream_tls: ssl.SSLContext | None = None,
        port: int | None = None,
    ) -> None:
        self.host = HOST
        self.port = reserve_port() if port is None else port
        self._upstream = (upstream_host, upstream_port)
        self._tls, self._upstream_tls = tls, upstream_tls
        self._faults, self._traffic = Faults(), Traffic()
        self._relays = Relays()
        self._listener: Listener | None = None
        self._healed = asyncio.Event()
        self._loop = LoopThread(f"proxy {self.address}")
        try:
            self._loop.run(self._listen())
        except OSError as error:
            self.close()
            kind = PortTakenError if error.errno == errno.EADDRINUSE else LabError
            raise kind(f"the proxy cannot listen on {self.address}: {error}") from error

    def __repr__(self) -> str:
        host, port = self._upstream
        return f"<Proxy {self.address} -> {host}:{port} {self._faults.flow.value}>"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """`host:port` for clients to dial."""
        return f"{self.host}:{self.port}"

    @property
    def round_trips(self) -> int:
        """Requests since the reset: a connection's first chunk, and its first after each reply."""
        return self._traffic.round_trips

    @property
    def replies_cut(self) -> int:
        """Replies dropped by `cut_replies` and `cut_next_reply` since the last reset."""
        return self._traffic.replies_cut

    @property
    def cuts_pending(self) -> bool:
        """Whether a reply is still to be cut."""
        return self._faults.cuts_pending

    @property
    def commands(self) -> list[bytes]:
        """The latest 1000 chunks from clients, oldest first, as sent: AUTH holds its password."""
        return self._traffic.commands()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._traffic.connections

    @property
    def connections_total(self) -> int:
        """Connections accepted since the last reset."""
        return self._traffic.connections_total

    def reset_counters(self) -> None:
        """Forget what was counted and recorded; `connections` stays true."""
        self._traffic.reset()

    def cut_replies(self, after: int | Matcher | None = None) -> None:
        """Have requests executed, but drop the reply and close the connection: outcome unknown.

        The request passes; the first bytes that the server sends after it are dropped. Lasts until
        `heal`.

        Args:
            after: None: every request from now on. A number: every request after the next so many,
                a connection's handshake (HELLO, AUTH, CLIENT SETINFO) counted. A function of the
                request's bytes: those it is true for.
        """
        if callable(after):
            self._faults.cut(after, pass_first=0, times=None)
        else:
            self._faults.cut(_any_request, pass_first=after or 0, times=None)

    def cut_next_reply(self, *containing: bytes, times: int = 1) -> None:
        """Cut, like `cut_replies`, the reply to the next requests that contain any of these bytes.

        Args:
            containing: For example `b"EVALSHA"`; matched as they are, in a request's first MiB.
                None: any request.
            times: How many replies to cut; after that, traffic passes again.
        """
        self._faults.cut(_containing(containing) if containing else _any_request, pass_first=0, times=times)

    def delay(self, seconds: float, *, requests: bool = False) -> None:
        """Hold every chunk of a reply back until `heal`: executed at once, reported late.

        Args:
            seconds: How long.
            requests: Hold the requests back instead. A request is forwarded late even if its client
                has gone by then.
        """
        if requests:
            self._faults.request_delay = seconds
        else:
            self._faults.reply_delay = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Pass no more than so many bytes a second, each way of each connection, until `heal`.

        What a client writes waits in the buffers of the system and of the proxy, some megabytes of it.
        """
        self._faults.bytes_per_second = bytes_per_second

    def refuse(self) -> None:
        """Reset all connections and refuse new ones, until `heal`."""
        self._faults.flow = Flow.REFUSED
        self._loop.run(self._stop_listening())

    def blackhole(self) -> None:
        """Accept connections and read from both sides, but pass nothing on, until `heal`.

        Connections that lost bytes are reset by `heal`; the others go on.
        """
        self._faults.flow = Flow.BLACKHOLE

    def forget(self) -> None:
        """Lose what comes from now on on each connection that is open, until its end; new ones pass.

        A NAT does so with flows that were idle. `heal` resets what was forgotten.
        """
        self._loop.run(self._forget())

    def heal(self) -> None:
        """Switch off every fault; held traffic is let through at once."""
        self._faults.clear()
        self._loop.run(self._recover())

    def forward_to(self, host: str, port: int) -> None:
        """Lead the connections from now on to another address; those that are open stay."""
        self._upstream = (host, port)

    def use_tls(self, tls: ssl.SSLContext | None, upstream_tls: ssl.SSLContext | None) -> None:
        """Use other contexts for the connections from now on; those that are open stay."""
        self._tls, self._upstream_tls = tls, upstream_tls
        self._loop.run(self._listen_anew())

    def close(self) -> None:
        """Stop listening, close every connection and end the thread; a second time does nothing."""
        if self._loop.closed:
            return
        with contextlib.suppress(LabError):
            self._loop.run(self._stop_listening())
        self._loop.close()
        release_port(self.port)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = self._relays.listen(self.port, self._accepted)

    async def _listen_anew(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await self._listen()

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._relays.abort()

    async def _forget(self) -> None:
        self._relays.tear()

    async def _recover(self) -> None:
        self._healed.set()
        self._healed = asyncio.Event()
        self._relays.abort_mended()
        await self._listen()

    def _accepted(self, connection: socket.socket, _: str) -> Exchange | None:
        if self._faults.flow is Flow.REFUSED:  # the listener is about to be closed
            return None
        return Exchange(
            connection,
            self._upstream,
            tls=self._tls,
            upstream_tls=self._upstream_tls,
            faults=self._faults,
            traffic=self._traffic,
            healed=lambda: self._healed,
        )


def _any_request(_: bytes) -> bool:
    return True


def _containing(patterns: tuple[bytes, ...]) -> Callable[[bytes], bool]:
    return lambda request: any(pattern in request for pattern in patterns)
