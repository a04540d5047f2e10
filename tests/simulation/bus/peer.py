"""What one member knows of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.redis.server import Link

__all__ = ["Peer"]


class Peer:
    """A member, as one of them sees it; one sees itself, too. Times are by the seeing member's clock, in seconds.

    Attributes:
        id: 40 hexadecimal digits.
        host: Where it listens.
        port: Its client port.
        primary: The id of its primary; None for a primary.
        slots: What it owns.
        config_epoch: Of its shard.
        may_fail: Whether it is unreachable for this member (PFAIL).
        fails: Whether the majority says so (FAIL).
        fails_since: When that was said.
        accuses: Whether it took members for failing when it told last.
        reports: Which primaries take it for failing, and when they said so.
        ping_sent: When the PING was sent that is unanswered; 0 if none is.
        pong_received: When the last PONG came.
        data_received: When anything came.
        offset: Its replication offset, as it told last.
        voted_at: When this member voted for one of its replicas.
        link: To it; None without one.
        linked_at: When the link was made.
    """

    __slots__ = (
        "accuses",
        "config_epoch",
        "data_received",
        "fails",
        "fails_since",
        "host",
        "id",
        "link",
        "linked_at",
        "may_fail",
        "offset",
        "ping_sent",
        "pong_received",
        "port",
        "primary",
        "reports",
        "slots",
        "voted_at",
    )

    def __init__(self, id: str, host: str, port: int, primary: str | None, slots: frozenset[int], epoch: int) -> None:
        self.id, self.host, self.port = id, host, port
        self.primary, self.slots, self.config_epoch = primary, slots, epoch
        self.may_fail = self.fails = False
        self.fails_since = self.ping_sent = self.pong_received = self.data_received = self.voted_at = 0.0
        self.linked_at = 0.0
        self.accuses = False
        self.reports: dict[str, float] = {}
        self.offset = 0
        self.link: Link | None = None

    @property
    def is_primary(self) -> bool:
        """Whether it is a primary."""
        return self.primary is None

    def forget_times(self) -> None:
        """Be as after a start: only what nodes.conf says is known."""
        self.ping_sent = self.pong_received = self.data_received = self.linked_at = 0.0
        self.reports.clear()
        self.accuses = False
        self.offset = 0
        self.link = None
