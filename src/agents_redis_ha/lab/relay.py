"""One connection through a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from .faults import Faults, Flow, Traffic

_CHUNK = 64 * 1024
_LONGEST_MATCHED = 1024 * 1024  # bytes of a request that are kept to match it


class Relay:
    """Passes requests one way and replies the other, as the faults allow."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        faults: Faults,
        traffic: Traffic,
        healed: Callable[[], asyncio.Event],
    ) -> None:
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._faults = faults
        self._traffic = traffic
        self._healed = healed
        self._request = bytearray()
        self._between_requests = True
        self._cutting = False
        self.swallowed = False
        """Whether bytes were lost: such a connection cannot go on after the fault is healed."""

    async def run(self) -> None:
        """Pass traffic until either side closes or a fault ends the connection."""
        pumps = [
            asyncio.ensure_future(self._pass_requests()),
            asyncio.ensure_future(self._pass_replies()),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            # Closed, not aborted: what was written is still delivered, so a request that has been
            # forwarded is executed.
            for writer in (self._to_client, self._to_server):
                writer.close()

    def abort(self) -> None:
        """Reset both connections (RST)."""
        for writer in (self._to_client, self._to_server):
            reset(writer)

    async def _pass_requests(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._from_client.read(_CHUNK):
                if self._faults.flow is Flow.BLACKHOLE:
                    self.swallowed = True
                    continue
                self._note_request(chunk)
                await self._hold(self._faults.request_delay)
                self._to_server.write(chunk)
                await self._to_server.drain()

    async def _pass_replies(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._from_server.read(_CHUNK):
                self._between_requests = True
                if self._cutting:
                    self._traffic.cut()
                    return
                await self._hold(self._faults.reply_delay)
                if self._faults.flow is Flow.BLACKHOLE:
                    self.swallowed = True
                    continue
                self._to_client.write(chunk)
                await self._to_client.drain()

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


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with an RST, as a crashed host does."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # it is closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
