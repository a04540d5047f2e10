"""Failovers of one member's shard: elections, votes, and failovers by hand (cluster.c, clusterHandleSlaveFailover).

Left out: replicas that move to other shards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.redis.registry import OK, RefusalError, Reply

from .messages import BusMessage
from .peer import Peer

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Elections"]

_BY_HAND_SECONDS = 5.0
_PAUSE_SECONDS = 10.0


class Elections:
    """One member's elections.

    Attributes:
        last_vote: The epoch of the last election in which the member voted.
        by_hand_until: Until when a failover by hand goes on; 0 while none does.
        may_start: Whether the replica of a failover by hand has all that its primary had.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self.last_vote = 0
        self.reset()

    def reset(self) -> None:
        """Be as after a start."""
        self._at = self._votes = self._rank = self._epoch = 0
        self._begins_at = 0.0
        self._has_asked = False
        self.by_hand_until = 0.0
        self.may_start = False
        self._primary_offset: int | None = None
        self._by_hand_for: str | None = None

    # A replica's part.

    def cron(self) -> None:
        """Go on with an election; ten times a second."""
        now = self._member.now()
        if self.by_hand_until and now > self.by_hand_until:
            self.end_by_hand()
        if self._member.me.primary is not None:
            self._look_at_offset()
            self.handle()
        elif self._by_hand_for is not None:
            self._member.ping(self._member.peers[self._by_hand_for])

    def handle(self) -> None:
        """Begin an election, ask for votes, or take over, as is due."""
        member = self._member
        primary = member.peers.get(member.me.primary or "")
        by_hand = bool(self.by_hand_until) and self.may_start
        if primary is None or not primary.slots or not (primary.fails or by_hand) or not self._is_fresh(by_hand):
            return
        now, longest = member.now(), max(2 * member.timeout, 2.0)
        age = now - self._begins_at
        if age > 2 * longest:
            self._schedule(now)
            return
        if not self._has_asked and not self.by_hand_until:
            rank = self._rank_now()
            if rank > self._rank:
                self._begins_at += rank - self._rank
                self._rank = rank
        if now < self._begins_at or age > longest:
            return
        if not self._has_asked:
            member.current_epoch += 1
            self._epoch, self._has_asked = member.current_epoch, True
            member.broadcast("auth request", forces=by_hand)
        elif self._votes > member.size // 2:
            member.take_over(self._epoch)

    def _is_fresh(self, by_hand: bool) -> bool:
        """Whether the replica's data is young enough (``cluster-replica-validity-factor``)."""
        member = self._member
        factor = int(member.server.config.get("cluster-replica-validity-factor", "10"))
        if not factor or by_hand:
            return True
        upstream = member.server.replication.upstream
        age = 0.0 if upstream is None else upstream.silence
        age = age - member.timeout if age > member.timeout else age
        return age <= int(member.server.config["repl-ping-replica-period"]) + member.timeout * factor

    def _schedule(self, now: float) -> None:
        self._votes, self._has_asked = 0, False
        self._rank = 0 if self.by_hand_until else self._rank_now()
        self._begins_at = now
        if self.by_hand_until:
            self.handle()
            return
        self._begins_at += 0.5 + self._member.server.random.random() * 0.5 + self._rank
        self._member.broadcast("pong")

    def _rank_now(self) -> int:
        """Return how many other replicas of the primary have more of its stream."""
        member = self._member
        mine = member.server.replication.offset
        siblings = (
            peer for peer in member.peers.values() if peer.primary == member.me.primary and peer is not member.me
        )
        return sum(peer.offset > mine for peer in siblings)

    def count(self, sender: Peer, message: BusMessage) -> None:
        """Count a vote."""
        if sender.is_primary and sender.slots and message.current_epoch >= self._epoch:
            self._votes += 1
            self.handle()

    # A primary's part.

    def vote(self, candidate: Peer, message: BusMessage) -> None:
        """Vote for a replica, if it may take over."""
        member = self._member
        primary = member.peers.get(candidate.primary or "")
        if member.me.primary is not None or not member.me.slots or message.current_epoch < member.current_epoch:
            return
        if self.last_vote == member.current_epoch or primary is None or not (primary.fails or message.forces):
            return
        now = member.now()
        if now - primary.voted_at < 2 * member.timeout:
            return
        for owner in {member.slots.owners[slot] for slot in message.slots}:
            if owner is not None and member.peers[owner].config_epoch > message.config_epoch:
                return
        self.last_vote, primary.voted_at = member.current_epoch, now
        member.send(candidate, "auth")

    # By hand.

    def begin_by_hand(self, how: str) -> Reply:
        """Answer CLUSTER FAILOVER [FORCE | TAKEOVER]."""
        member = self._member
        primary = member.peers.get(member.me.primary or "")
        if primary is None:
            raise RefusalError("ERR You should send CLUSTER FAILOVER to a replica")
        if not how and (primary.fails or primary.link is None):
            raise RefusalError("ERR Master is down or failed, please use CLUSTER FAILOVER FORCE")
        self.end_by_hand()
        self.by_hand_until = member.now() + _BY_HAND_SECONDS
        if how == "takeover":
            member.bump_epoch()
            member.take_over(member.me.config_epoch)
        elif how == "force":
            self.may_start = True
        else:
            member.send(primary, "manual failover")
        return OK

    def hold_writes(self, replica: Peer) -> None:
        """Hold writes back while a replica catches up and takes over."""
        member = self._member
        if replica.primary != member.id:
            return
        self.end_by_hand()
        self.by_hand_until = member.now() + _BY_HAND_SECONDS
        self._by_hand_for = replica.id
        member.server.load.pause_writes(_PAUSE_SECONDS)
        member.ping(replica)

    def hear_offset(self, sender: Peer, message: BusMessage) -> None:
        """Learn up to where the primary's stream goes that holds its writes back."""
        is_mine = sender.id == self._member.me.primary and message.is_paused
        if self.by_hand_until and is_mine and self._primary_offset is None:
            self._primary_offset = message.offset
            self._look_at_offset()

    def _look_at_offset(self) -> None:
        if not self.by_hand_until or self.may_start or self._primary_offset is None:
            return
        if self._primary_offset == self._member.server.replication.offset:
            self.may_start = True
            self.handle()

    @property
    def holds_writes(self) -> bool:
        """Whether this primary holds its writes back."""
        return self._by_hand_for is not None

    def end_by_hand(self) -> None:
        """End a failover by hand, whatever became of it."""
        if self._by_hand_for is not None:
            self._member.server.load.resume_writes()
        self.by_hand_until, self.may_start = 0.0, False
        self._primary_offset = self._by_hand_for = None
