"""What the members of a cluster send to each other."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from tests.simulation.redis.keyspace import Value

__all__ = ["BusMessage", "Kind", "Migrated", "Migration"]

Kind: TypeAlias = Literal["ping", "pong", "fail", "update", "auth request", "auth", "manual failover"]


class BusMessage(NamedTuple):
    """One message; what stands before `about` is the header that each of them has.

    Attributes:
        kind: What it is.
        sender: The id of the member that sends it.
        current_epoch: The cluster's epoch, as the sender knows it.
        config_epoch: The epoch of the sender's shard.
        slots: The slots of the sender's shard.
        primary: The id of the sender's primary; None for a primary.
        offset: The sender's replication offset.
        is_paused: Whether the sender is a primary that holds writes back for a failover by hand.
        failing: The members that the sender takes for failing; in PING and PONG.
        about: Whom FAIL and UPDATE are about.
        about_epoch: Its configuration epoch, in UPDATE.
        about_slots: Its slots, in UPDATE.
        forces: Whether the vote is asked for although the primary is well: a failover by hand.
    """

    kind: Kind
    sender: str
    current_epoch: int
    config_epoch: int
    slots: frozenset[int]
    primary: str | None
    offset: int
    is_paused: bool = False
    failing: frozenset[str] = frozenset()
    about: str = ""
    about_epoch: int = 0
    about_slots: frozenset[int] = frozenset()
    forces: bool = False


class Migration(NamedTuple):
    """Keys on their way to another member, each with its value and the time when it expires; MIGRATE sends it."""

    keys: dict[bytes, tuple[Value, int | None]]
    replaces: bool


class Migrated(NamedTuple):
    """The answer; an error in words, or None."""

    error: str | None
