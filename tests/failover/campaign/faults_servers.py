"""Faults of servers: they die, stall, come back empty or elsewhere, are cut off, or hand over."""

from __future__ import annotations

import time

from redis.crc import key_slot

from agents_redis_ha.lab import hold_loading
from tests.failover.campaign.strike import Strike


def kill(strike: Strike) -> None:
    """SIGKILL of the primary; it comes back as a replica."""
    victim = strike.victim
    strike.servers.kill(victim)
    strike.lead_name(strike.servers.wait_for_new_primary(victim))
    strike.servers.restart(victim)


def stall_long(strike: Strike) -> None:
    """SIGSTOP for longer than detection: the deposed primary wakes up and believes that it still is one."""
    victim = strike.victim
    strike.servers.stall(victim)
    strike.servers.wait_for_new_primary(victim)
    strike.pause(1.0)
    strike.servers.resume(victim)


def stall_short(strike: Strike) -> None:
    """Four stalls shorter than detection."""
    for _ in range(4):
        victim = strike.victim
        strike.servers.stall(victim)
        strike.pause(0.5)
        strike.servers.resume(victim)
        strike.pause(0.7)


def replica_cut_then_kill(strike: Strike) -> None:
    """One replica receives nothing more; a while later the primary dies.

    With a second replica the Sentinels choose that one, which is ahead. In a cluster the replica is the only heir.
    """
    victim = strike.victim
    strike.servers.links.cut_replication(strike.replica())
    strike.pause(1.0)
    strike.servers.kill(victim)
    strike.servers.wait_for_new_primary(victim)
    strike.servers.links.heal()
    strike.servers.restart(victim)


def partition(strike: Strike) -> None:
    """The primary is cut off from all other servers; one worker is on its side, the others on theirs."""
    victim = strike.victim
    strike.servers.links.partition(victim)
    strike.servers.wait_for_new_primary(victim)
    strike.pause(1.5)
    strike.servers.links.heal()


def minority(strike: Strike) -> None:
    """The primary, a replica and one of three Sentinels are cut off from the rest, which elects another primary."""
    victim = strike.victim
    strike.servers.links.partition(victim, strike.replica(), strike.servers.sentinels[0])
    strike.servers.wait_for_new_primary(victim)
    strike.kept_from = time.monotonic()
    strike.pause(2.5)
    strike.servers.links.heal()


def stable_name(strike: Strike) -> None:
    """Another server takes over behind the name: new connections lead to it, old ones still to the one of before.

    That one is not fenced and has a replica beside it: it takes writes and confirms them. Now and then it closes one of
    its connections.
    """
    victim = strike.victim
    strike.servers.links.partition(victim, strike.replica())
    strike.lead_name(strike.servers.wait_for_new_primary(victim))
    for _ in range(6):
        strike.pause(0.4)
        strike.drop_connections(victim, most=1)
    strike.servers.links.heal()


def restart_empty(strike: Strike) -> None:
    """The primary dies and is back, with no data, before anybody has noticed."""
    strike.servers.restart_empty(strike.victim)
    strike.pause(1.0)


def rolling_restart(strike: Strike) -> None:
    """Every node is restarted in turn; a primary hands over first."""
    strike.servers.rolling_restart()


def failover(strike: Strike) -> None:
    """SENTINEL FAILOVER or CLUSTER FAILOVER: an orderly one, twice."""
    for _ in range(2):
        strike.servers.promote(strike.replica())
        strike.pause(0.5)


def slot_migration(strike: Strike) -> None:
    """The session's slot moves to the next primary and back, twice, halting half way each time."""
    slot = key_slot(strike.key)
    for _ in range(2):
        home = strike.victim
        strike.servers.move_slot(slot, pause=lambda: strike.pause(0.5))
        strike.servers.move_slot(slot, home, pause=lambda: strike.pause(0.5))


def sentinels_down(strike: Strike) -> None:
    """All Sentinels but one are gone; the workers have to connect anew, and have but that one to ask."""
    strike.servers.stop_sentinels(all_but=1)
    for _ in range(3):
        strike.drop_connections(strike.servers.nodes[0])
        strike.pause(1.0)
    strike.servers.start_sentinels()


def move_address(strike: Strike) -> None:
    """The primary ends and comes back at another address."""
    strike.servers.move_address(strike.victim)
    strike.pause(1.0)


def loading(strike: Strike) -> None:
    """The primary is killed, comes back and answers LOADING for seconds."""
    with hold_loading(strike.victim):
        strike.pause(3.0)


def worker_killed(strike: Strike) -> None:
    """Two workers are killed in the midst of their calls: the server is stalled for that moment."""
    for name in strike.workers.names[:2]:
        victim = strike.victim
        strike.servers.stall(victim)
        strike.pause(0.2)
        strike.workers.kill(name)
        strike.servers.resume(victim)
        strike.pause(0.5)
