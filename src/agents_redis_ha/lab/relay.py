"""One connection that is passed on to a server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Pump = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

_CHUNK = 64 * 1024


class Relay(ABC):
    """A connection that was accepted, and the one to the server behind it.

    Args:
        connection: The connection that was accepted.
        server: The server's host and port.
        tls: A server's context, to speak TLS with the client.
        upstream_tls: A client's context, to speak TLS to the server.
    """

    def __init__(
        self,
        connection: socket.socket,
        server: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        upstream_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connection = connection
        self._server = server
        self._tls, self._upstream_tls = tls, upstream_tls
        self._writers: list[asyncio.StreamWriter] = []
        self._sockets = [connection]
        self._task: asyncio.Task[None] | None = None
        self._torn = False

    @property
    def mends(self) -> bool:
        """Whether it has lost something, so that it cannot go on, although nothing is lost any more."""
        return self._torn and self._is_open()

    def start(self) -> asyncio.Task[None]:
        """Connect to the server and pass traffic until either side closes or `abort`; done when both are closed."""
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(lambda _: self._connection.close())  # if it was cancelled before its first step
        return self._task

    def tear(self) -> None:
        """Lose what comes from now on."""
        self._torn = True

    def abort(self) -> None:
        """Reset both connections (RST); one that is still being made is given up."""
        self._reset()
        if self._task:
            self._task.cancel()

    @abstractmethod
    def _is_open(self) -> bool:
        """Return whether bytes pass at this moment."""

    @abstractmethod
    async def _serve(self, client: Streams) -> None:
        """Pass traffic until either side closes."""

    async def _exchange(self, requests: Pump, replies: Pump, client: Streams) -> None:
        """Connect to the server and run the two pumps, each from one reader to one writer, until either ends."""
        from_client, to_client = client
        from_server, to_server = await asyncio.open_connection(*self._server, ssl=self._upstream_tls)
        self._keep(to_server)
        await _until_one_ends(requests(from_client, to_server), replies(from_server, to_client))

    async def _run(self) -> None:
        try:
            client = await open_accepted(self._connection, self._tls)
            self._keep(client[1])
            await self._serve(client)
            # Closed, not aborted: what was written is still delivered, so a request that has been
            # forwarded is executed.
            for writer in self._writers:
                writer.close()
            for writer in self._writers:
                with contextlib.suppress(OSError):  # it was reset
                    await writer.wait_closed()
        except OSError:
            pass  # the server cannot be reached, or the client does not speak TLS
        finally:
            self._reset()

    def _keep(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        # Now: a TLS transport that was closed twice, by its peer and here, cannot be asked later (sslproto.py, 3.11).
        if connection := writer.get_extra_info("socket"):
            self._sockets.append(connection)

    def _reset(self) -> None:
        for connection in self._sockets:
            linger_not(connection)
        for writer in self._writers:
            with contextlib.suppress(AttributeError):  # Python 3.11.2: TLS that was closed twice has nothing to abort
                writer.transport.abort()

    def _passes(self) -> bool:
        """Return whether to pass on what has come; once something was lost, everything is, until `abort`."""
        self._torn = self._torn or not self._is_open()
        return not self._torn


async def read(reader: asyncio.StreamReader) -> bytes:
    """Return what comes next; nothing if the connection has ended, in whatever way."""
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""


async def write(writer: asyncio.StreamWriter, chunk: bytes | memoryview) -> bool:
    """Write, wait while too much is under way, and return whether the connection is still there."""
    writer.write(chunk)
    try:
        await writer.drain()
    except OSError:
        return False
    return True


def linger_not(connection: socket.socket) -> None:
    """Have the connection closed with an RST, as a crashed host does, as soon as it is closed."""
    with contextlib.suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def open_accepted(connection: socket.socket, tls: ssl.SSLContext | None) -> Streams:
    """Return the streams of a connection that was accepted."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    pumps = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    for pump in done:
        pump.result()  # raises what a test's own function has raised
