"""The table of scenarios: what strikes, where, and what may be lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.failover.campaign import evictions
from tests.failover.campaign import faults_clients as clients
from tests.failover.campaign import faults_servers as servers
from tests.failover.campaign.findings import Kind, Report, Violation
from tests.failover.campaign.fleets import (
    Fleet,
    alike,
    behind_nat,
    impatient,
    mixed,
    one_beside_victim,
    one_in_minority,
    with_login,
)
from tests.failover.campaign.strike import Strike

Durability = Literal["primary", "replicas"]
When = Literal["never", "primary", "always"]
BOTH = ("sentinel", "cluster")
ALL = ("standalone", *BOTH)
"""Standalone: replicated servers of which the workers know one address, which leads to the primary."""

LOSSES = frozenset({Kind.LOST, Kind.POPPED_STILL_THERE, Kind.CLEARED_STILL_THERE, Kind.BACKWARDS, Kind.STALE})
"""What follows when servers lose confirmed changes."""
AFTER_A_NOTICE = LOSSES | {
    Kind.HANDED_OUT_TWICE,
    Kind.POPPED_OUT_OF_TURN,
    Kind.PUT_BACK_BEHIND,
    Kind.TORN,
    Kind.ANSWERED_TWICE,
}
"""What a caller has to reckon with once it was told that history is gone."""
UNSAID = frozenset({Kind.TOOL_RUN_AGAIN, Kind.TAKEN_AWAY, Kind.CANCELLED_AND_ANSWERED})
"""What follows when servers lose grants, drafts and cancellations, which are not put back."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One fault and what is expected of it.

    Attributes:
        name: Its name on the command line.
        strike: Makes the fault and heals it; returns when the servers can settle.
        topologies: Where it makes sense.
        may_lose: At which durability the servers may lose confirmed changes: never, "primary", or "always". What they
            lose has to be put back or be said.
        may_be_stale: At which durability a read may lack a change that another worker knows, without a word to anybody.
        counts_versions: Whether a `HistoryLostError` accounts for no more changes than it names versions.
        lab: Options of `lab.start`.
        fleet: How each worker reaches the servers.
    """

    name: str
    strike: Callable[[Strike], None]
    topologies: tuple[str, ...] = BOTH
    may_lose: When = "never"
    may_be_stale: When = "never"
    counts_versions: bool = True
    lab: Mapping[str, Any] = field(default_factory=dict)
    fleet: Fleet = alike

    def unexpected(self, report: Report, durability: Durability, kept_from: float = math.inf) -> list[Violation]:
        """Return the violations that this scenario does not allow.

        Args:
            report: What the checker found.
            durability: How the workers wrote.
            kept_from: With replicas, no change that began later may be lost, said or not.
        """
        allowed = AFTER_A_NOTICE if self.may_lose in ("always", durability) else frozenset()
        # A read of one worker may be answered before another one, which knows of more, has put it back.
        may_be_stale = self.may_be_stale in ("always", durability)
        last = kept_from if durability == "replicas" else math.inf
        return [
            v
            for v in report.violations
            if v.begin > last
            or not (
                (v.said and v.kind in allowed)
                or (may_be_stale and v.is_of_stale_read)
                or (allowed and v.kind in UNSAID)
            )
        ]


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="calm", strike=lambda strike: strike.pause(1.0)),
    Scenario(name="kill", strike=servers.kill, may_lose="primary", may_be_stale="primary"),
    Scenario(name="stall-long", strike=servers.stall_long, may_lose="primary", may_be_stale="primary"),
    Scenario(name="stall-short", strike=servers.stall_short),
    Scenario(
        name="partition",
        strike=servers.partition,
        may_lose="primary",
        may_be_stale="primary",
        lab={"links": True},
        fleet=one_beside_victim,
    ),
    Scenario(
        name="minority",
        strike=servers.minority,
        topologies=("sentinel",),
        # Until the election. The one Sentinel that is left to the minority names its primary, which is read.
        may_lose="always",
        may_be_stale="always",
        lab={"links": True},
        fleet=one_in_minority,
    ),
    Scenario(
        name="stable-name",
        strike=servers.stable_name,
        topologies=("standalone",),
        may_lose="always",
        may_be_stale="always",
        lab={"links": True},
    ),
    Scenario(
        name="stable-name-tls",
        strike=servers.stable_name,
        topologies=("standalone",),
        may_lose="always",
        may_be_stale="always",
        lab={"links": True, "tls": True},
    ),
    Scenario(
        name="replica-cut-then-kill",
        strike=servers.replica_cut_then_kill,
        may_lose="primary",
        may_be_stale="primary",
        lab={"links": True},
    ),
    Scenario(
        name="restart-empty",
        strike=servers.restart_empty,
        may_lose="always",
        may_be_stale="primary",
        lab={"down_after_ms": 3_000, "node_timeout_ms": 3_000},
    ),
    Scenario(name="rolling-restart", strike=servers.rolling_restart, may_lose="primary", may_be_stale="primary"),
    Scenario(name="failover", strike=servers.failover, may_lose="primary", may_be_stale="primary"),
    Scenario(name="slot-migration", strike=servers.slot_migration, topologies=("cluster",)),
    Scenario(name="sentinels-down", strike=servers.sentinels_down, topologies=("sentinel",)),
    Scenario(name="move-address", strike=servers.move_address, may_lose="primary", may_be_stale="primary"),
    Scenario(name="password-rotated", strike=clients.password_rotated, fleet=with_login),
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
        may_be_stale="primary",
    ),
    Scenario(name="replies-cut", strike=clients.replies_cut, lab={"proxies": True}),
    Scenario(
        name="slow-link",
        strike=clients.slow_link,
        topologies=ALL,
        may_lose="primary",
        may_be_stale="primary",
        lab={"proxies": True},
        fleet=impatient,
    ),
    Scenario(
        name="deaf-listener",
        strike=clients.deaf_listener,
        topologies=("sentinel",),
        # No process hears of the first promotion: until it asks, it writes to the old primary, whatever confirms that.
        may_lose="always",
        may_be_stale="always",
        fleet=behind_nat,
    ),
    Scenario(
        name="mixed-fleet",
        strike=clients.mixed_memory,
        topologies=ALL,
        lab={"proxies": True},
        may_lose="primary",
        may_be_stale="primary",
        fleet=mixed,
    ),
    Scenario(
        name="eviction-any",
        strike=evictions.evict_any,
        topologies=ALL,
        may_lose="always",
        counts_versions=False,
        lab={"proxies": True},
    ),
    Scenario(
        name="eviction-volatile",
        strike=evictions.evict_volatile,
        topologies=ALL,
        lab={"proxies": True},
    ),
    Scenario(name="worker-killed", strike=servers.worker_killed),
)

BY_NAME: Mapping[str, Scenario] = {scenario.name: scenario for scenario in SCENARIOS}
