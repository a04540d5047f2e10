"""A replica's link to its primary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connection import Connection
from .links import Ack, Continue, FullSync, Psync, Refused, Snapshot, Stream
from .registry import find

if TYPE_CHECKING:
    from .replication import Replication
    from .server import Link, Server

__all__ = ["Upstream"]


class Upstream:
    """The primary of one replica.

    Attributes:
        host: Where it is.
        port: Where it listens.
        state: As ROLE says: ``connect``, ``connecting``, ``sync``, ``connected``.
        has_history: Whether the replica's data is a history that a primary may go on with.
    """

    def __init__(self, server: Server, replication: Replication, host: str, port: int, *, may_continue: bool) -> None:
        self._server, self._replication = server, replication
        self.host, self.port = host, port
        self.state = "connect"
        self.has_history = may_continue
        self._link: Link | None = None
        self._attempt = 0
        self._full: FullSync | None = None
        self._heard_at = server.clock()
        self._down_since: float | None = None
        self._client = Connection(server, f"{host}:{port}", 0, lambda data: None, lambda: None)
        self._client.is_primary = self._client.is_authenticated = True
        self._client.user = server.users.everything

    def connect(self) -> None:
        """Ask the primary for the stream."""
        server = self._server
        if server.dial is None or not server.is_up:
            return
        self.state = "connecting"
        self._heard_at = server.clock()
        self._attempt += 1
        attempt = self._attempt
        link = server.dial(
            self.host, self.port, lambda message: self._receive(attempt, message), lambda: self._closed(attempt)
        )
        if link is None:
            self.state = "connect"
            return
        if attempt != self._attempt or self.state != "connecting":  # refused while it was dialled
            return
        self._link = link
        replid, offset = (self._replication.id, self._replication.offset + 1) if self.has_history else ("?", -1)
        user = server.config.get("masteruser", "default").encode()
        psync = Psync(replid, offset, server.port, user, server.config.get("masterauth", "").encode())
        link.send(psync, 250)

    def close(self) -> None:
        """End the link for good."""
        self._attempt += 1
        if self._link is not None:
            self._link.close()
            self._link = None

    def _closed(self, attempt: int) -> None:
        if not self._server.load.later(self._lost, attempt):
            self._lost(attempt)

    def _lost(self, attempt: int) -> None:
        if attempt != self._attempt:
            return
        was_connected = self.state == "connected"
        self._link, self.state = None, "connect"
        self._attempt += 1
        if was_connected:
            self._down_since = self._server.clock()
            self.connect()

    def _receive(self, attempt: int, message: object) -> None:
        if not self._server.load.later(self._take, (attempt, message)):
            self._take((attempt, message))

    def _take(self, received: tuple[int, object]) -> None:
        attempt, message = received
        if attempt != self._attempt:
            return
        self._heard_at = self._server.clock()
        if type(message) is Stream:
            self._apply(message)
        elif type(message) is Continue:
            self._go_on(message)
        elif type(message) is FullSync:
            self.state, self._full = "sync", message
        elif type(message) is Snapshot:
            self._load(message)
        elif type(message) is Refused:
            self.close()
            self.state = "connect"

    def _go_on(self, message: Continue) -> None:
        replication = self._replication
        if message.replid != replication.id:
            replication.shift_id(message.replid)
            replication.replicas.drop()
        self.state, self._down_since = "connected", None

    def _load(self, snapshot: Snapshot) -> None:
        assert self._full is not None
        server, replication = self._server, self._replication
        replication.replicas.drop()
        server.keyspace.load_data(snapshot.data)
        server.scripts.sources.update(snapshot.scripts)
        replication.begin_history(self._full.replid, self._full.offset)
        server.disk.rewrite()
        server.rearm_expiry()
        self.has_history, self.state, self._down_since = True, "connected", None
        self._acknowledge()

    def _apply(self, message: Stream) -> None:
        """Run a batch, and pass it on to the replicas of this one."""
        server, replication = self._server, self._replication
        executor, client = server.executor, self._client
        server.keyspace.ignores_expiry = True
        asked = False
        try:
            for argv in message.batch.commands:
                found = find(argv)
                if found is not None and found.writes:
                    executor.call(client, found, argv)
                elif argv[0] == b"PUBLISH":
                    server.pubsub.publish(argv[1], argv[2])
                asked = asked or argv[0] == b"REPLCONF"
        finally:
            server.keyspace.ignores_expiry = False
        if executor.effects:
            executor.effects = []
            server.disk.note(message.batch.commands)
        if asked:
            self._acknowledge()  # the request itself does not count yet
        replication.append(message.batch)

    def _acknowledge(self) -> None:
        if self._link is not None:
            self._link.send(Ack(self._replication.offset, self._server.disk.fsynced_offset), 50)

    def cron(self) -> None:
        """Connect, acknowledge, or give up a primary that is silent; once a second."""
        is_silent = self._server.clock() - self._heard_at > int(self._server.config["repl-timeout"])
        if is_silent and self._link is not None:
            link, self._link = self._link, None
            link.close()
            self._lost(self._attempt)
        if self.state == "connect":
            self.connect()
        elif self.state == "connected":
            self._acknowledge()

    @property
    def silence(self) -> float:
        """Seconds since the primary was heard, or the link was lost; in whole seconds, as Redis counts."""
        since = self._heard_at if self.state == "connected" else self._down_since
        return float(int(self._server.clock()) - int(since or 0.0))

    def described(self) -> dict[str, object]:
        """Return the lines of INFO."""
        now, server, is_up = self._server.clock(), self._server, self.state == "connected"
        offset = self._replication.offset if self.has_history else 1
        fields: dict[str, object] = {
            "master_host": self.host,
            "master_port": self.port,
            "master_link_status": "up" if is_up else "down",
            "master_last_io_seconds_ago": int(now) - int(self._heard_at) if is_up else -1,
            "master_sync_in_progress": int(self.state == "sync"),
            "slave_read_repl_offset": offset,
            "slave_repl_offset": offset,
        }
        if server.version < (7, 0):
            del fields["slave_read_repl_offset"]
        if not is_up:
            since = self._down_since
            fields["master_link_down_since_seconds"] = -1 if since is None else int(now) - int(since)
        fields["slave_priority"] = server.config["replica-priority"]
        fields["slave_read_only"] = int(self._replication.is_read_only)
        fields["replica_announced"] = 1
        return fields
