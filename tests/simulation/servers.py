"""The servers of a topology: how they are started and broken, which is the primary, and what is stored in the end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hiredis import Reader

from agents_redis_ha import session_keys
from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark, find_mark
from tests.simulation.randomness import EPOCH_SECONDS
from tests.simulation.redis.server import Server

if TYPE_CHECKING:
    from tests.simulation.world import World

PREFIX = "agents:ha"
PORT = 6379


class Servers(Protocol):
    """What a topology knows.

    Attributes:
        data_hosts: The hosts of the servers that keep sessions.
        machines: These servers.
        removals: What they removed by themselves.
        promotions: How often another one became the primary.
    """

    data_hosts: set[str]
    machines: list[Machine]
    removals: list[Call]
    promotions: int

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


class Clock:
    """A server's wall clock, which may drift and step."""

    def __init__(self, world: World, drift: float = 0.0) -> None:
        self._loop = world.loop
        self._rate = 1.0 + drift
        self._offset = EPOCH_SECONDS

    def __call__(self) -> float:
        return self._loop._now * self._rate + self._offset

    def step(self, seconds: float) -> None:
        """Put it forward, or back."""
        self._offset += seconds


class Machine:
    """A host with one server.

    Attributes:
        name: The host's name.
        server: The server's process and its files.
        clock: Its wall clock.
        is_up: Whether the server runs.
    """

    def __init__(self, world: World, name: str, config: Mapping[str, str], *, drift: float = 0.0) -> None:
        self._world = world
        self.name = name
        self.clock = Clock(world, drift)
        self.is_up = True
        loop, network = world.loop, world.network

        def call_later(seconds: float, callback: Any) -> Any:
            return loop.deliver_at(loop._now + seconds, None, callback)

        self.server = Server(
            f"{name}:{PORT}",
            clock=self.clock,
            call_later=call_later,
            random=world.seed.stream(f"server/{name}"),
            dial=lambda host, port, receive, closed: network.dial(name, host, port, receive, closed),
            version=world.plan.settings.get("version", "7.0.15"),
            config=config,
        )
        network.listen(name, PORT, self.server)  # type: ignore[arg-type]

    def crash(self, *, silently: bool = False) -> None:
        """End the server's process at once.

        Args:
            silently: What it sent in this moment does not leave, as if it died before it had written it.
        """
        if not self.is_up:
            return
        self.is_up = False
        world = self._world
        if silently:
            for flow in world.network.flows_of(self.name):
                pipe = flow.back if flow.server == self.name else flow.there
                pipe.dropped_from = world.loop.time()
        world.network.deafen(self.name, PORT)
        self.server.crash()  # type: ignore[attr-defined]

    def restart(self, keep: str) -> None:
        """Start it again.

        Args:
            keep: What of its data is still there, as `Server.restart` takes it.
        """
        if self.is_up:
            return
        self.is_up = True
        self._world.note(self.name, f"starts again and keeps {keep}")
        self.server.restart(keep)  # type: ignore[attr-defined]
        self._world.network.listen(self.name, PORT, self.server)  # type: ignore[arg-type]

    def ask(self, *command: bytes) -> Any:
        """Return the reply to a command, which no network delays."""
        reader = Reader(replyError=Exception)
        connection = self.server.connect("world:0", reader.feed, lambda: None)
        connection.receive(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(c), c) for c in command))
        reply = reader.gets()
        connection.closed()
        return reply


class Standalone:
    """One server."""

    def __init__(self, world: World) -> None:
        settings = world.plan.settings
        self.machines = [Machine(world, "redis", settings.get("config", {}), drift=settings.get("drift", 0.0))]
        self.data_hosts = {"redis"}
        self.removals: list[Call] = []
        self.promotions = 0

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


def read_stored(machine: Machine, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
    """Return each session's items on a server, oldest first; None for an element without a mark of that session."""
    found: dict[str, list[Mark | None]] = {}
    for name in sessions:
        key = session_keys(PREFIX, name).items
        elements = machine.ask(b"LRANGE", key, b"0", b"-1")
        found[name] = [_mark_of(element, name) for element in elements] if isinstance(elements, list) else []
    return found


def _mark_of(element: bytes, session: str) -> Mark | None:
    try:
        return find_mark(json.loads(element), session)
    except ValueError:
        return None


def make_servers(world: World) -> Servers:
    """Return the servers of a plan's topology."""
    if world.plan.topology == "standalone":
        return Standalone(world)
    raise ValueError(f"no such topology: {world.plan.topology!r}")
