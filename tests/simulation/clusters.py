"""A cluster of three shards, each a primary and a replica on hosts of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agents_redis_ha import session_keys
from tests.failover.campaign.history import Call
from tests.failover.campaign.marks import Mark
from tests.simulation.bus import Member, form
from tests.simulation.machines import PORT, PREFIX, Machine, read_stored

if TYPE_CHECKING:
    from tests.simulation.world import World

_LOOK_SECONDS = 0.05
_FORMING_SECONDS = 1.5
_BATCH = b"10"
_TRIES = 200
_AGAIN_SECONDS = 0.2


class Cluster:
    """The members; see `topologies.Servers`. The primary that faults speak of is the first session's."""

    def __init__(self, world: World) -> None:
        settings = world.plan.settings
        self._world = world
        shards = settings["shards"]
        names = [f"c{number}" for number in range(2 * shards)]
        self.machines = [Machine(world, name, settings["config"]) for name in names]
        self.data_hosts, self.hosts = set(names), names
        self.removals: list[Call] = []
        self.promotions = 0
        self._shards = [[self.machines[at], self.machines[at + shards]] for at in range(shards)]
        self._slots = {name: session_keys(PREFIX, name).slot for name in world.plan.sessions}
        self._members: dict[str, Member] = {}
        self._moves: dict[int, asyncio.Future[None]] = {}

    def addresses(self) -> Mapping[str, Any]:
        """Return the fields of a configuration that lead to the cluster."""
        return {"topology": "cluster", "nodes": [f"{machine.name}:{PORT}" for machine in self.machines[:3]]}

    async def start(self) -> None:
        """Form the cluster, and return when its members know one another."""
        formed = form([[machine.server for machine in shard] for shard in self._shards])
        self._members = {member.server.host: member for member in formed}
        await asyncio.sleep(_FORMING_SECONDS)
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        """Notice when another server takes over."""
        before = self._primaries()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._primaries()
            for name in sorted(now - before):
                self._world.note(name, "is a primary")
                self._world.note_loss()
                self.promotions += 1
            before = now

    def _primaries(self) -> set[str]:
        return {
            name
            for name, member in self._members.items()
            if member.server.is_up and member.me.primary is None and member.me.slots
        }

    def owner(self, slot: int) -> Machine:
        """Return the server that owns a slot by its own view; of several the one of the highest epoch."""
        own = [
            machine
            for machine in self.machines
            if machine.is_up and self._members[machine.name].slots.owners[slot] == self._members[machine.name].id
        ]
        best = max(own, key=lambda machine: self._members[machine.name].me.config_epoch, default=None)
        return best or self.machines[0]

    def primary(self) -> Machine:
        """Return the owner of the first session."""
        return self.owner(next(iter(self._slots.values())))

    def is_well(self) -> bool:
        """Whether all members that are up agree, and serve, and no slot moves."""
        if not all(move.done() for move in self._moves.values()):
            return False
        up = [member for member in self._members.values() if member.server.is_up]
        views = {tuple(member.slots.owners) for member in up}
        # One that was replaced while a slot came to it has that one left, and stays a primary.
        return len(views) == 1 and all(member.is_ok for member in up) and len(self._primaries()) >= len(self._shards)

    def stored(self, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
        """Return each session's items on the server that owns it."""
        found: dict[str, list[Mark | None]] = {}
        for name in sessions:
            found.update(read_stored(self.owner(self._slots[name]), [name]))
        return found

    def fail_over(self, number: int) -> None:
        """CLUSTER FAILOVER, given to a replica."""
        machine = self.machines[number]
        if machine.is_up and self._members[machine.name].me.primary is not None:
            machine.ask(b"CLUSTER", b"FAILOVER")

    def move_slot(self, session: str, pause: float) -> None:
        """Move a session's slot to another primary, a few keys at a time, as redis-cli does: no slot twice at once."""
        slot = self._slots[session]
        self._moves[slot] = asyncio.ensure_future(self._move(slot, pause, self._moves.get(slot)))

    async def _move(self, slot: int, pause: float, before: asyncio.Future[None] | None) -> None:
        if before is not None:
            await before
        source = self.owner(slot)
        others = [machine for machine in self.machines if self._is_primary(machine) and machine is not source]
        if not others:
            return
        target, text = others[slot % len(others)], b"%d" % slot
        ids = [self._members[machine.name].id.encode() for machine in (source, target)]
        self._world.note(source.name, f"slot {slot} moves to {target.name}")
        target.ask(b"CLUSTER", b"SETSLOT", text, b"IMPORTING", ids[0])
        source.ask(b"CLUSTER", b"SETSLOT", text, b"MIGRATING", ids[1])
        if await self._move_keys(source, target, text, pause) and self.owner(slot) is source:
            heir = self._members[target.name].me.primary  # where the target has handed over meanwhile
            to = next((name for name, member in self._members.items() if member.id == heir), target.name)
            target = next(machine for machine in self.machines if machine.name == to)
            for machine in (target, source, *self.machines):
                machine.ask(b"CLUSTER", b"SETSLOT", text, b"NODE", self._members[to].id.encode())
                await asyncio.sleep(pause / 4)
            self._world.note(target.name, f"has slot {slot}")
        else:
            self._world.note(source.name, f"slot {slot} stays")
            self._world.note_strays()
            for machine in (source, target):
                await self._end_move(machine, text)

    def _is_primary(self, machine: Machine) -> bool:
        """Whether a server is a primary, and not one that has not heard yet of its successor."""
        slots = self._members[machine.name].me.slots
        return machine.name in self._primaries() and self.owner(next(iter(slots))) is machine

    async def _end_move(self, machine: Machine, slot: bytes) -> None:
        """Have a server forget that a slot moves, as soon as it is there: what it had noted it knows after a crash."""
        for _ in range(_TRIES):
            if machine.is_up and await machine.ask_later(b"CLUSTER", b"SETSLOT", slot, b"STABLE") is not None:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _move_keys(self, source: Machine, target: Machine, slot: bytes, pause: float) -> bool:
        """Move the keys of a slot; return whether all have moved.

        A server that stands still is waited for: it is not known what has moved. One that refuses has kept what it had.
        """
        for _ in range(_TRIES):
            await asyncio.sleep(pause)
            reply = keys = source.ask(b"CLUSTER", b"GETKEYSINSLOT", slot, _BATCH)
            if keys == []:
                return True
            if isinstance(keys, list):
                where = (target.name.encode(), b"%d" % PORT, b"", b"0", b"1000")
                reply = await source.ask_later(b"MIGRATE", *where, b"KEYS", keys[0])
            if isinstance(reply, Exception) or not source.is_up:
                return False
            if reply is None:
                await asyncio.sleep(_AGAIN_SECONDS)
        return False
