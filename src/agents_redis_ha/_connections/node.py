"""One server and the connections to it: the place where commands leave and replies arrive.

Commands are written to one connection of redis-py's pool at once and their replies are read from the same connection,
in place of `Redis.execute_command`: only so is it known whether a failure came before the request left (nothing can
have happened) or after (it may have), and only so do ASKING and the script that it is for share a connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MaxConnectionsError, NoScriptError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from .._asyncio import Alarms, retrieve_exception, timeout_at
from .._commands import (
    REPLICATION_INFO,
    Argument,
    Command,
    Confirmation,
    LogPosition,
    ReplicationHistory,
    Reply,
    Status,
    TurnStatus,
)
from .._config import PoolConfig
from .._telemetry import PoolUse
from . import wire
from .failures import DEMOTED, READ_ONLY, AttemptError, ShortfallError, classify, tls_error
from .request import Request

__all__ = ["Node"]

# In INFO replication; some managed services leave the id out.
_REPLICATION_ID = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)
_IS_REPLICA = re.compile(rb"^role:slave", re.MULTILINE)
# Before 7.0, the source of a migration says ASK also where the others of the keys are still there.
_MISSES_A_KEY = (TryAgainError, AskError)
# What is confirmed: a change, made now or before. What a turn was granted has the number of a change that was applied.
_TELLS_OF_A_CHANGE = (Status.APPLIED, Status.REPEAT, TurnStatus.ANSWERED)


class Node:
    """A server that is asked now.

    Attributes:
        name: ``host:port`` as the topology announces it, or the Unix socket's path.
        client: The plain redis-py client that owns the connections.
        retired: Whether another node took over; nothing is sent to this one any more.
        replication_id: The replication id that was told last by a server that was new behind the name, or that had a
            new id itself; None before that. What a reply says of its server is its own connection's.
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
        # Of each of the pool's connections that was asked who is there: its server's id, None where that is not told.
        self._ids: dict[AbstractConnection, str | None] = {}
        self._id_before: str | None = None
        self._asked = self._told = 0  # how often servers were asked, and which question the latest id answers
        self._make_client = make_client
        self._owned = owned
        pool = pool or PoolConfig()
        self._most = pool.max_connections
        self._free = asyncio.Semaphore(pool.max_connections)
        self._waiting = 0
        self._alarms = Alarms()
        self._wait_seconds = pool.wait_timeout_seconds
        self._closing: set[asyncio.Future[None]] = set()

    @property
    def use(self) -> PoolUse:
        """How many connections there are now."""
        counts = self.client.connection_pool.get_connection_count()
        idle, used = (number for number, _ in counts)
        return PoolUse(self.name, used, idle, self._most, self._waiting)

    async def execute(self, request: Request, *, asking: bool = False, only_first_key: bool = False) -> Reply:
        """Return the reply to a command.

        EVALSHA first; a node that does not know the script (a fresh replica, after SCRIPT FLUSH) is sent the source
        once, which also teaches it.

        Args:
            request: The command on its way.
            asking: Send ASKING before it, on the same connection (cluster: the slot is being imported here).
            only_first_key: Declare the first key alone; the scripts derive the others (see prelude.lua).

        Raises:
            AttemptError: No reply came, or an error, or too few replicas confirmed; it says whether the request left.
        """
        command, with_source = request.command, False
        key_count = 1 if only_first_key else command.key_count
        while True:
            position = request.known.position
            commands = command.on_wire(position, request.earlier, key_count=key_count, with_source=with_source)
            request.earlier.since = request.earlier.since_this_one(position)
            if asking:  # it holds for one command
                commands = [part for each in commands for part in (("ASKING",), each)]
            replies, replication_id = await self._exchange(commands, request)
            if asking:
                replies = replies[1::2]
            if self.retired:  # while it answered: it may have been replaced before that
                raise AttemptError(RedisConnectionError("another node took over"), node=self.name, sent=True)
            fewer = None if only_first_key else command.key_count_on_tryagain
            if isinstance(replies[0], NoScriptError) and not with_source:
                with_source = True
            elif isinstance(replies[0], _MISSES_A_KEY) and fewer is not None and fewer != key_count:
                key_count = fewer
            else:
                return self._reply(command, replies, ReplicationHistory(self.name, replication_id), position)

    def _reply(
        self, command: Command[Any], replies: list[Any], history: ReplicationHistory, position: LogPosition
    ) -> Reply:
        value, *trailing = replies
        answer = trailing.pop() if command.confirmation is not None else None
        for each in (value,) if command.allow_trailing_errors else (value, *trailing):
            if isinstance(each, ResponseError):
                raise AttemptError(each, node=self.name, sent=True) from each
        reply = Reply(value, trailing, history, position)
        if command.confirmation is not None:
            self._check_confirmed(command.confirmation, reply, answer)
        return reply

    def _check_confirmed(self, confirmation: Confirmation, reply: Reply, answer: Any) -> None:
        if reply.value[0] not in _TELLS_OF_A_CHANGE:
            return
        if isinstance(answer, ResponseError):
            there = classify(answer, sent=True) != DEMOTED
            raise AttemptError(answer, node=self.name, sent=True, reply=reply if there else None) from answer
        shortfall = confirmation.shortfall(answer)
        if shortfall:
            cause = ShortfallError(shortfall, confirmation.timeout_ms / 1000)
            raise AttemptError(cause, node=self.name, sent=True, reply=reply)

    async def call(self, *commands: Sequence[Argument]) -> list[Any]:
        """Return the replies to ``commands``, which travel together on one connection, in one write.

        An error reply to one of several commands stands in its place, as redis-py's exception; to a single command it
        is raised.

        Args:
            *commands: Each a command's name and arguments.

        Raises:
            AttemptError: No reply came, or (single command) the reply is an error; it says whether the request left.
        """
        replies, _ = await self._exchange(commands)
        if len(replies) == 1 and isinstance(replies[0], ResponseError):
            raise AttemptError(replies[0], node=self.name, sent=True) from replies[0]
        return replies

    async def _exchange(
        self, commands: Sequence[Sequence[Argument]], request: Request | None = None
    ) -> tuple[list[Any], str | None]:
        """Return the replies, and the replication id of the server that they come from."""
        await self._acquire()
        try:
            pool, connection = await self._connect()
            try:
                if request is not None:
                    request.sent = True
                is_new = connection not in self._ids
                if is_new:  # in front of its first request, in the same write
                    commands = (REPLICATION_INFO, *commands)
                self._asked += 1
                asked = self._asked
                sent_bytes = await wire.send(connection, commands, self._alarms)
                if request is not None:  # what it does takes no time: the reply is under way
                    request.on_sent(self.name)
                replies = await wire.receive(connection, len(commands), self._alarms, sent_bytes=sent_bytes)
                if REPLICATION_INFO in commands:
                    self._learn(connection, commands, replies, asked)
                told = self._ids.get(connection)
                for each in replies:
                    if isinstance(each, ResponseError) and _is_read_only(each):
                        await connection.disconnect(nowait=True)  # a name may lead elsewhere by now
                return replies[is_new:], None if told == self._id_before else told
            except Exception as error:
                await connection.disconnect(nowait=True)
                self.start_afresh(pool)
                raise AttemptError(self._explained(error), node=self.name, sent=True) from error
            except asyncio.CancelledError:
                await connection.disconnect(nowait=True)
                raise
            finally:
                if pool is not self.client.connection_pool:
                    self._ids.pop(connection, None)
                    await connection.disconnect(nowait=True)
                await pool.release(connection)
        finally:
            self._free.release()

    async def _acquire(self) -> None:
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

    def _learn(
        self, connection: AbstractConnection, commands: Sequence[Sequence[Argument]], replies: Any, asked: int
    ) -> None:
        """Take the id of a connection's server from the reply to INFO replication, the last one if there are two.

        A replica's is asked for again: it is its primary's, and changes when the replica is promoted, which does not
        cut its connections. So is one that the server cannot tell for now.
        """
        *_, info = (reply for command, reply in zip(commands, replies, strict=True) if command == REPLICATION_INFO)
        if isinstance(info, bytes):
            found = _REPLICATION_ID.search(info)
            told, is_settled = found and found[1].decode(), not _IS_REPLICA.search(info)
        else:
            told, is_settled = None, not classify(info, sent=True).retry  # some users may not ask
        if not is_settled:
            self._ids.pop(connection, None)
            return
        # A late answer tells nothing new: another connection may have found another server meanwhile.
        if told is not None and told != self._ids.get(connection) and asked > self._told:
            self.replication_id, self._told = told, asked
        connection.register_connect_callback(self._reconnected)  # type: ignore[no-untyped-call]  # redis-py
        self._ids[connection] = told

    def _reconnected(self, connection: AbstractConnection) -> None:
        self._ids.pop(connection, None)

    def note_takeover(self, id_before: str | None) -> None:
        """Note that another server takes over under this name now.

        Args:
            id_before: The replication id that was told before; None if none was. Told again, it is a constant of some
                proxy: it does not show that nothing was lost.
        """
        self._id_before = id_before

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
            if self._ids.get(connection) not in (None, self.replication_id):
                await self._make_anew(connection)
            self._check_in_use()  # it may have been retired meanwhile
        except BaseException:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise
        return connection

    async def _make_anew(self, connection: AbstractConnection) -> None:
        """Leave the server that a connection leads to, since another one has taken over behind the name."""
        await connection.disconnect(nowait=True)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
        except Exception as error:
            raise AttemptError(self._explained(error), node=self.name, sent=False) from error

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
        self._ids.clear()
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
        task.add_done_callback(retrieve_exception)

    async def aclose(self) -> None:
        """Close every connection."""
        self.retire()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _is_read_only(error: ResponseError) -> bool:
    return classify(error, sent=True).reason == READ_ONLY
