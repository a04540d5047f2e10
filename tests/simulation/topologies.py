"""The servers of a topology: how they are started, which is the primary, and what is stored in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark
from tests.simulation.clusters import Cluster
from tests.simulation.machines import Machine, read_stored
from tests.simulation.sentinels.servers import WithSentinels

if TYPE_CHECKING:
    from tests.simulation.world import World


class Servers(Protocol):
    """What a topology knows.

    Attributes:
        data_hosts: The hosts of the servers that keep sessions.
        hosts: All hosts of servers.
        machines: These servers.
        removals: What they removed by themselves.
        promotions: How often another one became the primary.
    """

    data_hosts: set[str]
    hosts: list[str]
    machines: list[Machine]
    removals: list[Call]

    @property
    def promotions(self) -> int: ...

    def addresses(self) -> Mapping[str, Any]:
        """Return the fields of a configuration that lead to them."""

    async def start(self) -> None:
        """Start them, and return when they are well."""

    def is_well(self) -> bool:
        """Whether they can be used."""

    def primary(self) -> Machine:
        """Return the one that takes writes."""

    def stored(self, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
        """Return each session's items, past the library's read path."""


class Standalone:
    """One server."""

    def __init__(self, world: World) -> None:
        settings = world.plan.settings
        self.machines = [Machine(world, "redis", settings.get("config", {}), drift=settings.get("drift", 0.0))]
        self.data_hosts = {"redis"}
        self.hosts = ["redis"]
        self.removals: list[Call] = []

    promotions = 0

    def addresses(self) -> Mapping[str, Any]:
        return {"nodes": ["redis"]}

    async def start(self) -> None:
        """It is there at once."""

    def is_well(self) -> bool:
        return self.machines[0].is_up

    def primary(self) -> Machine:
        return self.machines[0]

    def stored(self, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
        return read_stored(self.primary(), sessions)


def make_servers(world: World) -> Servers:
    """Return the servers of a plan's topology."""
    if world.plan.topology == "standalone":
        return Standalone(world)
    if world.plan.topology == "sentinel":
        return WithSentinels(world)
    if world.plan.topology == "cluster":
        return Cluster(world)
    raise ValueError(f"no such topology: {world.plan.topology!r}")
