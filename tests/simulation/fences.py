"""While a repair waits for other processes, no process reads or changes the session (guarantees.md, "is lost")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agents_redis_ha import session_keys
from tests.failover.campaign.history import Status
from tests.simulation.machines import PREFIX

if TYPE_CHECKING:
    from tests.simulation.world import Run, World

_FIELD = b"fence"


class Fences:
    """Sees when a session's write fence stands, on a server that no other one can take over from.

    Attributes:
        seen: The sessions, each with when its fence was seen first and last.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._keys = [(name, session_keys(PREFIX, name).meta) for name in world.plan.sessions]
        self._standing: dict[str, int] = {}
        self.seen: list[tuple[str, float, float]] = []

    def look(self) -> None:
        """Look at the fences before a request: only a request raises one, or lifts it."""
        world = self._world
        if world.plan.topology != "standalone":
            return
        values, now = world.servers.primary().server.keyspace.values, world.loop.time()
        for name, key in self._keys:
            meta = values.get(key)
            if not isinstance(meta, dict) or _FIELD not in meta:
                self._standing.pop(name, None)
            elif name in self._standing:
                self.seen[self._standing[name]] = (name, self.seen[self._standing[name]][1], now)
            else:
                self._standing[name] = len(self.seen)
                self.seen.append((name, now, now))


def passed(run: Run) -> Iterator[str]:
    """Yield what was read or changed while the session's write fence stood.

    A server that stood still has lifted and raised it again, maybe, before any look.
    """
    if "pause-server" in run.struck:
        return
    for session, began, ended in run.fences:
        for call in run.calls:
            is_within = call.session == session and began < call.begin and call.end < ended
            if is_within and call.status is Status.OK and not call.error:
                yield f"fence: {session}: {call.op.value} #{call.number} of {call.worker} at {call.begin:.3f}"
