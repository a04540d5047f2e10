"""The servers of a topology: how they are started, which is the primary, and what is stored in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark
from tests.simulation.clusters import Cluster
from tests.simulation.machines import PORT, Machine, read_stored
from tests.simulation.sentinels.servers import WithSentinels

if TYPE_CHECKING:
    from tests.simulation.world import World


_SYNC_SECONDS = 1.0


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


class StableName:
    """A primary and a replica behind a name, which leads to the other one after a failover, as in a managed service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.machines = [Machine(world, name, world.plan.settings["config"]) for name in ("n0", "n1")]
        for machine in self.machines:  # a proxy may tell one that never changes
            machine.server.replication.told_id = world.plan.settings.get("told_id")
        self.data_hosts = {"n0", "n1"}
        self.hosts = ["n0", "n1"]
        self.removals: list[Call] = []
        self.promotions = 0
        world.network.names["redis"] = "n0"

    def addresses(self) -> Mapping[str, Any]:
        return {"nodes": ["redis"]}

    async def start(self) -> None:
        """Let the replica have a copy."""
        self.machines[1].ask(b"REPLICAOF", b"n0", b"%d" % PORT)
        await asyncio.sleep(_SYNC_SECONDS)

    def is_well(self) -> bool:
        primary = self.primary()
        return primary.is_up and (primary.ask(b"ROLE") or [None])[0] == b"master"

    def primary(self) -> Machine:
        return next(machine for machine in self.machines if machine.name == self._world.network.names["redis"])

    def move_name(self, seconds: float) -> None:
        """Let the other server take over, and the name lead to it; the old one goes on for a while."""
        old = self.primary()
        new = next(machine for machine in self.machines if machine is not old)
        if not new.is_up or (new.ask(b"ROLE") or [None])[0] != b"slave":  # it was replaced a moment ago
            return
        new.ask(b"REPLICAOF", b"NO", b"ONE")
        self.promotions += 1
        self._world.note_loss()
        self._world.network.names["redis"] = new.name
        self._world.note("name", f"leads to {new.name}")

        def demote() -> None:
            if self.primary() is not new:
                return
            if old.is_up:
                old.ask(b"REPLICAOF", new.name.encode(), b"%d" % PORT)
            # Until now, or until it ended, it took what old connections led to it.
            self._world.note_loss(None if old.is_up else old.ended_at)

        self._world.heal_later(seconds, demote)

    def stored(self, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
        return read_stored(self.primary(), sessions)


def make_servers(world: World) -> Servers:
    """Return the servers of a plan's topology."""
    if world.plan.topology == "standalone":
        return Standalone(world)
    if world.plan.topology == "name":
        return StableName(world)
    if world.plan.topology == "sentinel":
        return WithSentinels(world)
    if world.plan.topology == "cluster":
        return Cluster(world)
    raise ValueError(f"no such topology: {world.plan.topology!r}")
