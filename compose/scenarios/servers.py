"""Who is a primary, asked of those who decide it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from .stack import ScenarioError, Stack

MAJORITY = 2
HAND_OVER_SECONDS = 6.0
"""A node of a cluster gives a failover by hand up after 5 s; then it has to be told again."""


class SentinelServers:
    """One primary, two replicas, three Sentinels; with TLS or without."""

    nodes = ("redis-1", "redis-2", "redis-3")
    sentinels = ("sentinel-1", "sentinel-2", "sentinel-3")

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.services = (*self.nodes, *self.sentinels)

    def primaries(self) -> set[str]:
        """The primary that a majority of the Sentinels names; empty if there is none."""
        named: Counter[str] = Counter()
        for sentinel in self.sentinels:
            try:
                named[self._stack.ask(sentinel, "-p 26379 sentinel get-master-addr-by-name mymaster")[0]] += 1
            except (ScenarioError, IndexError):
                continue
        return {name for name, votes in named.items() if votes >= MAJORITY}

    def victim(self) -> str:
        """A primary to break."""
        return self._stack.wait_for(self.primaries, "the Sentinels name a primary").pop()

    def hand_over(self, primary: str) -> None:
        """Have a replica take the primary's place, while that is alive and takes writes."""
        self._stack.wait_for(
            lambda: self._stack.ask("sentinel-1", "-p 26379 sentinel failover mymaster")[0] == "OK",
            f"a Sentinel agrees to replace {primary}",
        )
        self._stack.wait_for(lambda: primary not in self.primaries(), f"another takes the place of {primary}")

    def describe(self) -> str:
        """Who is what, for a line of the story."""
        (primary,) = self.primaries()
        replicas = ", ".join(node for node in self.nodes if node != primary)
        return f"primary {primary}, replicas {replicas}, 3 Sentinels"


@dataclass(frozen=True)
class ClusterNode:
    """A node as another one sees it."""

    name: str
    identity: str
    address: str
    primary: bool
    follows: str
    slots: frozenset[int]


class ClusterServers:
    """Three primaries with a replica each."""

    nodes = ("redis-1", "redis-2", "redis-3", "redis-4", "redis-5", "redis-6")

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.services = self.nodes

    def view(self) -> dict[str, ClusterNode]:
        """The nodes that are alive, by name, as a majority-side node sees them."""
        views = [self._view_of(node) for node in self.nodes]
        return max(views, key=lambda view: sum(node.primary for node in view.values()))

    def primaries(self) -> set[str]:
        """The living nodes that own slots."""
        return {node.name for node in self.view().values() if node.primary and node.slots}

    def victim(self) -> str:
        """A primary to break."""
        return min(self._stack.wait_for(self.primaries, "the cluster has primaries"))

    def hand_over(self, primary: str) -> None:
        """Have its replica take the primary's place, while that is alive and takes writes."""
        identity = self.view()[primary].identity
        replica = next(node.name for node in self.view().values() if node.follows == identity)
        told = f"{replica} takes the place of {primary}"

        def taken_over() -> bool:
            self._stack.ask(replica, "cluster failover")
            self._stack.wait_for(lambda: primary not in self.primaries(), told, HAND_OVER_SECONDS)
            return True

        self._stack.wait_for(taken_over, told)

    def describe(self) -> str:
        """Who is what, for a line of the story."""
        view = self.view()
        names = {node.identity: node.name for node in view.values()}
        pairs = sorted(f"{names[node.follows]} ({node.name})" for node in view.values() if node.follows in names)
        return f"primaries and their replicas: {', '.join(pairs)}"

    def _view_of(self, node: str) -> dict[str, ClusterNode]:
        try:
            lines = self._stack.ask(node, "cluster nodes")
        except ScenarioError:
            return {}
        seen = [_parse(line.split()) for line in lines if line]
        return {one.name: one for one in seen if one is not None}


def _parse(fields: list[str]) -> ClusterNode | None:
    """One line of CLUSTER NODES; ``None`` for a node that failed."""
    identity, where, flags, follows = fields[:4]
    if "fail" in flags.split(",") or "noaddr" in flags or "handshake" in flags:
        return None
    address, _, names = where.partition(",")
    slots: set[int] = set()
    for part in fields[8:]:
        if re.fullmatch(r"\d+(-\d+)?", part):
            first, _, last = part.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    return ClusterNode(
        name=names.partition(",")[0],
        identity=identity,
        address=address.partition(":")[0],
        primary="master" in flags,
        follows=follows,
        slots=frozenset(slots),
    )


Servers = SentinelServers | ClusterServers
