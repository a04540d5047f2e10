"""Three shards of a primary and a replica each, joined by commands, without redis-cli."""

from __future__ import annotations

import math
import time
from typing import ClassVar

from redis.crc import key_slot

from .cluster_view import SLOTS, Member, parse_members
from .errors import LabError
from .lab import Lab
from .node import Node
from .ports import BUS_OFFSET, HOST
from .replication import unlinked_replica
from .server_conf import cluster_directives
from .servers import launch, prepare_data
from .settings import Topology
from .slots import SlotMove
from .waiting import WAIT_SECONDS, wait_until

_SHARDS = 3
_MANUAL_FAILOVER_SECONDS = 5.0  # a replica gives a failover by hand up after it (CLUSTER_MF_TIMEOUT)


class ClusterLab(Lab):
    """Three shards: `nodes[i]` and `nodes[i + 3]` form shard i, whichever is the primary.

    Replicas never change shards.
    """

    topology: ClassVar[Topology] = "cluster"

    def primary(self, key: str | bytes | None = None) -> Node:
        """Return the owner of the key's slot, or of slot 0.

        Raises:
            LabError: No server that answers owns it.
        """
        if key is None:
            return self._owner_of(0)
        return self._owner_of(key_slot(key.encode() if isinstance(key, str) else key))

    def promote(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        """Send CLUSTER FAILOVER to this replica and return when all servers have settled.

        If its primary is down, or replication is cut, the failover is forced. It is sent again if the replica gave it
        up, as without the votes of a majority, and if it did not last: a replica that was a primary seconds ago may
        count the votes of that time as new ones, until it hears of a higher epoch (seen on 6.2 and 7.0).

        Raises:
            LabError: It did not come about in time.
        """
        deadline = time.monotonic() + timeout
        while node.role() != "primary":
            if time.monotonic() > deadline:
                raise LabError(f"{node.name} did not stay the primary within {timeout:g} s")
            self._fail_over_to(node, max(1.0, deadline - time.monotonic()))

    def _fail_over_to(self, node: Node, timeout: float) -> None:
        asked_at = -math.inf

        def promoted() -> bool:
            nonlocal asked_at
            if node.role() == "primary":
                return True
            if time.monotonic() > asked_at + _MANUAL_FAILOVER_SECONDS:
                node.ask("CLUSTER", "FAILOVER", *([] if self._can_hand_over_to(node) else ["FORCE"]))
                asked_at = time.monotonic()
            return False

        wait_until(promoted, f"{node.name} to become the primary", timeout)
        self.wait_ready(timeout)

    def _can_hand_over_to(self, node: Node) -> bool:
        if self._links and self._links.is_replication_cut(node):
            return False  # the primary would wait for a replica that never catches up
        return any(other.role() == "primary" for other in self._shard(node))

    def begin_slot_move(self, slot: int, target: Node | None = None) -> SlotMove:
        """Start to move a slot: the source answers ASK for the keys that it does not have.

        Raises:
            LabError: The target is no other primary.
        """
        source = self._owner_of(slot)
        if target is None:
            primaries = self.primaries()
            target = primaries[(primaries.index(source) + 1) % len(primaries)]
        if target is source or target.role() != "primary":
            raise LabError(f"slot {slot} of {source.name} cannot move to {target.name}: it is no other primary")
        return SlotMove(slot, source, target, password=self._settings.password, announce=self._give_slot)

    def _build(self) -> None:
        self.nodes += prepare_data(self._settings, 2 * _SHARDS, with_bus=True)
        self._attach(self.nodes)
        for node in self.nodes:
            node.write_conf(cluster_directives(self._settings, node))
        launch(self.nodes)
        for epoch, node in enumerate(self.nodes, start=1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)  # else they take seconds to settle on epochs
        for shard in range(_SHARDS):
            slots = range(SLOTS * shard // _SHARDS, SLOTS * (shard + 1) // _SHARDS)
            self.nodes[shard].ask("CLUSTER", "ADDSLOTS", *slots)
        wait_until(self._all_met, "the members of the cluster to know each other")
        for shard in range(_SHARDS):
            primary, replica = self.nodes[shard], self.nodes[shard + _SHARDS]
            replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID"))

    def _all_met(self) -> bool:
        """Return whether all members know each other; those who do not are introduced.

        All to all, so that no member waits for gossip; and again, because a server forgets an introduction that has not
        succeeded within its node timeout, as on a busy machine.
        """
        views = [self._view(node) for node in self.nodes]
        for node, view in zip(self.nodes, views, strict=True):
            for port in {other.announced_port for other in self.nodes} - {node.announced_port}:
                if port not in {member.port for member in view}:
                    node.ask("CLUSTER", "MEET", HOST, port, port + BUS_OFFSET)
        return all(len(view) == len(self.nodes) and all(map(_is_well, view)) for view in views)

    def _unsettled(self) -> str | None:
        up = [node for node in self.nodes if node.connected]
        for node in self.nodes[:_SHARDS]:
            members = [member for member in (node, *self._shard(node)) if member.connected]
            primaries = [member for member in members if member.role() == "primary"]
            if members and len(primaries) != 1:
                return f"one primary among {members}"
            if members:
                replicas = [member for member in members if member is not primaries[0]]
                missing = unlinked_replica(primaries[0], replicas)
                if missing:
                    return missing
        return next(filter(None, (self._discontent(node, up) for node in up)), None)

    def _discontent(self, node: Node, up: list[Node]) -> str | None:
        """Say what this member finds wrong with the cluster."""
        info = dict(line.split(":", 1) for line in node.ask("CLUSTER", "INFO").splitlines() if ":" in line)
        if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(SLOTS):
            found = f"{info['cluster_slots_ok']} are, state {info['cluster_state']}"
            return f"{node.name} to find all slots served ({found})"
        view = {member.port: member for member in self._view(node)}
        for other in up:
            member = view.get(other.announced_port)
            if member is None or not member.is_well or member.is_primary != (other.role() == "primary"):
                return f"{node.name} to find {other.name} well (it sees: {member})"
        return None

    def _successor(self, old: Node) -> Node | None:
        """Return the new primary of old's shard, once all that are up know it."""
        for candidate in self._shard(old):
            if candidate.role() != "primary":
                continue
            others = [node for node in self.nodes if node.connected and node is not old]
            views = [self._view(node) for node in others]
            if all(_names_primary(view, candidate.announced_port) for view in views):
                state = candidate.ask("CLUSTER", "INFO")
                return candidate if "cluster_state:ok" in state else None
        return None

    def _give_slot(self, slot: int, target: Node) -> None:
        """Tell all primaries, the target first, so that the slot has an owner at every moment."""
        target_id = target.ask("CLUSTER", "MYID")
        source = self._owner_of(slot)
        others = [node for node in self.primaries() if node not in (target, source)]
        for node in dict.fromkeys((target, source, *others)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        up = [node for node in self.nodes if node.connected]
        wait_until(
            lambda: all(_owner_port(self._view(node), slot) == target.announced_port for node in up),
            f"every member to know that slot {slot} is {target.name}'s",
        )

    def _owner_of(self, slot: int) -> Node:
        claims: list[tuple[int, Node]] = []
        for node in self.nodes:
            if node.role() == "primary":
                own = next(member for member in self._view(node) if "myself" in member.flags)
                if own.owns(slot):
                    claims.append((own.epoch, node))
        if not claims:
            raise LabError(f"no server that answers owns slot {slot}")
        return max(claims, key=lambda claim: claim[0])[1]

    def _shard(self, node: Node) -> list[Node]:
        """Return the other members of the node's shard."""
        number = self.nodes.index(node) % _SHARDS
        return [other for index, other in enumerate(self.nodes) if index % _SHARDS == number and other is not node]

    @staticmethod
    def _view(node: Node) -> list[Member]:
        text: str = node.ask("CLUSTER", "NODES")
        return parse_members(text)


def _is_well(member: Member) -> bool:
    return member.is_well


def _names_primary(view: list[Member], port: int) -> bool:
    return any(member.port == port and member.is_primary and member.slots for member in view)


def _owner_port(view: list[Member], slot: int) -> int | None:
    return next((member.port for member in view if member.owns(slot)), None)
