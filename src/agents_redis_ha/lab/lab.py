"""What every lab can do, whatever its topology."""

from __future__ import annotations

from collections.abc import Callable

from .authorities import Authorities
from .conditions import Conditions
from .errors import LabError
from .moves import Moves
from .node import Node
from .partitions import Partitions
from .passwords import Passwords
from .slots import SlotMove


class Lab(Conditions, Moves, Partitions, Passwords, Authorities):
    """Real servers on 127.0.0.1, as child processes, with faults.

    Made by `start`; as a context manager it closes itself.

    All methods block: asynchronous code calls them by `asyncio.to_thread`.

    Attributes:
        topology: "standalone", "sentinel" or "cluster".
        nodes: The data servers, primaries and replicas; the order never changes.
        sentinels: The Sentinels, if any.
        start_seconds: How long the start took until everything was ready.
    """

    def __enter__(self) -> Lab:
        return self

    def begin_slot_move(self, slot: int, target: Node | None = None) -> SlotMove:
        """Start to move a slot: the source answers ASK for the keys that it does not have.

        Args:
            slot: 0 to 16383.
            target: A primary; None takes the one after the slot's owner.

        Raises:
            LabError: Not a cluster, or the target is no other primary.
        """
        raise LabError(f"a {self.topology} lab has no slots")

    def move_slot(self, slot: int, target: Node | None = None, *, pause: Callable[[], object] | None = None) -> Node:
        """Move a slot with its keys to another primary of the cluster, while clients go on.

        Args:
            slot: 0 to 16383.
            target: A primary; None takes the one after the slot's owner.
            pause: Called once, when half of the slot's keys have moved.

        Returns:
            The new owner.

        Raises:
            LabError: Not a cluster, or the target is no other primary.
        """
        move = self.begin_slot_move(slot, target)
        if pause is not None:
            move.migrate_keys(move.keys_left() // 2)
            pause()
        move.finish()
        return move.target
