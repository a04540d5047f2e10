"""One connection between two parties that a partition may tear apart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from .relay import Relay, Streams, read, write


class Wire(Relay):
    """Passes bytes both ways while its ends may talk, and lets them vanish, silently, while they may not.

    The end of a connection vanishes too: the other side does not learn that its peer has closed or died.

    Args:
        connection: The connection that was accepted.
        server: The server's host and port.
        is_open: Whether bytes pass now.
    """

    def __init__(self, connection: socket.socket, server: tuple[str, int], is_open: Callable[[], bool]) -> None:
        super().__init__(connection, server)
        self._may_pass = is_open

    def _is_open(self) -> bool:
        return self._may_pass()

    async def _serve(self, client: Streams) -> None:
        if self._passes():
            await self._exchange(self._pass, self._pass, client)
        else:  # the kernel has accepted it, and no reply will come
            while await read(client[0]):
                pass

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await read(reader):
            if self._passes() and not await write(writer, chunk):
                break
        if not self._passes():
            await asyncio.Event().wait()  # until `abort`
