"""What a proxy does to the traffic at this moment, and what it has seen of it.

Both are changed by the test's thread and read by the proxy's, hence the locks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum

Matcher = Callable[[bytes], bool]

_REMEMBERED_COMMANDS = 1_000


class Flow(Enum):
    """How traffic passes."""

    OPEN = "open"
    REFUSED = "refused"
    BLACKHOLE = "blackhole"


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self.flow = Flow.OPEN
            self.request_delay = 0.0
            self.reply_delay = 0.0
            self.bytes_per_second: float | None = None
            self._matches: Matcher | None = None
            self._pass_first = 0
            self._cuts_left: int | None = None

    def cut(self, matches: Matcher, *, pass_first: int, times: int | None) -> None:
        """Cut the replies to matching requests, after `pass_first`, `times` times or always."""
        with self._lock:
            self._matches, self._pass_first, self._cuts_left = matches, pass_first, times

    @property
    def cuts_pending(self) -> bool:
        """Whether a reply is still to be cut."""
        with self._lock:
            return self._matches is not None

    def claims(self, request: bytes) -> bool:
        """Return whether the reply to this request is to be cut, and count it."""
        with self._lock:
            matches = self._matches
        # Called without the lock: it is the test's own function, which may itself use the proxy.
        if matches is None or not matches(request):
            return False
        with self._lock:
            if self._matches is not matches:
                return False
            if self._pass_first > 0:
                self._pass_first -= 1
                return False
            if self._cuts_left is not None:
                self._cuts_left -= 1
                if self._cuts_left <= 0:
                    self._matches = None
            return True


class Traffic:
    """What a proxy has seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commands: deque[bytes] = deque(maxlen=_REMEMBERED_COMMANDS)
        self.round_trips = 0
        self.replies_cut = 0
        self.connections = 0
        self.connections_total = 0

    def reset(self) -> None:
        """Set the counters to zero, except for the connections that are open now."""
        with self._lock:
            self._commands.clear()
            self.round_trips = self.replies_cut = self.connections_total = 0

    def opened(self) -> None:
        """Count a connection."""
        with self._lock:
            self.connections += 1
            self.connections_total += 1

    def closed(self) -> None:
        """Count a connection's end."""
        with self._lock:
            self.connections -= 1

    def requested(self, chunk: bytes, *, begins: bool) -> None:
        """Record a chunk of a client, which may begin a request."""
        with self._lock:
            self._commands.append(chunk)
            self.round_trips += begins

    def cut(self) -> None:
        """Count a reply that was cut."""
        with self._lock:
            self.replies_cut += 1

    def commands(self) -> list[bytes]:
        """Return the latest chunks, oldest first."""
        with self._lock:
            return list(self._commands)
