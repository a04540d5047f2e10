"""The replicas of one server: their links, full syncs without a disk, and how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .keyspace import Data, size_of
from .links import Ack, Batch, Continue, FullSync, Psync, Refused, Snapshot, Stream

if TYPE_CHECKING:
    from .replication import Replication
    from .server import Link, Server

__all__ = ["Replica", "Replicas"]


class Replica:
    """One replica, as its primary sees it.

    Attributes:
        link: To it.
        host: Where it is.
        port: Where it listens.
        state: ``wait_bgsave``, ``send_bulk`` or ``online``, as INFO says.
        streams: Whether it is sent the stream: after a full sync only from its first acknowledgement on.
        pending: What it is sent then.
        ack_offset: What it has acknowledged.
        ack_fsynced: What it has acknowledged as being on its disk.
        ack_time: When, by the primary's clock.
        since: When it asked for a sync.
    """

    __slots__ = (
        "ack_fsynced",
        "ack_offset",
        "ack_time",
        "host",
        "link",
        "owner",
        "pending",
        "port",
        "since",
        "state",
        "streams",
    )

    def __init__(self, owner: Replicas, host: str, link: Link, port: int, now: float) -> None:
        self.owner = owner
        self.link, self.host, self.port = link, host, port
        self.state = "wait_bgsave"
        self.streams = False
        self.pending: list[tuple[Batch, int]] = []
        self.ack_offset = self.ack_fsynced = 0
        self.ack_time = self.since = now

    def receive(self, message: object) -> None:
        """Take an acknowledgement."""
        if isinstance(message, Ack):
            self.owner.acknowledged(self, message)

    def closed(self) -> None:
        """Take notice that the link is gone."""
        self.owner.forget(self)


class Replicas:
    """The replicas of one server, in the order in which they came.

    Attributes:
        good: How many are online and acknowledged within ``min-replicas-max-lag``; counted once a second, as in Redis.
        sync_seconds: How long a snapshot takes to be sent.
    """

    def __init__(self, server: Server, replication: Replication) -> None:
        self._server, self._replication = server, replication
        self._all: list[Replica] = []
        self._is_syncing = False
        self._loops = 1  # Redis counts from the start of the server
        self.good = 0
        self.sync_seconds = 0.02

    def __len__(self) -> int:
        return len(self._all)

    def accept(self, peer: str, link: Link, psync: Psync) -> Replica | None:
        """Take a replica that asks for the stream; None if it is refused, and has been told."""
        server, replication = self._server, self._replication
        refusal = self._refusal(psync)
        if refusal is not None:
            link.send(Refused(refusal), len(refusal))
            link.close()
            return None
        replica = Replica(self, peer.rpartition(":")[0], link, psync.port, server.clock())
        missing = self._missing(psync)
        if missing is None:
            server.stats["sync_full"] += 1
            server.stats["sync_partial_err"] += psync.replid != "?"
            self._all.append(replica)
            if replication.backlog is None:
                replication.begin_history()
            self._begin_sync()
        else:
            server.stats["sync_partial_ok"] += 1
            self._all.append(replica)
            replica.state, replica.streams = "online", True
            link.send(Continue(replication.id), 52)
            at = psync.offset - 1
            for batch in missing:
                at += batch.size
                link.send(Stream(batch, at), batch.size)
            self.count_good()
        replication.start_cron()
        return replica

    def _refusal(self, psync: Psync) -> str | None:
        server = self._server
        if server.load.is_loading:
            return "LOADING Redis is loading the dataset in memory"
        default = server.users.default
        if psync.password:
            if server.users.authenticated(psync.user, psync.password) is None:
                return "WRONGPASS invalid username-password pair or user is disabled."
        elif not default.needs_no_password:
            return "NOAUTH Authentication required."
        upstream = self._replication.upstream
        if upstream is not None and upstream.state != "connected":
            return "NOMASTERLINK Can't SYNC while not connected with my master"
        return None

    def _missing(self, psync: Psync) -> list[Batch] | None:
        """Return the part of the stream that a replica misses; None if it needs a full sync."""
        found = self._replication
        if psync.replid != found.id and (psync.replid != found.second_id or psync.offset > found.second_offset):
            return None
        return found.backlog.since(psync.offset) if found.backlog is not None else None

    # Full syncs.

    def _begin_sync(self) -> None:
        if not int(self._server.config["repl-diskless-sync-delay"]):
            self._start_sync()

    def _start_sync(self) -> None:
        waiting = [each for each in self._all if each.state == "wait_bgsave"]
        if self._is_syncing or not waiting:
            return
        self._is_syncing = True
        replication, data = self._replication, self._server.keyspace.copy_data()
        for replica in waiting:
            replica.state = "send_bulk"
            replica.link.send(FullSync(replication.id, replication.offset), 64)
        replication.selected = False
        scripts = dict(self._server.scripts.sources) if self._server.version < (7, 0) else {}
        self._server.after(self.sync_seconds, lambda: self._finish_sync(waiting, data, scripts))

    def _finish_sync(self, waiting: list[Replica], data: Data, scripts: dict[bytes, bytes]) -> None:
        self._is_syncing = False
        size = 100 + sum(size_of(key, value) for key, value in data[0].items())
        for replica in waiting:
            if replica in self._all:
                replica.link.send(Snapshot(data, scripts), size)
                replica.state, replica.ack_time = "online", self._server.clock()
        self.count_good()

    # The stream.

    def send(self, batch: Batch, end: int) -> None:
        """Send a part of the stream to all that are in sync; keep it for those that are not yet."""
        for replica in self._all:
            if replica.streams:
                replica.link.send(Stream(batch, end), batch.size)
            elif replica.state != "wait_bgsave":
                replica.pending.append((batch, end))

    def acknowledged(self, replica: Replica, ack: Ack) -> None:
        """Take notice of how far a replica is."""
        replica.ack_offset = max(replica.ack_offset, ack.offset)
        replica.ack_fsynced = max(replica.ack_fsynced, ack.fsynced)
        replica.ack_time = self._server.clock()
        if replica.state == "online" and not replica.streams:
            replica.streams = True
            for batch, end in replica.pending:
                replica.link.send(Stream(batch, end), batch.size)
            replica.pending.clear()
            self.count_good()
        self._replication.waiting.look()

    def count(self, offset: int) -> int:
        """Return how many have acknowledged an offset."""
        return sum(each.state == "online" and each.ack_offset >= offset for each in self._all)

    def count_fsynced(self, offset: int) -> int:
        """Return how many have it on disk."""
        return sum(each.state == "online" and each.ack_fsynced >= offset for each in self._all)

    def count_good(self) -> None:
        """Count the replicas that ``min-replicas-to-write`` asks for."""
        now, longest = int(self._server.clock()), int(self._server.config["min-replicas-max-lag"])
        self.good = sum(each.state == "online" and now - int(each.ack_time) <= longest for each in self._all)

    def cron(self) -> None:
        """Ping them, drop those that are silent, begin the syncs that wait; once a second."""
        server = self._server
        if self._all and self._loops % int(server.config["repl-ping-replica-period"]) == 0:
            self._replication.ping()
        self._loops += 1
        longest = int(server.config["repl-timeout"])
        for replica in list(self._all):
            if replica.state == "online" and server.clock() - replica.ack_time > longest:
                replica.link.close()
                self.forget(replica)
        delay = int(server.config["repl-diskless-sync-delay"])
        waiting = [each.since for each in self._all if each.state == "wait_bgsave"]
        if waiting and server.clock() - min(waiting) >= delay:
            self._start_sync()
        self.count_good()

    def forget(self, replica: Replica) -> None:
        """Drop a replica whose link is gone."""
        if replica in self._all:
            self._all.remove(replica)
            self.count_good()

    def drop(self) -> int:
        """Close the links of all; return their number."""
        dropped, self._all = self._all, []
        for replica in dropped:
            replica.link.close()
        self.count_good()
        return len(dropped)

    # What is told.

    def described(self) -> dict[str, object]:
        """Return the lines of INFO."""
        now = self._server.clock()
        return {
            f"slave{at}": f"ip={each.host},port={each.port},state={each.state},offset={each.ack_offset},"
            f"lag={int(now) - int(each.ack_time) if each.state == 'online' else 0}"
            for at, each in enumerate(self._all)
        }

    def roles(self) -> list[list[bytes]]:
        """Return what ROLE says of them."""
        return [
            [each.host.encode(), b"%d" % each.port, b"%d" % each.ack_offset]
            for each in self._all
            if each.state == "online"
        ]
