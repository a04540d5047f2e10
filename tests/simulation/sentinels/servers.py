"""A primary, replicas and Sentinels, on a host each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark
from tests.simulation.machines import PORT, Clock, Machine, read_stored
from tests.simulation.sentinels.commands import Desk
from tests.simulation.sentinels.instance import NONE, Address
from tests.simulation.sentinels.sentinel import Sentinel

if TYPE_CHECKING:
    from tests.simulation.world import World

SERVICE = "mymaster"
_SENTINEL_PORT = 26379
_START_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_TIE_LOOK_SECONDS, _TIE_SECONDS = 1.0, 15.0


class SentinelMachine:
    """A host with one Sentinel.

    Attributes:
        name: The host's name.
        sentinel: The Sentinel.
        clock: Its wall clock.
    """

    def __init__(self, world: World, name: str, primary: Address, settings: Mapping[str, Any]) -> None:
        self._world = world
        self.name = name
        self.clock = Clock(world)
        loop, network = world.loop, world.network

        def dial(address: Address, receive: Callable[[bytes], None], closed: Callable[[], None]) -> Any:
            return network.call(name, *address, receive, closed)

        self.sentinel = Sentinel(
            (name, _SENTINEL_PORT),
            clock=self.clock,
            later=lambda seconds, action: loop.deliver_at(loop._now + seconds, None, action),
            stream=world.seed.stream(f"sentinel/{name}"),
            dial=dial,
            service=SERVICE,
            primary=primary,
            quorum=settings.get("quorum", 2),
            down_after=settings.get("down_after", 1.0),
            failover_timeout=settings.get("failover_timeout", 10.0),
        )
        self._desk = Desk(self.sentinel, self._hear)
        self._promotes = False

    def _hear(self, channel: str, message: str) -> None:
        self._world.note(self.name, f"{channel} {message}")
        if channel in ("+failover-state-wait-promotion", "+promoted-slave"):
            self._world.note_loss()
        if channel == "+failover-state-wait-promotion":  # a replica is told in this moment
            self._world.note_takeover(message.split()[2])
            self._promotes = True
        if channel == "+switch-master":  # of two that fail over at the same time, one gives way
            self._world.note_takeover(message.split()[3])
            self._promotes = False
        if channel.startswith("-failover-abort"):
            self._give_up()

    def start(self) -> None:
        """Start the process."""
        if not self.sentinel.is_up:
            self.sentinel.start()
            self._world.network.listen(self.name, _SENTINEL_PORT, self._desk)

    def crash(self) -> None:
        """End the process."""
        if self.sentinel.is_up:
            self._world.network.deafen(self.name, _SENTINEL_PORT)
            self.sentinel.stop()
            self._desk.end()
            self._give_up()

    def _give_up(self) -> None:
        """Note that it is open whether the others hear of a promotion that this one began, or undo it."""
        if self._promotes:
            self._world.note_takeover(None)
        self._promotes = False

    def ask(self, *command: bytes) -> Any:
        """Give a command by hand."""
        from tests.simulation.sentinels.commands import answer

        return answer(self.sentinel, command[0].lower(), list(command[1:]))


class WithSentinels:
    """A primary, two replicas and three Sentinels; see `servers.Servers`."""

    def __init__(self, world: World) -> None:
        settings = world.plan.settings
        self._world = world
        names = [f"r{number}" for number in range(1 + settings.get("replicas", 2))]
        self.machines = [Machine(world, name, settings.get("config", {})) for name in names]
        first = (names[0], PORT)
        self.sentinels = [
            SentinelMachine(world, f"s{number}", first, settings) for number in range(settings.get("sentinels", 3))
        ]
        self.data_hosts = set(names)
        self.hosts = [*names, *(each.name for each in self.sentinels)]
        self.removals: list[Call] = []

    def addresses(self) -> Mapping[str, Any]:
        """Return the fields of a configuration that lead to the Sentinels."""
        configured = self._world.plan.settings.get("configured", len(self.sentinels))
        nodes = [f"{each.name}:{_SENTINEL_PORT}" for each in self.sentinels[:configured]]
        return {"topology": "sentinel", "nodes": nodes, "service_name": SERVICE}

    async def start(self) -> None:
        """Start them, and return when they know one another."""
        primary, *replicas = self.machines
        for each in replicas:
            each.ask(b"REPLICAOF", primary.name.encode(), b"%d" % PORT)
        sentinels = [each.sentinel for each in self.sentinels]
        for sentinel in sentinels:
            sentinel.know([(replica.name, PORT) for replica in replicas], sentinels)
        for machine in self.sentinels:
            machine.start()
        deadline = self._world.loop.time() + _START_SECONDS
        while not (self.is_well() and self._is_complete()):
            if self._world.loop.time() > deadline:
                raise TimeoutError("the Sentinels do not find their servers")
            await asyncio.sleep(_LOOK_SECONDS)
        self._operating = asyncio.ensure_future(self._operate())

    async def _operate(self) -> None:
        """End a tie, as a person has to: two primaries under one epoch, of which no Sentinel gives one up.

        A failover by hand takes the next epoch without a vote. If that Sentinel is cut off, the others elect one in the
        same epoch.
        """
        since: float | None = None
        while True:
            await asyncio.sleep(_TIE_LOOK_SECONDS)
            views = [each.sentinel for each in self.sentinels if each.sentinel.is_up]
            is_tied = len({each.config_epoch for each in views}) == 1 < len({each.primary.address for each in views})
            now = self._world.loop.time()
            since = (since or now) if is_tied else None
            if since is not None and now - since > _TIE_SECONDS:
                primary = (self.primary().name, PORT)
                named = next(each for each in self.sentinels if each.sentinel.primary.address == primary)
                named.ask(b"SENTINEL", b"FAILOVER", SERVICE.encode())
                since = None

    @property
    def promotions(self) -> int:
        """How often another server became the primary."""
        return max(each.sentinel.config_epoch for each in self.sentinels)

    def primary(self) -> Machine:
        """Return the server that most Sentinels take for the primary."""
        named = [each.sentinel.current_address()[0] for each in self.sentinels]
        most = max(named, key=named.count)
        return next(each for each in self.machines if each.name == most)

    def is_well(self) -> bool:
        """Whether all Sentinels agree on one primary, which is the only one, and no failover is under way.

        A failover that is called off may leave the promoted server a primary, which clients use until a Sentinel has
        made it a replica again, 8 s later.
        """
        if not all(each.sentinel.is_up for each in self.sentinels):
            return False
        if len({each.sentinel.current_address() for each in self.sentinels}) > 1:
            return False
        primary = self.primary()
        primaries = [each for each in self.machines if each.is_up and (each.ask(b"ROLE") or [None])[0] == b"master"]
        return primaries == [primary] and all(map(_is_calm, self.sentinels))

    def _is_complete(self) -> bool:
        """Whether every Sentinel sees every server, and all replicas follow."""
        offsets = self.machines[0].ask(b"ROLE")[2]
        return len(offsets) == len(self.machines) - 1 and all(map(_sees_all, self.sentinels))

    def stored(self, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
        """Return each session's items on the primary."""
        return read_stored(self.primary(), sessions)


def _is_calm(machine: SentinelMachine) -> bool:
    sentinel = machine.sentinel
    return sentinel.state == NONE and not sentinel.primary.is_down and sentinel.primary.is_connected


def _sees_all(machine: SentinelMachine) -> bool:
    sentinel = machine.sentinel
    known = [sentinel.primary, *sentinel.replicas.values()]
    return all(each.info_at and not each.open_ping for each in known)
