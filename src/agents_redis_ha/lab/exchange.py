"""One connection through a proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from .faults import Faults, Flow, Traffic
from .relay import Relay, Streams, read, write

_PIECE_SECONDS = 0.02  # on a slow link, a piece of a chunk follows another after so long
_LONGEST_MATCHED = 1024 * 1024  # bytes of a request that are kept to match it


class Exchange(Relay):
    """Passes requests one way and replies the other, as the faults allow.

    Args:
        connection: The connection that was accepted.
        server: The server's host and port.
        tls: A server's context, to speak TLS with the client.
        upstream_tls: A client's context, to speak TLS to the server.
        faults: What to do to the traffic.
        traffic: What is told of it.
        healed: Returns the event of the next healing.
    """

    def __init__(
        self,
        connection: socket.socket,
        server: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        upstream_tls: ssl.SSLContext | None,
        faults: Faults,
        traffic: Traffic,
        healed: Callable[[], asyncio.Event],
    ) -> None:
        super().__init__(connection, server, tls=tls, upstream_tls=upstream_tls)
        self._faults = faults
        self._traffic = traffic
        self._healed = healed
        self._request = bytearray()
        self._between_requests = True
        self._cutting = False

    def _is_open(self) -> bool:
        return self._faults.flow is not Flow.BLACKHOLE

    async def _serve(self, client: Streams) -> None:
        self._traffic.opened()
        try:
            await self._exchange(self._pass_requests, self._pass_replies, client)
        finally:
            self._traffic.closed()

    async def _pass_requests(self, from_client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while chunk := await read(from_client):
            if self._passes():
                self._note_request(chunk)
                await self._hold(self._faults.request_delay)
                if not await self._deliver(to_server, chunk):
                    return

    async def _pass_replies(self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while chunk := await read(from_server):
            self._between_requests = True
            if self._cutting:
                self._traffic.cut()
                return
            await self._hold(self._faults.reply_delay)
            if not await self._deliver(to_client, chunk):
                return

    async def _deliver(self, writer: asyncio.StreamWriter, chunk: bytes) -> bool:
        """Write what still passes, as fast as the faults allow; return whether the connection is still there."""
        left = memoryview(chunk)
        while left:
            rate = self._faults.bytes_per_second
            piece = left[: max(1, int(rate * _PIECE_SECONDS))] if rate else left
            left = left[len(piece) :]
            if rate:
                await self._hold(len(piece) / rate)
            if self._passes() and not await write(writer, piece):
                return False
        return True

    def _note_request(self, chunk: bytes) -> None:
        begins, self._between_requests = self._between_requests, False
        if begins:
            self._request.clear()
        self._traffic.requested(chunk, begins=begins)
        if len(self._request) < _LONGEST_MATCHED:
            self._request += chunk  # a pattern may lie across two chunks
            if not self._cutting:
                self._cutting = self._faults.claims(bytes(self._request))

    async def _hold(self, seconds: float) -> None:
        if seconds > 0:
            # Not wait_for: before Python 3.12 that loses a cancellation which comes in the very moment of the healing,
            # and the pump would go on for ever.
            healing = asyncio.ensure_future(self._healed().wait())
            try:
                await asyncio.wait([healing], timeout=seconds)
            finally:
                healing.cancel()
