"""A simulated Redis server: the seam between the world, which owns time and the network, and the server.

The world gives a clock, timers, randomness and links; the server gives connections, and the faults that strike it.
Nothing in here sleeps, reads a real clock or opens a socket. A request takes no time of its own.
"""

from __future__ import annotations

import random as random_module
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from . import commands as commands  # fills the table of commands
from .connection import Connection
from .disk import Disk, Saved
from .executor import Executor
from .far_end import ClusterNode, FarEnd
from .keyspace import Keyspace
from .load import Load
from .memory import Memory
from .pubsub import PubSub
from .registry import Reply
from .replication import Replication
from .scripting import Scripts
from .settings import Settings
from .upstream import Upstream
from .users import Users

__all__ = ["Connection", "Dial", "Link", "Server", "Timer"]

_EXPIRY_PERIOD = 0.1  # seconds: how often a server looks for expired keys


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Do not call it any more."""


class Link(Protocol):
    """This end of a stream between two servers: replication, the cluster bus, MIGRATE."""

    def send(self, message: object, size: int) -> None:
        """Send a message, which is not changed any more; `size` is its length in bytes, for what throttles."""

    def close(self) -> None:
        """End the stream, both ways."""


Keep = Literal["all", "aof", "snapshot", "nothing"]
Dial = Callable[[str, int, Callable[[object], None], Callable[[], None]], "Link | None"]
"""Opens a link: host, port, what takes messages from the other end, what is told that the link is closed.

