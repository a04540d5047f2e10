"""Whether a server reads now: it may be stopped (SIGSTOP), held up by a slow command, loading its data, or ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .registry import OK, RefusalError, Reply

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["Load"]


class Load:
    """What keeps one server from serving.

    Attributes:
        is_held: Whether nothing is read now; what arrives waits.
        is_loading: Whether it loads its data: most commands are answered with LOADING.
        holds_writes: Whether writes wait for a failover by hand.
        is_busy: Whether a script runs for longer than ``busy-reply-threshold``: most are answered with BUSY.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._inbox: list[tuple[Callable[[Any], None], Any]] = []
        self._stops = 0
        self._holds = 0
        self._busy: Any = None
        self.is_held = False
        self.is_loading = False
        self.is_busy = False
        self.holds_writes = False
        self._pauses = 0

    def hold(self, client: Connection, data: bytes | None) -> None:
        """Keep what arrived (None: the end of the connection) until the server reads again."""
        deliver = client.receive if data is not None else _closed
        self._inbox.append((deliver, data if data is not None else client))

    def later(self, action: Callable[[Any], None], argument: Any) -> bool:
        """Whether the server is held; then the action is done as soon as it is not any more."""
        if self.is_held:
            self._inbox.append((action, argument))
        return self.is_held

    def stop(self) -> None:
        """Stand still, as after SIGSTOP."""
        self._stops += 1
        self.is_held = True

    def go_on(self) -> None:
        """Read again, what arrived first of all, as after SIGCONT."""
        self._stops = max(0, self._stops - 1)
        self._release()

    def hold_up(self, seconds: float, *, script: bool = False) -> None:
        """Spend so long on a command; a script's time beyond ``busy-reply-threshold`` is told to others (BUSY)."""
        self._holds += 1
        self.is_held = True
        limit = int(self._server.config.get("busy-reply-threshold", "5000")) / 1000
        quiet = min(seconds, limit) if script else seconds
        self._server.call_later(quiet, partial(self._after_hold, seconds - quiet))

    def begin_hold(self) -> None:
        """Stand still until `end_hold`."""
        self._holds += 1
        self.is_held = True

    def end_hold(self) -> None:
        """Go on."""
        self._holds = max(0, self._holds - 1)
        self._release()

    def pause_writes(self, seconds: float) -> None:
        """Let writes wait, for so long at most (CLIENT PAUSE … WRITE)."""
        self.holds_writes = True
        self._pauses += 1
        pause = self._pauses
        self._server.after(seconds, lambda: self.resume_writes() if pause == self._pauses else None)

    def resume_writes(self) -> None:
        """Go on with the writes that wait."""
        if self.holds_writes:
            self.holds_writes = False
            self._run_waiting()

    def _after_hold(self, more: float) -> None:
        self._holds -= 1
        if more > 0:
            self.is_busy = True
            self._busy = self._server.call_later(more, self._end_busy)
        self._release()

    def _end_busy(self) -> None:
        self.is_busy, self._busy = False, None
        self._release()

    def kill_script(self) -> Reply:
        """End the script that runs for too long (SCRIPT KILL)."""
        if not self.is_busy:
            raise RefusalError("NOTBUSY No scripts in execution right now.")
        self._busy.cancel()
        self._end_busy()
        return OK

    def clear(self) -> None:
        """Forget everything: the process has ended."""
        self._inbox.clear()
        self._stops = self._holds = 0
        self.is_held = self.is_loading = self.is_busy = False
        if self._busy is not None:
            self._busy.cancel()
            self._busy = None

    def _release(self) -> None:
        self.is_held = bool(self._stops or self._holds)
        while self._inbox and not self.is_held:
            deliver, argument = self._inbox.pop(0)
            deliver(argument)
        if not self.is_held:
            self._run_waiting()

    def _run_waiting(self) -> None:
        for client in list(self._server.connections.values()):
            client.run_waiting()


def _closed(client: Connection) -> None:
    client.closed()
