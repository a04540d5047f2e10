"""What a simulated Sentinel knows of one server (a primary, a replica, another Sentinel), and its connections to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.reading import Reader
from tests.simulation.resp import encode_request

if TYPE_CHECKING:
    from tests.simulation.sentinels.watch import Watch

Address = tuple[str, int]
Answer = Callable[[Any], None]

# The states of a failover (sentinel.c, sentinelFailoverStateStr).
NONE, WAIT_START, SELECT, SEND, WAIT, RECONFIGURE, UPDATE = range(7)
STATES = (
    "none",
    "wait_start",
    "select_slave",
    "send_slaveof_noone",
    "wait_promotion",
    "reconf_slaves",
    "update_config",
)


class RefusalError(Exception):
    """An error reply."""


class Line:
    """One connection of a Sentinel to a server: commands out, replies in, in order."""

    def __init__(self, sentinel: Watch, address: Address, on_lost: Callable[[], None]) -> None:
        self._sentinel = sentinel
        self._on_lost = on_lost
        self._waiting: deque[Answer] = deque()
        self._reader = Reader(replyError=RefusalError)
        self.is_open = True
        self.on_push: Answer | None = None
        self.made_at = sentinel.now()
        self._end = sentinel.dial(address, self._receive, self._closed)
        if self._end is None:  # refused: the answer takes a moment
            sentinel.later(0.001, self._closed)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def ask(self, answer: Answer, *command: bytes | str | int) -> None:
        """Send a command; its reply goes to `answer`, an error reply as `RefusalError`."""
        self._waiting.append(answer)
        if self._end is not None:
            self._end.send(encode_request(*command))

    def close(self) -> None:
        """Close it without a word to the owner."""
        self.is_open = False
        self._waiting.clear()
        if self._end is not None:
            self._end.close()

    def _receive(self, data: bytes) -> None:
        if self.is_open:
            self._sentinel.hold_or(self._take, data)

    def _take(self, data: bytes) -> None:
        self._reader.feed(data)
        while self.is_open and (reply := self._reader.gets()) is not False:
            if self._waiting:
                self._waiting.popleft()(reply)
            elif self.on_push is not None:
                self.on_push(reply)

    def _closed(self) -> None:
        if self.is_open:
            self._sentinel.hold_or(self._take_end, None)

    def _take_end(self, _: Any) -> None:
        if self.is_open:
            self.is_open = False
            self._waiting.clear()
            self._on_lost()


class Instance:
    """One server, as a Sentinel sees it (sentinel.c, sentinelRedisInstance and instanceLink).

    Times are seconds by the Sentinel's own clock; 0 means never.
    """

    def __init__(self, kind: str, address: Address, now: float, run_id: str = "") -> None:
        self.kind = kind
        self.address = address
        self.run_id = run_id
        self.commands: Line | None = None
        self.events: Line | None = None
        self.is_connected = False
        self.last_reconnect = 0.0
        self.last_event = now
        self.open_ping = now
        self.last_ping = 0.0
        self.last_available = now
        self.last_pong = now
        self.info_at = 0.0
        self.published_at = now
        self.is_down = False
        self.down_since = 0.0
        self.role = "master" if kind == "master" else "slave"
        self.role_since = now
        # A replica:
        self.primary_address: Address | None = None
        self.configured_at = now
        self.link_is_up = False
        self.link_down_seconds = 0.0
        self.priority = 100
        self.offset = 0
        self.is_promoted = False
        self.reconfiguring: str | None = None
        self.reconfigured_at = 0.0
        # Another Sentinel:
        self.says_down = False
        self.answered_at = now
        self.leader: str | None = None
        self.leader_epoch = 0

    @property
    def name(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def close(self) -> None:
        """Close the connections."""
        for line in (self.commands, self.events):
            if line is not None:
                line.close()
        self.commands = self.events = None
        self.is_connected = False

    def forget_pings(self, now: float) -> None:
        """Begin to watch anew."""
        self.open_ping = self.last_available = self.last_pong = now
        self.last_ping = 0.0

    def read_info(self, info: str, now: float) -> list[Address]:
        """Take notice of INFO; return the replicas that a primary lists."""
        fields = dict(line.split(":", 1) for line in info.split("\r\n") if ":" in line)
        self.run_id = fields.get("run_id", self.run_id)
        role = fields.get("role", self.role)
        self.link_down_seconds = 0.0
        if role == "slave":
            host, port = fields.get("master_host", ""), int(fields.get("master_port", 0))
            if (host, port) != self.primary_address:
                self.primary_address = (host, port)
                self.configured_at = now
            self.link_is_up = fields.get("master_link_status") == "up"
            self.link_down_seconds = float(fields.get("master_link_down_since_seconds", 0))
            self.priority = int(fields.get("slave_priority", 100))
            self.offset = int(fields.get("slave_repl_offset", 0))
        self.info_at = now
        if role != self.role:
            self.role, self.role_since = role, now
            if role == "slave":
                self.configured_at = now
        listed = (fields[f"slave{n}"] for n in range(len(fields)) if f"slave{n}" in fields)
        rows = (dict(part.split("=", 1) for part in row.split(",")) for row in listed)
        return [(row["ip"], int(row["port"])) for row in rows] if self.kind == "master" else []