It returns at once; what is sent before the link is up waits for it. None where the address is refused at once. The
network hands the other end to `Server.accept`.
"""


class Server:
    """One server process, and its files.

    Attributes:
        name: ``host:port`` under which others know it.
        version: Major and minor.
        is_valkey: Whether it stands for Valkey.
        config: The directives, as CONFIG GET tells them.
        is_up: Whether the process runs.
        connections: By id.
        ends: The links that other servers opened.
        current: Whose command runs now.
        frozen_ms: The time for what runs now; None outside of scripts.
        stats: Counters of INFO.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
        random: random_module.Random,
        dial: Dial | None = None,
        version: str = "7.0.15",
        is_valkey: bool = False,
        config: Mapping[str, str] = {},
    ) -> None:
        """Start a server that is empty.

        Args:
            name: ``host:port``.
            clock: Its own wall clock, in seconds since 1970; it may drift and step.
            call_later: Calls back after so many seconds of virtual time.
            random: Where its ids and what it draws come from.
            dial: Opens links to other servers; None where there are none.
            version: Which server it stands for; of Valkey the version of Redis that it tells.
            is_valkey: Whether that is Valkey 9: some errors read otherwise.
            config: Directives, as in redis.conf.
        """
        host, _, port = name.rpartition(":")
        self.name, self.host, self.port = name, host, int(port)
        self.clock, self.call_later, self.random, self.dial = clock, call_later, random, dial
        self.full_version, self.is_valkey = version, is_valkey
        major, minor, *_ = (int(part) for part in version.split("."))
        self.version = (major, minor)
        self.config = Settings(self, config)
        self.users = Users(self.version)
        self.disk = Disk(self)
        self.cluster: ClusterNode | None = None
        self._followed: Upstream | None = None
        self._was_orderly = False
        self._start()

    def _start(self) -> None:
        """Be a new process without data."""
        random = self.random
        self.is_up = True
        self.connections: dict[int, Connection] = {}
        self.ends: dict[FarEnd, None] = {}
        self.current: Connection | None = None
        self.frozen_ms: int | None = None
        self.stats: Counter[str] = Counter()
        self._next_id = 1
        self.run_id = f"{random.getrandbits(160):040x}"
        self.hash_seed = random.getrandbits(32)
        self._started_at = self.clock()
        self._expiry_at: int | None = None
        self.load = Load(self)
        self.keyspace = Keyspace(self.now_ms, self._on_expired)
        self.pubsub = PubSub()
        self.scripts = Scripts(self)
        self.memory = Memory(self)
        self.executor = Executor(self)
        self.replication = Replication(self)
        self.disk.process_ended()
        self.config.apply()

    def now_ms(self) -> int:
        """Return the server's time in milliseconds; it stands still while a script runs."""
        return int(self.clock() * 1000) if self.frozen_ms is None else self.frozen_ms

    @property
    def uptime(self) -> float:
        """Seconds since the process was started, by its own clock."""
        return self.clock() - self._started_at

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do something after so long, unless the process has ended by then."""
        process = self.run_id

        def act() -> None:
            if self.run_id == process and self.is_up:
                action()

        return self.call_later(seconds, act)

    # Expiry.

    def expiry_changed(self, at: int) -> None:
        """Take notice that a key expires at this time, in milliseconds."""
        if self._expiry_at is None or at < self._expiry_at:
            self._expiry_at = at
            self.after(max(0.0, at / 1000 - self.clock()) + _EXPIRY_PERIOD, lambda: self._expire(at))

    def rearm_expiry(self) -> None:
        """Look for keys to expire after data was loaded."""
        self._expiry_at = None
        if self.keyspace.expires:
            self.expiry_changed(min(self.keyspace.expires.values()))

    def _expire(self, at: int) -> None:
        """Delete the keys that are expired; a replica waits for its primary to say so."""
        if at != self._expiry_at or self.load.later(self._expire, at):
            return
        self._expiry_at = None
        if self.replication.primary is None and not self.load.is_loading:
            now = self.now_ms()
            for key in [key for key, at in self.keyspace.expires.items() if at < now]:
                self.keyspace.get(key)
                self.executor.flush()
        if self.keyspace.expires:
            self.expiry_changed(max(min(self.keyspace.expires.values()), self.now_ms()))

    def _on_expired(self, key: bytes) -> bool:
        if self.replication.primary is not None:
            return False
        self.executor.effects.append([b"DEL", key])
        self.stats["expired_keys"] += 1
        return True

    # For the network.

    def connect(self, peer: str, send: Callable[[bytes], None], close: Callable[[], None]) -> Connection:
        """Accept a client.

        Args:
            peer: Its ``host:port``.
            send: Takes the bytes of replies.
            close: Ends the connection from the server's side.
        """
        client = Connection(self, peer, self._next_id, send, close)
        self._next_id += 1
        self.stats["total_connections_received"] += 1
        if len(self.connections) >= int(self.config["maxclients"]):
            self.stats["rejected_connections"] += 1
            self.after(0.0, client.turn_away)
            return client
        self.connections[client.id] = client
        return client

    def accept(self, peer: str, link: Link) -> FarEnd:
        """Accept a link of another server.

        Args:
            peer: That server's ``host:port``.
            link: This end of it.

        Returns:
            What takes its messages (`receive`), and is told of its end (`closed`).
        """
        end = FarEnd(self, peer, link)
        self.ends[end] = None
        return end

    # For connections.

    def execute(self, client: Connection, argv: list[bytes]) -> Reply:
        """Return the reply to one request."""
        self.stats["total_commands_processed"] += 1
        before, self.current = self.current, client
        try:
            return self.executor.process(client, argv)
        finally:
            self.current = before

    # Faults.

    def pause(self, seconds: float) -> None:
        """Stop the process for so long (SIGSTOP, SIGCONT): nothing is read and nothing answered."""
        self.load.stop()
        self.after(seconds, self.load.go_on)

    def crash(self) -> None:
        """End the process at once (SIGKILL): all its connections are closed by the system.

        Where the machine goes down instead, the network cuts them off first, so that no peer is told.
        """
        if not self.is_up:
            return
        self.is_up = False
        self._left = Saved(self.keyspace.copy_data(), self.replication.id, self.replication.offset)
        self._was_orderly = False
        self._followed = self.replication.upstream
        self.replication.close()
        if self.cluster is not None:
            self.cluster.close()
        for client in list(self.connections.values()):
            client.abort()
        for end in self.ends:
            end.cut()

    def shut_down(self) -> None:
        """End in an orderly way (SHUTDOWN, SIGTERM): everything is written first."""
        self.crash()
        self._was_orderly = True

    def restart(
        self,
        keep: Literal["all", "aof", "snapshot", "nothing"] = "all",
        *,
        batches: int | None = None,
        loading: float = 0,
    ) -> None:
        """Start the process anew with what is left of its data; its replication id is a new one.

        Args:
            keep: Everything; the append-only file; the last snapshot; nothing.
            batches: How many batches of the append-only file are left; None means those that were flushed.
            loading: Seconds for which it answers LOADING.
        """
        assert not self.is_up
        self.config.read()
        self._start()
        if keep == "all":
            self.keyspace.load_data(self._left.data)
        elif keep == "aof":
            self.disk.load(self.disk.flushed if batches is None else batches)
        elif keep == "snapshot" and self.disk.snapshot is not None:
            self.keyspace.load_data(self.disk.snapshot.data)
        if keep != "aof":
            self.disk.rewrite()
        self._take_history(keep)
        self.rearm_expiry()
        if loading:
            self.load.is_loading = True
            self.after(loading, self._loaded)
        else:
            self._loaded()

    def _loaded(self) -> None:
        """Begin what a server does not do while it loads: look for its primary, or for the other members."""
        self.load.is_loading = False
        if self.cluster is not None:
            self.cluster.restarted()
        elif self._followed is not None:
            self.replication.follow(self._followed.host, self._followed.port)

    def _take_history(self, keep: str) -> None:
        """Know the history that a snapshot is of: where there is no append-only file, replicas may go on from it."""
        saved = (
            self._left if keep == "all" and self._was_orderly else self.disk.snapshot if keep == "snapshot" else None
        )
        if saved is None or self.config.appends or self.version < (7, 0):
            return
        replication = self.replication
        replication.offset = saved.offset
        if self._followed is None:
            replication.second_id, replication.second_offset = saved.replid, saved.offset + 1
            replication.ensure_backlog()
        else:
            replication.id = saved.replid
