"""A simulated Sentinel: how it agrees with others that a primary is down, is elected, and fails over.

It follows sentinel.c of Redis 7.0 for one monitored primary: the same timer (10 to 19 times a second), periods, states
and announcements. All Sentinels speak RESP to servers and to one another, over the simulated network. What it has
learned is in its configuration file, so it outlives the process.

Left out: several primaries, authentication, scripts, `SENTINEL SET`, `RESET` and `MONITOR`, host names of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.simulation.sentinels.instance import (
    NONE,
    RECONFIGURE,
    SELECT,
    SEND,
    UPDATE,
    WAIT,
    WAIT_START,
    Instance,
    RefusalError,
)
from tests.simulation.sentinels.watch import INFO, PING, Watch

_ASK = 1.0
_MAX_DESYNC, _ELECTION_TIMEOUT, _RECONFIGURE_TIMEOUT = 1.0, 10.0, 10.0


class Sentinel(Watch):
    """One Sentinel."""

    def act(self) -> None:
        """See `Watch.act`."""
        self._check_odown()
        if self._start_failover_if_needed():
            self._ask_others(forced=True)
        self._go_on_with_failover()
        self._ask_others()

    def finish(self) -> None:
        """See `Watch.finish`."""
        if self.state == UPDATE:
            self._switch_to_promoted()

    def _check_odown(self) -> None:
        count = 1 + sum(each.says_down for each in self.sentinels.values())
        is_odown = self.primary.is_down and count >= self.quorum
        if is_odown != self.is_odown:
            self.is_odown = is_odown
            if is_odown:
                self.event("+odown", self.primary, f" #quorum {count}/{self.quorum}")
            else:
                self.event("-odown", self.primary)

    def _ask_others(self, *, forced: bool = False) -> None:
        now = self.now()
        for other in self.sentinels.values():
            if now - other.answered_at > _ASK * 5:
                other.says_down, other.leader = False, None
            if not self.primary.is_down or not other.is_connected or other.commands is None:
                continue
            if forced or now - other.answered_at >= _ASK:
                host, port = self.primary.address
                who = self.id if self.state > NONE else "*"
                command = ("SENTINEL", "is-master-down-by-addr", host, port, self.current_epoch, who)
                other.commands.ask(partial(self._answered, other), *command)

    def _answered(self, other: Instance, reply: Any) -> None:
        if isinstance(reply, RefusalError):
            return
        down, leader, epoch = reply
        other.answered_at, other.says_down = self.now(), bool(down)
        if leader != b"*":
            other.leader, other.leader_epoch = leader.decode(), epoch

    # -- elections

    def vote(self, epoch: int, candidate: str) -> tuple[str | None, int]:
        """Return for which leader this Sentinel votes or voted, and in which epoch."""
        if epoch > self.current_epoch:
            self.current_epoch = epoch
            self.event("+new-epoch", None, f"{epoch}")
        if self.leader_epoch < epoch and self.current_epoch <= epoch:
            self.leader, self.leader_epoch = candidate, self.current_epoch
            self.event("+vote-for-leader", None, f"{candidate} {epoch}")
            if candidate != self.id:
                self.failover_start = self.now() + self._random.random() * _MAX_DESYNC
        return self.leader, self.leader_epoch

    def _elected(self) -> str | None:
        votes: dict[str, int] = {}
        for other in self.sentinels.values():
            if other.leader is not None and other.leader_epoch == self.current_epoch:
                votes[other.leader] = votes.get(other.leader, 0) + 1
        winner = max(votes, key=lambda each: votes[each], default=None)
        own, epoch = self.vote(self.failover_epoch, winner or self.id)
        if own is not None and epoch == self.failover_epoch:
            votes[own] = votes.get(own, 0) + 1
            winner = max(votes, key=lambda each: votes[each])
        needed = max((len(self.sentinels) + 1) // 2 + 1, self.quorum)
        return winner if winner is not None and votes[winner] >= needed else None

    # -- the failover

    def start_failover(self, *, forced: bool = False) -> None:
        """Begin a failover; it goes on once this Sentinel is elected, or at once if it is forced."""
        now = self.now()
        self.is_failing_over, self.is_forced = True, forced
        self.current_epoch += 1
        self.failover_epoch = self.current_epoch
        self.event("+new-epoch", None, f"{self.current_epoch}")
        self.event("+try-failover", self.primary)
        self.enter(WAIT_START)
        self.failover_start = now + self._random.random() * _MAX_DESYNC

    def _start_failover_if_needed(self) -> bool:
        waits = self.now() - self.failover_start < self.failover_timeout * 2
        if not self.is_odown or self.is_failing_over or waits:
            return False
        self.start_failover()
        return True

    def abort_failover(self) -> None:
        """Give it up; possible until the chosen replica is a primary."""
        self.is_failing_over = self.is_forced = False
        self.enter(NONE)
        if self.promoted is not None:
            self.promoted.is_promoted = False
            self.promoted = None

    def best_replica(self) -> Instance | None:
        """Return the replica to promote: the best priority, then the most data."""
        now, primary = self.now(), self.primary
        longest = self.down_after * 10 + (now - primary.down_since if primary.is_down else 0)
        freshness = PING * 5 if primary.is_down else INFO * 3
        good = [
            each
            for each in self.replicas.values()
            if not each.is_down
            and each.is_connected
            and now - each.last_available <= PING * 5
            and each.priority
            and now - each.info_at <= freshness
            and each.link_down_seconds <= longest
        ]
        return min(good, key=lambda each: (each.priority, -each.offset, each.run_id), default=None)

    def _go_on_with_failover(self) -> None:
        if not self.is_failing_over:
            return
        since = self.now() - self.state_since
        if self.state == WAIT_START:
            self._wait_for_election()
        elif self.state == SELECT:
            self._select()
        elif self.state == SEND and self.promoted is not None:
            if self.promoted.is_connected:
                self.send_replicaof(self.promoted, None)
                self.event("+failover-state-wait-promotion", self.promoted)
                self.enter(WAIT)
            elif since > self.failover_timeout:
                self.event("-failover-abort-slave-timeout", self.primary)
                self.abort_failover()
        elif self.state == WAIT and since > self.failover_timeout:
            self.event("-failover-abort-slave-timeout", self.primary)
            self.abort_failover()
        elif self.state == RECONFIGURE:
            self._reconfigure_replicas()

    def _wait_for_election(self) -> None:
        if self._elected() != self.id and not self.is_forced:
            if self.now() - self.failover_start > min(_ELECTION_TIMEOUT, self.failover_timeout):
                self.event("-failover-abort-not-elected", self.primary)
                self.abort_failover()
            return
        self.event("+elected-leader", self.primary)
        self.enter(SELECT)
        self.event("+failover-state-select-slave", self.primary)

    def _select(self) -> None:
        best = self.best_replica()
        if best is None:
            self.event("-failover-abort-no-good-slave", self.primary)
            self.abort_failover()
            return
        self.event("+selected-slave", best)
        best.is_promoted, self.promoted = True, best
        self.enter(SEND)
        self.event("+failover-state-send-slaveof-noone", best)

    def _reconfigure_replicas(self) -> None:
        assert self.promoted is not None
        now = self.now()
        for replica in self.replicas.values():
            if replica.is_promoted or replica.reconfiguring == "done":
                continue
            if replica.reconfiguring == "sent" and now - replica.reconfigured_at > _RECONFIGURE_TIMEOUT:
                replica.reconfiguring = "done"
            elif replica.reconfiguring is None and replica.is_connected:
                self.send_replicaof(replica, self.promoted.address)
                replica.reconfiguring, replica.reconfigured_at = "sent", now
                self.event("+slave-reconf-sent", replica)
        self._detect_end()

    def _detect_end(self) -> None:
        if self.promoted is None or self.promoted.is_down:
            return
        left = [
            each
            for each in self.replicas.values()
            if not each.is_promoted and each.reconfiguring != "done" and not each.is_down
        ]
        timed_out = self.now() - self.state_since > self.failover_timeout
        if timed_out:
            self.event("+failover-end-for-timeout", self.primary)
            for each in left:
                if each.reconfiguring is None and each.is_connected:
                    self.send_replicaof(each, self.promoted.address)
        if timed_out or not left:
            self.event("+failover-end", self.primary)
            self.enter(UPDATE)

    def _switch_to_promoted(self) -> None:
        to = self.promoted.address if self.promoted is not None else self.primary.address
        self.announce_switch(to)
        self.monitor(to)
