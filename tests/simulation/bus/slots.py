"""Who owns which slot, as one member knows it (cluster.c, clusterUpdateSlotsConfigWith)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from .messages import BusMessage
from .peer import Peer
from .routing import slot_of

if TYPE_CHECKING:
    from .member import Member

__all__ = ["SLOTS", "SlotTable", "interned"]

SLOTS = 16384


@lru_cache(maxsize=1024)
def interned(slots: frozenset[int]) -> frozenset[int]:
    """Return one object for equal sets, so that they are compared by identity: each message brings one."""
    return slots


class SlotTable:
    """The slots, as one member knows them.

    Attributes:
        owners: The id of each slot's owner.
        migrating: Slots on their way out, each with the id of the target.
        importing: Slots on their way in, each with the id of the source.
    """

    def __init__(self, member: Member, owners: Sequence[str | None]) -> None:
        self._member = member
        self.owners = list(owners)
        self.migrating: dict[int, str] = {}
        self.importing: dict[int, str] = {}
        self._unclaimed: set[int] = set()  # their owners do not claim them any more: whoever does gets them

    def keys_in(self, slot: int) -> list[bytes]:
        """Return the keys of a slot that are here."""
        return [key for key in self._member.server.keyspace.values if slot_of(key) == slot]

    def assign(self, slots: frozenset[int], to: Peer) -> None:
        """Give slots to a member."""
        owners = self.owners
        losers = {owners[slot] for slot in slots} - {to.id, None}
        for loser in losers:
            assert loser is not None
            peer = self._member.peers[loser]
            peer.slots = interned(peer.slots - slots)
        for slot in slots:
            owners[slot] = to.id
        to.slots = interned(to.slots | slots)
        self._unclaimed -= slots
        self._member.update_state()

    def release(self, peer: Peer) -> None:
        """Have the slots of a member without an owner: it is a replica now."""
        for slot in peer.slots:
            self.owners[slot] = None
        peer.slots = interned(frozenset())
        self._member.update_state()

    def learn(self, sender: Peer, epoch: int, slots: frozenset[int]) -> None:
        """Believe a primary that claims slots with a higher epoch; follow it if it has all of this shard's."""
        member = self._member
        me = member.me
        if sender is me:
            return
        shard = me if me.primary is None else member.peers[me.primary]
        self._unclaimed |= sender.slots - slots
        self._unclaimed -= slots & sender.slots
        wanted = slots - sender.slots - self.importing.keys()
        believed: set[str | None] = {peer.id for peer in member.peers.values() if peer.config_epoch < epoch}
        believed.add(None)
        claimed = frozenset(slot for slot in wanted if self.owners[slot] in believed or slot in self._unclaimed)
        ours = shard.slots & claimed
        dirty = [key for key in member.server.keyspace.values if slot_of(key) in ours] if shard is me else []
        if claimed:
            self.assign(claimed, sender)
        if ours and not shard.slots:
            member.follow(sender)
        elif dirty:
            for key in dirty:
                member.server.keyspace.delete(key)
            member.server.replication.feed([[b"DEL", *dirty]])

    def correct(self, sender: Peer, message: BusMessage) -> None:
        """Tell a member that claims slots of a shard with a higher epoch."""
        for slot in message.slots:
            owner = self.owners[slot]
            if owner is None or owner == sender.id or slot in self._unclaimed:
                continue
            peer = self._member.peers[owner]
            if peer.config_epoch > message.config_epoch:
                about = {"about": peer.id, "about_epoch": peer.config_epoch, "about_slots": peer.slots}
                self._member.send(sender, "update", **about)
                return
