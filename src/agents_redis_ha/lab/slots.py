"""Moving a slot, step by step."""

from __future__ import annotations

from collections.abc import Callable

from redis.exceptions import ResponseError

from .node import Node
from .ports import HOST

_BATCH = 10  # keys; a batch blocks both servers, as redis-cli's does
_MIGRATE_MS = 5_000


class SlotMove:
    """A slot between two primaries: `IMPORTING` here and `MIGRATING` there.

    Attributes:
        slot: Its number.
        source: The primary that owns it until `finish`.
        target: The primary that will.
        finished: Whether the target owns it.
    """

    def __init__(
        self,
        slot: int,
        source: Node,
        target: Node,
        *,
        password: str | None,
        announce: Callable[[int, Node], None],
    ) -> None:
        self.slot = slot
        self.source = source
        self.target = target
        self.finished = False
        self._password = password
        self._announce = announce
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))

    def keys_left(self) -> int:
        """Return how many keys of the slot the source still has."""
        return int(self.source.ask("CLUSTER", "COUNTKEYSINSLOT", self.slot))

    def migrate_keys(self, count: int | None = None) -> int:
        """Move keys, a few at a time, and return how many went.

        Args:
            count: At most so many; None moves all that the source has.

        Raises:
            redis.exceptions.ResponseError: `BUSYKEY`, if the target has one of the keys already:
            nothing is overwritten.
        """
        moved = 0
        while count is None or moved < count:
            batch = _BATCH if count is None else min(_BATCH, count - moved)
            keys: list[str] = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, batch)
            if not keys:
                break
            login: list[str] = ["AUTH", self._password] if self._password else []
            self.source.ask("MIGRATE", HOST, self.target.port, "", 0, _MIGRATE_MS, *login, "KEYS", *keys)
            moved += len(keys)
        return moved

    def finish(self) -> None:
        """Move the remaining keys and the slot, and return when every member knows."""
        if self.finished:
            return
        while True:
            self.migrate_keys()
            try:
                self._announce(self.slot, self.target)
                break
            except ResponseError as error:
                # A key was written to the source since; it holds on to the slot until that has
                # moved as well.
                if "keys in it" not in str(error) and "hash slot" not in str(error):
                    raise
        self.finished = True
