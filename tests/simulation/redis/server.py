"""A simulated Redis server: the seam between the world, which owns time and the network, and the server.

The world gives a clock, timers, randomness and links; the server gives connections, and the faults that strike it.
Nothing in here sleeps, reads a real clock or opens a socket. A request takes no time of its own.
"""

from __future__ import annotations

import random as random_module
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from . import commands as commands  # fills the table of commands
from .connection import Connection
from .disk import Disk
from .executor import Executor
from .keyspace import Keyspace
from .load import Load
from .memory import Memory
from .pubsub import PubSub
from .registry import Reply
from .replication import Replication
from .scripting import Scripts
from .settings import Settings
from .users import Users

__all__ = ["Connection", "Dial", "Link", "Server", "Timer"]


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
        config: The directives, as CONFIG GET tells them.
        is_up: Whether the process runs.
        connections: By id.
        executing: How many commands run now, one within the other.
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
        config: Mapping[str, str] = {},
    ) -> None:
        """Start a server that is empty.

        Args:
            name: ``host:port``.
            clock: Its own wall clock, in seconds since 1970; it may drift and step.
            call_later: Calls back after so many seconds of virtual time.
            random: Where its ids and what it draws come from.
            dial: Opens links to other servers; None where there are none.
            version: Which server it stands for.
            config: Directives, as in redis.conf.
        """
        host, _, port = name.rpartition(":")
        self.name, self.host, self.port = name, host, int(port)
        self.clock, self.call_later, self.random, self.dial = clock, call_later, random, dial
        self.full_version = version
        major, minor, *_ = (int(part) for part in version.split("."))
        self.version = (major, minor)
        self.config = Settings(self, config)
        self.is_up = True
        self.connections: dict[int, Connection] = {}
        self.executing = 0
        self.frozen_ms: int | None = None
        self.stats: Counter[str] = Counter()
        self._next_id = 1
        self.run_id = f"{random.getrandbits(160):040x}"
        self.hash_seed = random.getrandbits(32)
        self._started_at = clock()
        self.load = Load(self)
        self.keyspace = Keyspace(self.now_ms, self._on_expired)
        self.users = Users(self.version)
        self.pubsub = PubSub()
        self.scripts = Scripts(self)
        self.memory = Memory(self)
        self.disk = Disk(self)
        self.replication = Replication(self)
        self.executor = Executor(self)
        self.cluster: None = None
        self.config.apply()

    def now_ms(self) -> int:
        """Return the server's time in milliseconds; it stands still while a script runs."""
        return int(self.clock() * 1000) if self.frozen_ms is None else self.frozen_ms

    @property
    def uptime(self) -> float:
        """Seconds since the process was started, by its own clock."""
        return self.clock() - self._started_at

    def expiry_changed(self, at: int) -> None:
        """Take notice that a key expires at this time, in milliseconds."""

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
        self.connections[client.id] = client
        self.stats["total_connections_received"] += 1
        return client

    # For connections.

    def execute(self, client: Connection, argv: list[bytes]) -> Reply:
        """Return the reply to one request."""
        self.stats["total_commands_processed"] += 1
        self.executing += 1
        try:
            return self.executor.process(client, argv)
        finally:
            self.executing -= 1

    def shut_down(self) -> None:
        """End in an orderly way (SHUTDOWN)."""

    # Faults.

    def pause(self, seconds: float) -> None:
        """Stop the process for so long (SIGSTOP, SIGCONT): nothing is read and nothing answered."""
        self.load.stop()
        self.call_later(seconds, self.load.go_on)
