"""A cluster as one of its members sees it."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 16_384


@dataclass(frozen=True, kw_only=True)
class Member:
    """One line of CLUSTER NODES.

    Attributes:
        id: The member's id.
        port: Its client port.
        flags: `myself`, `master`, `slave`, `fail?`, `fail`, `handshake`, `noaddr` …
        primary_id: The id of the primary that it replicates; None for a primary.
        epoch: Its configuration epoch; where two members claim a slot, the higher one has it.
        connected: Whether the link to it is up.
        slots: Ranges that it owns, both ends included.
    """

    id: str
    port: int
    flags: frozenset[str]
    primary_id: str | None
    epoch: int
    connected: bool
    slots: tuple[tuple[int, int], ...]

    @property
    def is_primary(self) -> bool:
        """Whether it is a primary."""
        return "master" in self.flags

    @property
    def is_well(self) -> bool:
        """Whether its link is up and it is neither failing nor still joining."""
        return self.connected and not self.flags & {"fail", "fail?", "handshake", "noaddr"}

    def owns(self, slot: int) -> bool:
        """Return whether it owns the slot."""
        return any(first <= slot <= last for first, last in self.slots)


def parse_members(text: str) -> list[Member]:
    """Return the members that CLUSTER NODES lists."""
    return [_parse_line(line) for line in text.splitlines() if line.strip()]


def _parse_line(line: str) -> Member:
    member_id, address, flags, primary_id, _, _, epoch, link, *slots = line.split()
    return Member(
        id=member_id,
        port=int(address.split("@")[0].rpartition(":")[2]),
        flags=frozenset(flags.split(",")),
        primary_id=None if primary_id == "-" else primary_id,
        epoch=int(epoch),
        connected="myself" in flags or link == "connected",
        slots=tuple(_parse_range(text) for text in slots if not text.startswith("[")),
    )


def _parse_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
