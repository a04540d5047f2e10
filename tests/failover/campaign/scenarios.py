"""The table of scenarios: what strikes, where, and what may be lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.failover.campaign import faults_clients as clients
from tests.failover.campaign import faults_servers as servers
from tests.failover.campaign.findings import Kind, Report, Violation
from tests.failover.campaign.strike import Strike

Durability = Literal["primary", "replicas"]
BOTH = ("sentinel", "cluster")

LOSSES = frozenset({Kind.LOST, Kind.POPPED_STILL_THERE, Kind.CLEARED_STILL_THERE, Kind.BACKWARDS, Kind.STALE})
"""What follows when servers lose confirmed changes."""
AFTER_A_NOTICE = LOSSES | {Kind.HANDED_OUT_TWICE, Kind.POPPED_OUT_OF_TURN, Kind.TORN}
"""What a caller has to reckon with once it was told that history is gone."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One fault and what is expected of it.

    Attributes:
        name: Its name on the command line.
        strike: Makes the fault and heals it; returns when the servers can settle.
        topologies: Where it makes sense.
        may_lose: At which durability the servers may lose confirmed changes: never, "primary", or "always". What they
            lose has to be put back or be said.
        excused: Further kinds that may occur at durability "primary", without a word to anybody.
        lab: Options of `lab.start`.
        beside_victim: How many workers are on the primary's side of a partition; the others are on the other side.
        login: Whether the workers are an ACL user of their own, with a password that a file holds.
    """

    name: str
    strike: Callable[[Strike], None]
    topologies: tuple[str, ...] = BOTH
    may_lose: Literal["never", "primary", "always"] = "never"
    excused: frozenset[Kind] = frozenset()
    lab: Mapping[str, Any] = field(default_factory=dict)
    beside_victim: int = 0
    login: bool = False

    def unexpected(self, report: Report, durability: Durability) -> list[Violation]:
        """Return the violations that this scenario does not allow."""
        loses = self.may_lose == "always" or self.may_lose == durability
        allowed = AFTER_A_NOTICE if loses else frozenset()
        excused = self.excused if durability == "primary" else frozenset()
        return [v for v in report.violations if not ((v.said and v.kind in allowed) or v.kind in excused)]


# A read of one worker may be answered before another worker, who knows of more, has put it back.
_STALE = frozenset({Kind.STALE})

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="calm", strike=lambda strike: strike.pause(1.0)),
    Scenario(name="kill", strike=servers.kill, may_lose="primary", excused=_STALE),
    Scenario(name="stall-long", strike=servers.stall_long, may_lose="primary", excused=_STALE),
    Scenario(name="stall-short", strike=servers.stall_short),
    Scenario(
        name="partition",
        strike=servers.partition,
        may_lose="primary",
        excused=_STALE,
        lab={"links": True},
        beside_victim=1,
    ),
    Scenario(
        name="replica-cut-then-kill",
        strike=servers.replica_cut_then_kill,
        may_lose="primary",
        excused=_STALE,
        lab={"links": True},
    ),
    Scenario(
        name="restart-empty",
        strike=servers.restart_empty,
        may_lose="always",
        excused=_STALE,
        lab={"down_after_ms": 3_000, "node_timeout_ms": 3_000},
    ),
    Scenario(name="rolling-restart", strike=servers.rolling_restart, may_lose="primary", excused=_STALE),
    Scenario(name="failover", strike=servers.failover, may_lose="primary", excused=_STALE),
    Scenario(name="slot-migration", strike=servers.slot_migration, topologies=("cluster",)),
    Scenario(name="sentinels-down", strike=servers.sentinels_down, topologies=("sentinel",)),
    Scenario(name="move-address", strike=servers.move_address, may_lose="primary", excused=_STALE),
    Scenario(name="password-rotated", strike=clients.password_rotated, login=True),
    Scenario(
        name="certificate-rotated",
        strike=clients.certificate_rotated,
        lab={"tls": True},
    ),
    Scenario(name="client-kill-storm", strike=clients.client_kill_storm),
    Scenario(name="maxclients", strike=clients.maxclients),
    Scenario(name="out-of-memory", strike=clients.out_of_memory),
    Scenario(name="disk-full", strike=clients.disk_full),
    Scenario(name="script-flush", strike=clients.script_flush),
    Scenario(
        name="loading",
        strike=servers.loading,
        lab={"persist": True},
        may_lose="primary",
        excused=_STALE,
    ),
    Scenario(name="replies-cut", strike=clients.replies_cut, lab={"proxies": True}),
    Scenario(name="worker-killed", strike=servers.worker_killed),
)

BY_NAME: Mapping[str, Scenario] = {scenario.name: scenario for scenario in SCENARIOS}
