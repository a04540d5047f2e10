"""One connection between two parties that a partition may tear apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .relay import reset

_CHUNK = 64 * 1024


class Wire:
    """Passes bytes both ways while its ends may talk, and lets them vanish, silently, while they may not.

    The end of a connection vanishes too: the other side does not learn that its peer has closed or died.

    Args:
        client: The streams of the connection that was accepted.
        is_open: Whether bytes pass now.
    """

    def __init__(self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], is_open: Callable[[], bool]) -> None:
        self._from_client, self._to_client = client
        self._is_open = is_open
        self._writers = [self._to_client]
        self._aborted = asyncio.Event()
        self.torn = False
        """Whether something was lost: such a connection cannot go on when its ends may talk again."""

    @property
    def mends(self) -> bool:
        """Whether it is torn and its ends may talk again."""
        return self.torn and self._is_open()

    async def run(self, host: str, port: int) -> None:
        """Connect to the server and pass bytes until either side closes or `abort`.

        Raises:
            OSError: The server cannot be reached.
        """
        try:
            if self._is_open():
                from_server, to_server = await asyncio.open_connection(host, port)
                self._writers.append(to_server)
                await self._until_one_ends(
                    self._pass(self._from_client, to_server), self._pass(from_server, self._to_client)
                )
            else:
                self.torn = True  # the kernel has accepted it; nobody will ever answer
                await self._until_one_ends(self._drain())
        finally:
            for writer in self._writers:
                writer.close()

    def abort(self) -> None:
        """Reset both connections (RST)."""
        self._aborted.set()
        for writer in self._writers:
            reset(writer)

    async def _until_one_ends(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        pumps = [asyncio.ensure_future(each) for each in coroutines]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                chunk = await reader.read(_CHUNK)
            except OSError:
                chunk = b""
            if self.torn or not self._is_open():
                self.torn = True
                if not chunk:
                    await self._aborted.wait()
                    return
            elif chunk:
                writer.write(chunk)
                try:
                    await writer.drain()
                except OSError:
                    return  # the other direction reads the end
            else:
                return

    async def _drain(self) -> None:
        try:
            while await self._from_client.read(_CHUNK):
                pass
        except OSError:
            return
