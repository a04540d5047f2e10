"""A host with one server, how it is broken, and what is stored there in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agents_redis_ha import session_keys
from tests.failover.campaign.marks import Mark, find_mark
from tests.simulation.randomness import EPOCH_SECONDS
from tests.simulation.reading import Reader
from tests.simulation.redis.server import Server
from tests.simulation.resp import encode_request

if TYPE_CHECKING:
    from tests.simulation.world import World

PREFIX = "agents:ha"
PORT = 6379
_TRIES, _LOOK_SECONDS = 200, 0.01


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
        ended_at: When it ended last (loop time).
    """

    def __init__(self, world: World, name: str, config: Mapping[str, str], *, drift: float = 0.0) -> None:
        self._world = world
        self.name = name
        self.clock = Clock(world, drift)
        self.is_up = True
        self.ended_at = 0.0
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
        network.listen(name, PORT, self.server)

    def crash(self, *, silently: bool = False) -> None:
        """End the server's process at once.

        Args:
            silently: What it sent in this moment does not leave, as if it died before it had written it.
        """
        if not self.is_up:
            return
        self.is_up = False
        world = self._world
        self.ended_at = world.loop.time()
        flows = world.network.flows_of(self.name) if silently else []
        for flow in flows:
            pipe = flow.back if flow.server == self.name else flow.there
            pipe.dropped_from = world.loop.time()
        world.network.deafen(self.name, PORT)
        self.server.crash()
        for flow in flows:  # the system is still there, and answers for the process
            flow.vanish(self.name)

    def restart(self, keep: Any) -> None:
        """Start it again.

        Args:
            keep: What of its data is still there, as `Server.restart` takes it.
        """
        if self.is_up:
            return
        self.is_up = True
        self._world.note(self.name, f"starts again and keeps {keep}")
        if keep != "all":
            self._world.note_loss()
        self.server.restart(keep)
        self._world.network.listen(self.name, PORT, self.server)

    async def ask_later(self, *command: bytes) -> Any:
        """Return the reply to a command that takes its time; None if none comes within two seconds."""
        reader = Reader(replyError=Exception)
        connection = self.server.connect("world:0", reader.feed, lambda: None)
        connection.receive(encode_request(*command))
        reply = reader.gets()
        for _ in range(_TRIES):
            if reply is not False:
                break
            await asyncio.sleep(_LOOK_SECONDS)
            reply = reader.gets()
        connection.closed()
        return None if reply is False else reply

    def ask(self, *command: bytes) -> Any:
        """Return the reply to a command, which no network delays; None where the server does not read now."""
        reader = Reader(replyError=Exception)
        connection = self.server.connect("world:0", reader.feed, lambda: None)
        connection.receive(encode_request(*command))
        reply = reader.gets()
        connection.closed()
        return None if reply is False else reply


def read_stored(machine: Machine, sessions: Iterable[str]) -> dict[str, list[Mark | None]]:
    """Return each session's items on a server, oldest first; None for an element without a mark of that session.

    They are read where they lie: a server that serves nobody in this moment has them all the same.
    """
    found: dict[str, list[Mark | None]] = {}
    for name in sessions:
        elements = machine.server.keyspace.list(session_keys(PREFIX, name).items) or []
        found[name] = [_mark_of(element, name) for element in elements]
    return found


def _mark_of(element: bytes, session: str) -> Mark | None:
    try:
        return find_mark(json.loads(element), session)
    except ValueError:
        return None
