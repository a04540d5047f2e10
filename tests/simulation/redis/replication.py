"""Replication: one server's ids, offset and backlog, and its role (replication.c).

A request's changes are one batch: MULTI and EXEC hold them together in the stream, so a replica never has a part.
Left out: the backlog's time to live (an hour without replicas), FAILOVER, and the seconds that a replica takes to load.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .links import Batch, batch_of
from .registry import OK, RefusalError, Reply
from .replicas import Replicas
from .upstream import Upstream
from .waiting import Waiting

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Backlog", "Replication"]

NO_ID = "0" * 40
UNBLOCKED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
_ACK_REQUEST = [b"REPLCONF", b"GETACK", b"*"]


class Backlog:
    """The newest part of the stream.

    Attributes:
        first: Offset of its first byte, counted from 1.
        length: Bytes in it.
    """

    def __init__(self, offset: int, limit: int) -> None:
        self.first = offset + 1
        self.length = 0
        self._limit = limit
        self._batches: deque[Batch] = deque()

    def add(self, batch: Batch) -> None:
        """Take another batch; drop the oldest where they are too many."""
        self._batches.append(batch)
        self.length += batch.size
        while self.length > self._limit:
            oldest = self._batches.popleft()
            self.length -= oldest.size
            self.first += oldest.size

    def since(self, offset: int) -> list[Batch] | None:
        """Return the batches from this offset on; None if it has not all of them."""
        if not self.first <= offset <= self.first + self.length:
            return None
        at, found = self.first, list[Batch]()
        for batch in self._batches:
            if at >= offset:
                found.append(batch)
            at += batch.size
        return found


class Replication:
    """One server's part in replication.

    Attributes:
        id: The replication id: which history this is.
        told_id: What INFO says in the place of the id; None means the id.
        second_id: The one of before, valid up to `second_offset`.
        offset: Bytes of the stream so far.
        upstream: Its primary; None for a primary.
        replicas: Who follows it.
        waiting: The clients that wait for replicas or disks.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.id = self._new_id()
        self.told_id: str | None = None
        self.second_id, self.second_offset = NO_ID, -1
        self.offset = 0
        self.backlog: Backlog | None = None
        self.selected = False
        self.upstream: Upstream | None = None
        self.replicas = Replicas(server, self)
        self.waiting = Waiting(server, self)
        self._has_cron = False

    @property
    def primary(self) -> Upstream | None:
        """Whose replica it is; None for a primary."""
        return self.upstream

    @property
    def is_read_only(self) -> bool:
        """Whether a replica refuses writes."""
        return self._server.config["replica-read-only"] == "yes"

    @property
    def is_stale(self) -> bool:
        """Whether it is a replica that lost its primary and may not serve what it has."""
        if self.upstream is None or self.upstream.state == "connected":
            return False
        return self._server.config["replica-serve-stale-data"] == "no"

    @property
    def has_enough_replicas(self) -> bool:
        """Whether as many replicas are well as ``min-replicas-to-write`` asks for."""
        least = self._server.config.least_replicas
        return not least or self.upstream is not None or self.replicas.good >= least

    def _new_id(self) -> str:
        return f"{self._server.random.getrandbits(160):040x}"

    # The stream.

    def feed(self, effects: list[list[bytes]], *, in_multi: bool = False) -> None:
        """Note one batch of changes on disk, and send it to the replicas."""
        self._server.disk.note(effects)
        if self.upstream is None:
            self._feed(effects, in_multi=in_multi)

    def _feed(self, commands: list[list[bytes]], *, in_multi: bool = False, selects: bool = True) -> None:
        if self.backlog is None:
            self.offset += self._server.version >= (7, 2)
            return
        if selects and not self.selected:
            self.selected = True
            self.append(batch_of([[b"SELECT", b"0"]], in_multi=False))
        self.append(batch_of(commands, in_multi=in_multi))

    def append(self, batch: Batch) -> None:
        """Put a batch into the stream."""
        assert self.backlog is not None
        self.offset += batch.size
        self.backlog.add(batch)
        self.replicas.send(batch, self.offset)

    def publish(self, argv: list[bytes]) -> None:
        """Send a message on a channel to the replicas."""
        if self.upstream is None:
            self._feed([argv])

    def request_acks(self) -> None:
        """Ask the replicas how far they are."""
        if self.upstream is None and len(self.replicas) and not self._server.load.holds_writes:
            self._feed([_ACK_REQUEST], selects=False)

    # Roles.

    def promote(self) -> None:
        """Become a primary: a new history begins, and the one of before is valid up to here."""
        if self.upstream is None:
            return
        upstream, self.upstream = self.upstream, None
        upstream.close()
        self.shift_id(self._new_id())
        self.replicas.drop()
        self.selected = False

    def follow(self, host: str, port: int) -> Reply:
        """Become a replica of another server."""
        if self.upstream is not None and (self.upstream.host, self.upstream.port) == (host, port):
            return "OK Already connected to specified master"
        was, self.upstream = self.upstream, None
        if was is not None:
            was.close()
        self.waiting.end_all(UNBLOCKED)
        self.ensure_backlog()
        # A primary tries to go on from its own history, a replica from the one that it had.
        self.upstream = Upstream(self._server, self, host, port, may_continue=was is None or was.has_history)
        self.start_cron()
        self.upstream.connect()
        return OK

    def shift_id(self, new: str) -> None:
        """Go on under another id; the one of before stays valid up to here."""
        self.second_id, self.second_offset = self.id, self.offset + 1
        self.id = new

    def begin_history(self, id: str | None = None, offset: int | None = None) -> None:
        """Begin without a past, under a new id or the primary's."""
        self.id = self._new_id() if id is None else id
        self.offset = self.offset if offset is None else offset
        self.second_id, self.second_offset = NO_ID, -1
        self.backlog = None
        self.ensure_backlog()

    def ensure_backlog(self) -> None:
        """Keep the stream from now on."""
        if self.backlog is None:
            self.backlog = Backlog(self.offset, self._server.config.bytes("repl-backlog-size"))

    # Links.

    def drop_replicas(self) -> int:
        """Close the links of all replicas; return their number."""
        return self.replicas.drop()

    def close(self) -> None:
        """End with the process."""
        if self.upstream is not None:
            self.upstream.close()
        self.replicas.drop()

    def start_cron(self) -> None:
        """Look after the links once a second."""
        if not self._has_cron:
            self._has_cron = True
            self._server.after(1.0, self._cron)

    def _cron(self) -> None:
        if self.upstream is None and not len(self.replicas):
            self._has_cron = False
            return
        self._server.after(1.0, self._cron)
        if not self._server.load.later(self._work, None):
            self._work(None)

    def _work(self, _: object) -> None:
        if self.upstream is not None:
            self.upstream.cron()
        self.replicas.cron()

    def ping(self) -> None:
        """Tell the replicas that the primary lives."""
        if self.upstream is None and not self._server.load.holds_writes:
            self._feed([[b"PING"]], selects=False)

    # Waiting.

    def check_may_wait(self, name: str) -> None:
        """Refuse WAIT on a replica."""
        if self.upstream is not None:
            since = "" if self._server.is_valkey else "since Redis 4.0 "
            more = f"{since}if a replica is configured to be writable (which is not the default) "
            raise RefusalError(
                f"ERR {name} cannot be used with replica instances. Please also note that "
                f"{more if name == 'WAIT' else ''}writes to replicas are just local and are not propagated."
            )

    # What is told.

    def described(self) -> dict[str, object]:
        """Return what INFO says."""
        fields: dict[str, object] = {"role": "master" if self.upstream is None else "slave"}
        if self.upstream is not None:
            fields |= self.upstream.described()
        fields["connected_slaves"] = len(self.replicas)
        if self._server.config.least_replicas:
            fields["min_slaves_good_slaves"] = self.replicas.good
        backlog = self.backlog
        return {
            **fields,
            **self.replicas.described(),
            "master_failover_state": "no-failover",
            "master_replid": self.told_id or self.id,
            "master_replid2": self.second_id,
            "master_repl_offset": self.offset,
            "second_repl_offset": self.second_offset,
            "repl_backlog_active": int(backlog is not None),
            "repl_backlog_size": self._server.config.bytes("repl-backlog-size"),
            "repl_backlog_first_byte_offset": backlog.first if backlog else 0,
            "repl_backlog_histlen": backlog.length if backlog else 0,
        }

    def role(self) -> Reply:
        """Return what ROLE says."""
        if self.upstream is None:
            return [b"master", self.offset, self.replicas.roles()]
        upstream = self.upstream
        offset = self.offset if upstream.state == "connected" else -1
        return [b"slave", upstream.host.encode(), upstream.port, upstream.state.encode(), offset]
