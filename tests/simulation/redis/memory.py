"""How much memory a server uses, roughly, and what it evicts when that is too much (evict.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .keyspace import size_of

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Memory"]

_SAMPLES = 5


class Memory:
    """The memory of one server.

    Attributes:
        limit: ``maxmemory`` in bytes, 0 = none.
        policy: ``maxmemory-policy``.
        is_full: Whether the request that runs met a full memory.
    """

    REFUSAL = "OOM command not allowed when used memory > 'maxmemory'."
    BASE = 900_000  # what an empty server takes

    def __init__(self, server: Server) -> None:
        self._server = server
        self._used_at: dict[bytes, float] = {}
        self.limit = 0
        self.policy = "noeviction"
        self.is_full = False

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self.BASE + sum(size_of(key, value) for key, value in self._server.keyspace.values.items())

    def configure(self, limit: int, policy: str) -> None:
        """Take new settings."""
        self.limit, self.policy, self.is_full = limit, policy, False
        uses_time = policy.endswith(("-lru", "-lfu"))
        self._server.keyspace.on_access = self._note if uses_time else None

    def _note(self, key: bytes) -> None:
        self._used_at[key] = self._server.clock()

    def make_room(self) -> None:
        """Evict keys until the memory suffices; `is_full` tells whether it does not."""
        used = self.used
        self.is_full = used > self.limit and not self._evict(used)

    def _evict(self, used: int) -> bool:
        server = self._server
        if self.policy == "noeviction" or server.replication.primary is not None:
            return server.replication.primary is not None
        while used > self.limit:
            victim = self._victim()
            if victim is None:
                return False
            used -= size_of(victim, server.keyspace.values[victim])
            server.keyspace.delete(victim)
            server.stats["evicted_keys"] += 1
            server.replication.feed([[b"DEL", victim]])
        return True

    def _victim(self) -> bytes | None:
        keyspace, random = self._server.keyspace, self._server.random
        keys = list(keyspace.expires if self.policy.startswith("volatile") else keyspace.values)
        if not keys:
            return None
        sample = random.sample(keys, min(_SAMPLES, len(keys)))
        if self.policy.endswith("random"):
            return sample[0]
        if self.policy.endswith("ttl"):
            return min(sample, key=lambda key: keyspace.expires[key])
        return min(sample, key=lambda key: self._used_at.get(key, 0.0))
