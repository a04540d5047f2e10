"""One server and the connections to it: the place where requests leave and replies arrive.

A request is written to one connection of redis-py's pool at once and its replies are read from the same connection, in
place of `Redis.execute_command`: only so is it known whether a failure came before the request left (nothing can have
happened) or after (it may have), and only so do ASKING and the script that it is for share a connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, ResponseError

from ..settings import PoolConfig
from ..timing import take_notice, timeout_at
from ..verdicts import AttemptError, tls_error
from .wire import Argument, exchange

__all__ = ["Node", "PoolUse", "Tenure"]


@dataclass(frozen=True)
class PoolUse:
    """How many connections there are to a node.

    Attributes:
        node: Its name.
        used: Connections with a request under way.
        idle: Connections without one.
        most: Most connections allowed.
        waiting: Requests that wait for a connection to become free.
    """

    node: str
    used: int
    idle: int
    most: int
    waiting: int

    def __add__(self, other: PoolUse) -> PoolUse:
        """Return the use of both pools together."""
        return PoolUse(
            self.node,
            self.used + other.used,
            self.idle + other.idle,
            self.most + other.most,
            self.waiting + other.waiting,
        )


class Node:
    """A server that is asked now.

    Attributes:
        name: ``host:port`` as the topology announces it, or the Unix socket's path.
        client: The plain redis-py client that owns the connections.
        retired: Whether another node took over; nothing is sent to this one any more.
        replication_id: The server's replication id as of the newest connection, None where it is not told. It changes
            whenever the server is started or becomes a primary: data that vanishes under the same one was deleted.
    """

    def __init__(
        self, name: str, make_client: Callable[[], Redis], pool: PoolConfig | None = None, *, owned: bool = True
    ) -> None:
        """Make a node without connecting.

        Args:
            name: ``host:port`` or path, for errors and telemetry.
            make_client: Returns the client that owns the connections; called again to start afresh.
            pool: How many requests may be under way at once, each on a connection of its own, and how long one waits.
            owned: Whether the client is ours to close; a user's own is left open and never replaced.
        """
        self.name = name
        self.client = make_client()
        self.retired = False
        self.replication_id: str | None = None
        self._introduced: set[AbstractConnection] = set()
        self._make_client = make_client
        self._owned = owned
        pool = pool or PoolConfig()
        self._most = pool.max_connections
        self._free = asyncio.Semaphore(pool.max_connections)
        self._waiting = 0
        self._wait_seconds = pool.wait_timeout_seconds
        self._closing: set[asyncio.Future[None]] = set()

    @property
    def use(self) -> PoolUse:
        """How many connections there are now."""
        counts = self.client.connection_pool.get_connection_count()
        idle, used = (number for number, _ in counts)
        return PoolUse(self.name, used, idle, self._most, self._waiting)

    async def call(
        self,
        *commands: Sequence[Argument],
        on_send: Callable[[], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Return the replies to ``commands``, which travel together on one connection, in one write.

        An error reply to one of several commands stands in its place, as redis-py's exception; to a single command it
        is raised.

        Args:
            *commands: Each a command's name and arguments.
            on_send: Called when a connection is there and the request is about to leave.
            on_sent: Called when the request has left: what it does takes no time, since the reply is awaited meanwhile.

        Raises:
            AttemptError: No reply came, or (single command) the reply is an error; it says whether the request left.
        """
        await self._take_turn()
        try:
            return await self._call(commands, on_send, on_sent)
        finally:
            self._free.release()

    async def _take_turn(self) -> None:
        """Wait for a connection to be free: cheaper than redis-py's blocking pool, by a tenth of an append."""
        if not self._free.locked():
            await self._free.acquire()
            return
        self._waiting += 1
        try:
            async with timeout_at(asyncio.get_running_loop().time() + self._wait_seconds):
                await self._free.acquire()
        except asyncio.TimeoutError as error:
            cause = MaxConnectionsError(f"no connection became free within {self._wait_seconds:g} s")
            raise AttemptError(cause, node=self.name, sent=False) from error
        finally:
            self._waiting -= 1

    async def _call(
        self,
        commands: Sequence[Sequence[Argument]],
        on_send: Callable[[], None] | None,
        on_sent: Callable[[], None] | None,
    ) -> list[Any]:
        pool, connection = await self._connect()
        try:
            if on_send is not None:
                on_send()
            if connection not in self._introduced:
                return await self._introduce(connection, commands, on_sent)
            return await exchange(connection, commands, on_sent)
        except ResponseError as error:
            raise AttemptError(error, node=self.name, sent=True) from error
        except Exception as error:
            await connection.disconnect(nowait=True)
            self.start_afresh(pool)
            raise AttemptError(self._explained(error), node=self.name, sent=True) from error
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        finally:
            if pool is not self.client.connection_pool:
                await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _introduce(
        self,
        connection: AbstractConnection,
        commands: Sequence[Sequence[Argument]],
        on_sent: Callable[[], None] | None,
    ) -> list[Any]:
        """Send the first request of a new connection, with the question in front of it who the server is."""
        (info, *replies) = await exchange(connection, (("INFO", "replication"), *commands), on_sent)
        self.learn(info)
        connection.register_connect_callback(self._reconnected)  # type: ignore[no-untyped-call]  # redis-py
        self._introduced.add(connection)
        if len(replies) == 1 and isinstance(replies[0], ResponseError):
            raise replies[0]
        return replies

    def learn(self, info: Any) -> None:
        """Take the server's replication id from the reply to INFO replication, if it is in there."""
        self.replication_id = _replication_id(info)

    def _reconnected(self, connection: AbstractConnection) -> None:
        self._introduced.discard(connection)

    async def _connect(self) -> tuple[ConnectionPool, AbstractConnection]:
        pool: ConnectionPool = self.client.connection_pool
        try:
            return pool, await self._connection_of(pool)
        except AttemptError as error:
            if tls_error(error.cause) is None or not self.start_afresh(pool):
                raise
        # redis-py reads a certificate's files once a connection object: those of a new pool see a rotation.
        pool = self.client.connection_pool
        return pool, await self._connection_of(pool)

    async def _connection_of(self, pool: ConnectionPool) -> AbstractConnection:
        self._check_in_use()
        try:
            connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
        except Exception as error:
            raise AttemptError(self._explained(error), node=self.name, sent=False) from error
        try:
            self._check_in_use()  # it may have been retired meanwhile
        except AttemptError:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise
        return connection

    def _check_in_use(self) -> None:
        if self.retired:
            raise AttemptError(RedisConnectionError("no longer in use"), node=self.name, sent=False)

    def _explained(self, error: Exception) -> Exception:
        """Return the connection error that an odd one stands for: a pool cut under a reader fails in many ways."""
        if self.retired and not isinstance(error, RedisConnectionError):
            return RedisConnectionError(f"cut, because another node took over ({type(error).__name__})")
        return error

    def start_afresh(self, failed: ConnectionPool | None = None) -> bool:
        """Use a new pool from now on and close the idle connections of the old one.

        What went wrong on one connection is likely on the idle ones too: behind a managed service's name they lead to a
        server that has been replaced, and each would cost one response timeout. Requests under way are left alone.

        Args:
            failed: Only if this is still the pool in use; None means in any case.

        Returns:
            Whether there is a new pool; not for a user's own client.
        """
        old = self.client
        if not self._owned or self.retired or (failed is not None and failed is not old.connection_pool):
            return False
        self.client = self._make_client()
        self._introduced.clear()
        self._close(old.connection_pool.disconnect(inuse_connections=False))
        return True

    def retire(self) -> None:
        """Cut every connection, also those that wait for a reply: this server is not to be asked any more."""
        self.retired = True
        if self._owned:
            self._close(self.client.connection_pool.disconnect(inuse_connections=True))

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        """Close connections in the background: a TLS peer that is gone would keep its closer waiting."""
        task = asyncio.ensure_future(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        task.add_done_callback(take_notice)

    async def aclose(self) -> None:
        """Close every connection."""
        self.retire()
        await asyncio.gather(*self._closing, return_exceptions=True)


Tenure: TypeAlias = "tuple[str, str | None]"
"""A node's name and its replication id when it replied; the same one later means that it lost nothing in between."""


def _replication_id(info: Any) -> str | None:
    """Find the replication id in INFO's reply; some managed services leave it out, some users may not ask."""
    found = re.search(rb"^master_replid:(\w+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return found[1].decode() if found else None
