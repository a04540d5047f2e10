"""Nodes without servers: real `Node` objects over pools whose connections answer as the test says."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions as redis_errors

from agents_redis_ha import Address, PoolConfig
from agents_redis_ha._commands import REPLICATION_INFO, Argument, Command, Script
from agents_redis_ha._connections.node import Node
from tests.support.fakes import I_AM, SPEC

SCRIPT = Script("append", b"return 1", b"5ca1ab1e")

# What redis-py raises where a peer that is gone does not take part in closing: TLS, or bytes that never left.
CANNOT_CLOSE = redis_errors.TimeoutError("Timed out closing connection after 1.5")
LOST = redis_errors.ConnectionError("lost")

Written = tuple[bytes, ...]


def command(**fields: Any) -> Command[Any]:
    """Return a command of which all that goes over the wire is known."""
    return Command("append", SCRIPT, SPEC, (b"item",), ("head",), **fields)


def as_written(*arguments: Argument) -> Written:
    """Return a Redis command as it arrives."""
    return tuple(part if isinstance(part, bytes) else str(part).encode() for part in arguments)


def packed(*parts: bytes) -> bytes:
    """Return an array as a server sends it."""
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)])


def unpacked(written: bytes) -> list[Written]:
    """Return the commands in what was written."""
    at = 0

    def line() -> bytes:
        nonlocal at
        end = written.index(b"\r\n", at)
        found, at = written[at:end], end + 2
        return found

    def commands() -> Iterator[Written]:
        nonlocal at
        while at < len(written):
            parts = []
            for _ in range(int(line()[1:])):
                length = int(line()[1:])
                parts.append(written[at : at + length])
                at += length + 2
            yield tuple(parts)

    return list(commands())


class FakeConnection:
    """Answers each write with what its pool makes of it; what can be awaited among the replies is."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool
        self.socket_timeout: float | None = 3600.0
        self.is_connected = True
        self.timeouts: list[float | None] = []
        self.connected: dict[Callable[[Any], None], None] = {}
        self.made_anew = 0
        self.closed = 0
        self.unread: list[Any] = []

    async def send_packed_command(self, packed: bytes, check_health: bool) -> None:
        assert not check_health  # it would be a round trip of its own
        self.timeouts.append(self.socket_timeout)
        commands = unpacked(packed)
        # A new connection's first write asks who is there; no other write of several commands begins so.
        if len(commands) > 1 and commands[0] == as_written(*REPLICATION_INFO):
            del commands[0]
            self.pool.introductions += 1
            self.unread.append(self.pool.identity)
        self.pool.written.append(commands)
        self.unread += self.pool.replies_to(commands)

    def register_connect_callback(self, callback: Callable[[Any], None]) -> None:
        self.connected[callback] = None

    async def connect(self) -> None:
        """Connect once more, as redis-py does where the server has closed the connection."""
        if self.pool.cannot_connect is not None:
            raise self.pool.cannot_connect
        self.made_anew += 1
        for callback in self.connected:
            callback(self)

    async def read_response(self, disable_decoding: bool) -> Any:
        assert disable_decoding  # an item is stored as the bytes that it is
        reply = self.unread.pop(0)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def disconnect(self, nowait: bool = False) -> None:
        self.closed += 1
        self.unread.clear()


class FakePool:
    """A pool whose connections answer with the next of `replies`, and with OK behind the last.

    Attributes:
        written: The commands of each write, without the question in front of a connection's first one.
        identity: The reply to that question; `introductions` counts it.
        may_connect: Holds new connections back while it is cleared.
        cannot_connect: Why a connection cannot be made once more.
        in_use: Connections that were not given back.
        disconnected: How often all connections were closed, and `in_use_too` whether the ones in use were.
    """

    def __init__(self, *replies: Any, cannot_close: BaseException | None = None) -> None:
        self.replies = list(replies)
        self.written: list[list[Written]] = []
        self.identity: Any = I_AM
        self.introductions = 0
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.cannot_connect: Exception | None = None
        self.connections: list[FakeConnection] = []
        self.in_use = 0
        self.disconnected = 0
        self.in_use_too: list[bool] = []
        self._idle: list[FakeConnection] = []
        self._cannot_close = cannot_close

    def replies_to(self, commands: list[Written]) -> list[Any]:
        """Return the replies to one write."""
        return [self.replies.pop(0) if self.replies else b"OK" for _ in commands]

    @property
    def connection(self) -> FakeConnection:
        """The only one that was made."""
        (found,) = self.connections
        return found

    async def get_connection(self) -> FakeConnection:
        await self.may_connect.wait()
        if not self._idle:
            self._idle.append(FakeConnection(self))
            self.connections.append(self._idle[0])
        self.in_use += 1
        return self._idle.pop()

    async def release(self, connection: FakeConnection) -> None:
        self.in_use -= 1
        self._idle.append(connection)

    def get_connection_count(self) -> list[tuple[int, dict[str, str]]]:
        return [(len(self._idle), {"state": "idle"}), (self.in_use, {"state": "used"})]

    async def disconnect(self, inuse_connections: bool = True) -> None:
        self.disconnected += 1
        self.in_use_too.append(inuse_connections)
        if self._cannot_close is not None:
            raise self._cannot_close


class FakeClient:
    """A plain client of one server: nothing but its pool is used."""

    def __init__(self, pool: FakePool) -> None:
        self.connection_pool = pool


def fake_node(*pools: FakePool, name: str = "h:1", pool: PoolConfig | None = None, owned: bool = True) -> Node:
    """Return a node over these pools, one after another as it starts afresh; then over new ones."""
    left = list(pools)
    return Node(name, lambda: FakeClient(left.pop(0) if left else FakePool()), pool, owned=owned)  # type: ignore[arg-type,return-value]


@asynccontextmanager
async def listening(
    answer: Callable[[bytes], bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Address]:
    """Listen on a free port of 127.0.0.1: answer each piece that arrives; None closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = served[writer] = asyncio.Event()
        try:
            while piece := await reader.read(65_536):
                if (reply := answer(piece)) is None:
                    break
                writer.write(reply)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            ended.set()

    served: dict[asyncio.StreamWriter, asyncio.Event] = {}
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield Address(*server.sockets[0].getsockname())
    finally:
        server.close()
        for writer, ended in served.items():
            writer.transport.abort()
            await ended.wait()
