"""The fault that strikes in the middle of a run, and its repair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..lab import Lab
from .servers import FaultName, has_successor
from .sessions import SessionPlan, items_key, slot_of

Say = Callable[[str], None]

DOWN_SECONDS = 1.5
STALL_SECONDS = 5.0
LATE_SECONDS = 1.5
HALF_MOVED_SECONDS = 0.1
MOVED_SLOTS = 12


def why_not(fault: FaultName, topology: str) -> str | None:
    """Why a fault cannot strike a topology; ``None`` if it can."""
    if fault == "move-slot" and topology != "cluster":
        return "slots can be moved in a cluster only: add --topology cluster"
    return None


class Fault(Protocol):
    """What happens to the servers in the middle of a run.

    Attributes:
        takeover_seconds: From the fault to the election of a new primary; ``None`` without one.
        slots_moved: Slots moved away and back.
    """

    takeover_seconds: float | None
    slots_moved: int

    @property
    def failure(self) -> str | None:
        """Why the fault was not what it should have been; ``None`` if it was."""
        ...

    @property
    def struck(self) -> bool:
        """Whether it has begun."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing is broken any more, or never was."""
        ...

    def strike(self, conversation_ids: Sequence[str]) -> None:
        """Begin where these conversations are stored; those with the most turns to come are named first."""
        ...

    def settle(self, timeout_seconds: float) -> None:
        """Wait until it is over and the servers are well again."""
        ...


class NoFault:
    """The fault on servers that the demo did not start: none."""

    takeover_seconds: float | None = None
    slots_moved = 0
    failure: str | None = None
    struck = False
    over = True

    def strike(self, conversation_ids: Sequence[str]) -> None:
        """Do nothing."""

    def settle(self, timeout_seconds: float) -> None:
        """Do nothing."""


class FaultRun:
    """A fault that runs beside the turns, in a thread of its own.

    Args:
        fault: What happens.
        servers: What it happens to. Nothing else may use it until the fault is over.
        plan: How conversations are stored.
        say: Told what happens, when it happens; called from the thread.
    """

    def __init__(self, fault: FaultName, servers: Lab, plan: SessionPlan, say: Say) -> None:
        self._fault = fault
        self._servers = servers
        self._plan = plan
        self._say = say
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None
        self.takeover_seconds: float | None = None
        self.slots_moved = 0

    @property
    def failure(self) -> str | None:
        """Why the fault was not what it should have been; ``None`` if it was."""
        if self._fault != "none" and not self.struck:
            return "the run was over before it could strike"
        return None if self.error is None else str(self.error)

    @property
    def struck(self) -> bool:
        """Whether it has begun."""
        return self._thread is not None

    @property
    def over(self) -> bool:
        """Whether nothing is broken any more, or never was."""
        if self._fault == "none":
            return True
        return self._thread is not None and not self._thread.is_alive()

    def strike(self, conversation_ids: Sequence[str]) -> None:
        """Begin.

        Args:
            conversation_ids: Conversations under way; those with the most turns to come first. A
                cluster is hit where the first of them is stored.
        """
        self._thread = threading.Thread(target=self._run, args=(list(conversation_ids),), name="fault", daemon=True)
        self._thread.start()

    def settle(self, timeout_seconds: float) -> None:
        """Wait until it is over and the servers are well again."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._servers.wait_ready()

    def _run(self, conversation_ids: list[str]) -> None:
        try:
            if self._fault == "move-slot":
                self._move_slots(conversation_ids)
            else:
                self._hit_primary(conversation_ids)
            self._servers.wait_ready()
            self._say("all servers are up and agree")
        except Exception as error:  # noqa: BLE001 (shown in the report: without its fault a run proves nothing)
            self.error = error
            self._say(f"the fault could not be played to its end: {error}")

    def _hit_primary(self, conversation_ids: list[str]) -> None:
        """Kill or freeze a primary, wait for its successor, and bring the old one back."""
        servers = self._servers
        kill = self._fault == "kill"
        key = items_key(self._plan.kind, self._plan.config, conversation_ids[0])
        old = servers.primary(key)
        began = time.monotonic()
        (servers.kill if kill else servers.stall)(old)
        what = "killed (SIGKILL)" if kill else "frozen (SIGSTOP)"
        self._say(f"primary {old.address} {what}")
        if has_successor(servers.topology):
            new = servers.wait_for_new_primary(old)
            self.takeover_seconds = time.monotonic() - began
            self._say(f"new primary {new.address} elected after {self.takeover_seconds:.1f} s")
        if kill:
            time.sleep(DOWN_SECONDS)
            servers.restart(old)
            self._say(f"{old.address} started again")
        else:
            time.sleep(max(LATE_SECONDS, began + STALL_SECONDS - time.monotonic()))
            servers.resume(old)
            self._say(f"{old.address} goes on (SIGCONT), unaware of what it missed")

    def _move_slots(self, conversation_ids: list[str]) -> None:
        """Move slots with live conversations to other primaries and back again."""
        servers = self._servers
        plan = self._plan
        slots = {slot_of(plan.kind, plan.config, one): one for one in conversation_ids}
        for slot, conversation_id in list(slots.items())[:MOVED_SLOTS]:
            home = servers.primary(items_key(plan.kind, plan.config, conversation_id))
            away = servers.move_slot(slot, pause=_linger)
            servers.move_slot(slot, home, pause=_linger)
            self.slots_moved += 1
            self._say(f"slot {slot} moved from {home.address} to {away.address} and back")


def _linger() -> None:
    """Leave a slot half moved for a moment, so that turns meet it."""
    time.sleep(HALF_MOVED_SECONDS)
