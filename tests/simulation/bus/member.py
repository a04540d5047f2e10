"""One member of a cluster: what it knows of the others, how it learns that one fails, who owns which slot (cluster.c).

Left out: MEET and FORGET, replicas that move to other shards, messages on channels, and the time that nodes.conf takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import routing
from .answers import answer
from .elections import Elections
from .messages import BusMessage, Kind, Migration
from .migration import Arrival, migrate
from .peer import Peer
from .slots import SLOTS, SlotTable

if TYPE_CHECKING:
    from tests.simulation.redis.connection import Connection
    from tests.simulation.redis.far_end import LinkUser
    from tests.simulation.redis.registry import Command, Reply
    from tests.simulation.redis.server import Link, Server

__all__ = ["Member"]

_PERIOD = 0.1  # seconds between two turns of clusterCron
_WRITABLE_SECONDS = 2.0  # a primary that starts waits so long before it serves
_MESSAGE_BYTES = 2256  # a header with its bitmap of slots
_GOSSIP_BYTES = 104
_NONE: frozenset[str] = frozenset()


class Member:
    """One member, itself among its peers.

    Attributes:
        server: Its server.
        id: Its id.
        me: Itself.
        peers: All members, by id, in the order in which they are told.
        slots: Who owns which slot.
        current_epoch: The cluster's epoch, as far as it is known here.
        is_ok: Whether it serves requests: it finds a majority, and an owner for each slot.
        size: How many primaries own slots.
    """

    def __init__(
        self, server: Server, id: str, peers: Sequence[Peer], owners: Sequence[str | None], epoch: int
    ) -> None:
        self.server, self.id = server, id
        self.peers = {peer.id: peer for peer in peers}
        self.me = self.peers[id]
        self._others = [peer for peer in peers if peer is not self.me]
        self.slots = SlotTable(self, owners)
        self.current_epoch = epoch
        self.is_ok = True
        self.size = sum(bool(peer.slots) for peer in peers)
        self.elections = Elections(self)
        self._turns = 0
        self._started_at = float("-inf")
        self._minority_at = float("-inf")
        server.cluster = self
        self._begin()

    # What a server asks of its cluster.

    def check(self, client: Connection, found: Command, argv: Sequence[bytes]) -> None:
        """Raise the redirection for a request that is another node's."""
        routing.check(self, client, found, argv)

    def refusal_within_script(self, client: Connection, found: Command, argv: Sequence[bytes]) -> str | None:
        """Say why a script may not touch a key here."""
        return routing.refusal_within_script(self, client, found, argv)

    def accept(self, peer: str, link: Link, message: Any) -> LinkUser | None:
        """Take a link that another node opened."""
        if isinstance(message, Migration):
            arrival = Arrival(self.server, link)
            arrival.receive(message)
            return arrival
        if self.server.load.is_loading and self.me.primary is None:
            link.close()  # a primary that loads takes no links of the bus
            return None
        incoming = _Incoming(self, link)
        incoming.receive(message)
        return incoming

    def answer(self, argv: list[bytes]) -> Reply:
        """Answer CLUSTER …"""
        return answer(self, argv)

    def migrate(
        self, client: Connection, address: tuple[str, int], keys: Sequence[bytes], seconds: float, *, replaces: bool
    ) -> Reply:
        """Answer MIGRATE."""
        return migrate(self.server, client, address, keys, seconds, replaces=replaces)

    def close(self) -> None:
        """End with the process."""
        for peer in self.peers.values():
            if peer.link is not None:
                peer.link.close()
                peer.link = None
        self.is_ok = False

    def restarted(self) -> None:
        """Begin again with what nodes.conf says; a primary serves after two seconds."""
        for peer in self.peers.values():
            peer.forget_times()
        self.elections.reset()
        self.is_ok = False
        self._started_at, self._minority_at = self.now(), float("-inf")
        self._begin()

    def _begin(self) -> None:
        self.server.after(self.server.random.random() * _PERIOD, self._cron)

    def now(self) -> float:
        """Return the server's time, in seconds."""
        return self.server.clock()

    @property
    def timeout(self) -> float:
        """``cluster-node-timeout`` in seconds."""
        return self.server.config.seconds("cluster-node-timeout")

    def has_key(self, key: bytes) -> bool:
        """Whether a key is here and not expired."""
        keyspace = self.server.keyspace
        at = keyspace.expires.get(key)
        return key in keyspace.values and (at is None or at >= self.server.now_ms())

    # Sending.

    def send(self, peer: Peer, kind: Kind, **more: Any) -> None:
        """Send a message over this member's own link."""
        if peer.link is not None:
            self._send(peer.link, kind, **more)

    def _send(self, link: Link, kind: Kind, **more: Any) -> None:
        shard = self.peers.get(self.me.primary or "", self.me)
        failing = _NONE
        for peer in self.peers.values():
            if peer.may_fail or peer.fails:
                failing |= {peer.id}
        is_paused = self.me.primary is None and self.elections.holds_writes
        message = BusMessage(
            kind,
            self.id,
            self.current_epoch,
            shard.config_epoch,
            shard.slots,
            self.me.primary,
            self.server.replication.offset,
            is_paused,
            failing,
            **more,
        )
        link.send(message, _MESSAGE_BYTES + _GOSSIP_BYTES * len(self.peers))

    def ping(self, peer: Peer) -> None:
        """Ask a member whether it is there."""
        if peer.link is not None:
            if not peer.ping_sent:
                peer.ping_sent = self.now()
            self._send(peer.link, "ping")

    def broadcast(self, kind: Kind, **more: Any) -> None:
        """Send a message to all."""
        for peer in self._others:
            self.send(peer, kind, **more)

    # Ten times a second.

    def _cron(self) -> None:
        self.server.after(_PERIOD, self._cron)
        if not self.server.load.is_held:
            self._turn()

    def _turn(self) -> None:
        now, others = self.now(), self._others
        for peer in others:
            if peer.link is None:
                self._dial(peer)
        self._turns += 1
        if not self._turns % 10:
            idle = [peer for peer in others if peer.link is not None and not peer.ping_sent]
            if idle:
                sample = self.server.random.sample(idle, min(len(idle), 5))
                self.ping(min(sample, key=lambda peer: peer.pong_received))
        timeout = self.timeout
        changed = [self._look_at(peer, now, timeout) for peer in others]
        primary = self.peers.get(self.me.primary or "")
        if primary is not None and self.server.replication.upstream is None:
            self.server.replication.follow(primary.host, primary.port)
        self.elections.cron()
        if any(changed) or not self.is_ok:
            self.update_state()

    def _look_at(self, peer: Peer, now: float, timeout: float) -> bool:
        """Ping a member that was not heard for long; return whether it is taken for failing from now on."""
        if not peer.ping_sent:
            if peer.link is not None and now - peer.pong_received > timeout / 2:
                self.ping(peer)
            return False
        waited = min(now - peer.ping_sent, now - peer.data_received)
        if peer.link is not None and now - peer.linked_at > timeout and waited > timeout / 2:
            peer.link.close()
            peer.link = None
        if waited <= timeout or peer.may_fail or peer.fails:
            return False
        peer.may_fail = True
        self._judge(peer)
        return True

    def _dial(self, peer: Peer) -> None:
        if self.server.dial is None:
            return
        link: Link | None = None

        def closed() -> None:
            if peer.link is link:
                peer.link = None

        peer.link = link = self.server.dial(peer.host, peer.port, lambda message: self._arrived(peer, message), closed)
        peer.linked_at = self.now()
        if link is not None:
            # A PING that was unanswered before counts on.
            before, peer.ping_sent = peer.ping_sent, 0.0
            self.ping(peer)
            peer.ping_sent = before or peer.ping_sent

    def _arrived(self, peer: Peer, message: object) -> None:
        if not self.server.load.later(self._take_reply, (peer, message)):
            self._take_reply((peer, message))

    def _take_reply(self, received: tuple[Peer, Any]) -> None:
        peer, message = received
        if not self.server.is_up:
            return
        if message.kind == "pong":
            peer.pong_received, peer.ping_sent = self.now(), 0.0
            if peer.may_fail:
                peer.may_fail = False
                self.update_state()
            elif peer.fails:
                self._clear_failure(peer)
        self.take(message, None)

    def _clear_failure(self, peer: Peer) -> None:
        """Take a member for well again that is reachable, if it is no primary that is to be replaced."""
        if not peer.slots or self.now() - peer.fails_since > 2 * self.timeout:
            peer.fails = False
            self.update_state()

    # Receiving.

    def take(self, message: BusMessage, link: Link | None) -> None:
        """Learn from a message; answer a PING over its own link."""
        sender = self.peers.get(message.sender)
        if sender is None:
            return
        sender.data_received = self.now()
        self.current_epoch = max(self.current_epoch, message.current_epoch)
        # A replica's header has its primary's epoch; the primary's own messages tell the same.
        sender.config_epoch = max(sender.config_epoch, message.config_epoch)
        sender.offset = message.offset
        self.elections.hear_offset(sender, message)
        kind = message.kind
        if kind == "ping" and link is not None:
            self._send(link, "pong")
        if kind in ("ping", "pong"):
            self._learn(sender, message)
        elif kind == "fail":
            self._note_failure(self.peers[message.about])
        elif kind == "update":
            self._learn_of_another(message)
        elif kind == "auth request":
            self.elections.vote(sender, message)
        elif kind == "auth":
            self.elections.count(sender, message)
        elif kind == "manual failover":
            self.elections.hold_writes(sender)

    def _learn(self, sender: Peer, message: BusMessage) -> None:
        if message.primary is None:
            sender.primary = None
        elif sender.primary != message.primary:
            if sender.primary is None:
                self.slots.release(sender)
            sender.primary = message.primary
        shard = sender if sender.primary is None else self.peers.get(sender.primary)
        if shard is not None and shard.slots is not message.slots:  # interned
            if sender.primary is None:
                self.slots.learn(sender, message.config_epoch, message.slots)
            self.slots.correct(sender, message)
        are_primaries = self.me.primary is None and sender.primary is None
        if are_primaries and message.config_epoch == self.me.config_epoch and sender.id > self.id:
            self.current_epoch += 1  # the one with the lower id takes a new epoch
            self.me.config_epoch = self.current_epoch
        self._hear_gossip(sender, message)

    def _learn_of_another(self, message: BusMessage) -> None:
        """Learn of a member from UPDATE: it was elected while this one was away."""
        peer = self.peers[message.about]
        if peer.config_epoch < message.about_epoch:
            peer.primary, peer.config_epoch = None, message.about_epoch
            self.slots.learn(peer, message.about_epoch, message.about_slots)

    # Failures.

    def _hear_gossip(self, sender: Peer, message: BusMessage) -> None:
        if sender.primary is not None:
            return
        if not message.failing and not sender.accuses:
            return
        now, sender.accuses = self.now(), bool(message.failing)
        for peer in self.peers.values():
            if peer is self.me or peer is sender:
                continue
            if peer.id in message.failing:
                peer.reports[sender.id] = now
                self._judge(peer)
            else:
                peer.reports.pop(sender.id, None)

    def _judge(self, peer: Peer) -> None:
        """Declare a member failed if the majority of the primaries takes it for failing, this one among them."""
        if not peer.may_fail or peer.fails:
            return
        oldest = self.now() - 2 * self.timeout
        reports = sum(at >= oldest for at in peer.reports.values()) + (self.me.primary is None)
        if reports > self.size // 2:
            self._note_failure(peer)
            self.broadcast("fail", about=peer.id)

    def _note_failure(self, peer: Peer) -> None:
        if peer is not self.me and not peer.fails:
            peer.may_fail, peer.fails, peer.fails_since = False, True, self.now()
            self.update_state()

    def update_state(self) -> None:
        """Decide whether to serve requests."""
        now = self.now()
        is_primary = self.me.primary is None
        if is_primary and not self.is_ok and now - self._started_at < _WRITABLE_SECONDS:
            return
        owning = [peer for peer in self.peers.values() if peer.primary is None and peer.slots]
        self.size = len(owning)
        covered = sum(len(peer.slots) for peer in owning if not peer.fails)
        is_ok = covered == SLOTS or self.server.config.get("cluster-require-full-coverage", "yes") == "no"
        if sum(not peer.fails and not peer.may_fail for peer in owning) <= self.size // 2:
            is_ok, self._minority_at = False, now
        rejoin_seconds = min(max(self.timeout, 0.5), 5.0)
        if is_ok and not self.is_ok and is_primary and now - self._minority_at < rejoin_seconds:
            return
        self.is_ok = is_ok

    # Roles.

    def follow(self, primary: Peer) -> None:
        """Become a replica of another member."""
        self.elections.end_by_hand()
        self.slots.migrating.clear()
        self.slots.importing.clear()
        self.me.primary = primary.id
        self.server.replication.follow(primary.host, primary.port)
        self.update_state()
        self.server.load.resume_writes()

    def bump_epoch(self) -> bool:
        """Take a new epoch without asking, unless this member has the highest alone."""
        highest = max(self.current_epoch, *(peer.config_epoch for peer in self.peers.values()))
        if self.me.config_epoch and self.me.config_epoch == highest:
            return False
        self.current_epoch += 1
        self.me.config_epoch = self.current_epoch
        return True

    def take_over(self, epoch: int) -> None:
        """Become the primary in the place of this member's own."""
        old = self.peers[self.me.primary or ""]
        self.me.config_epoch = max(self.me.config_epoch, epoch)
        self.me.primary = None
        self.server.replication.promote()
        self.slots.assign(old.slots, self.me)
        self.elections.end_by_hand()
        self.broadcast("pong")


class _Incoming:
    """A link that another member opened."""

    def __init__(self, member: Member, link: Link) -> None:
        self._member, self._link = member, link

    def receive(self, message: Any) -> None:
        """Take a message."""
        self._member.take(message, self._link)

    def closed(self) -> None:
        """Take notice that the link is gone."""
