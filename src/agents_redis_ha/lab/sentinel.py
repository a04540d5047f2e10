"""A primary, two replicas and three Sentinels.

By gossip, Sentinels take seconds to find each other and the replicas. Here both are in their configuration files from
the start, in the lines that Sentinel itself writes there.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any, ClassVar

from redis.exceptions import RedisError, ResponseError

from .errors import LabError
from .lab import Lab
from .node import Node
from .ports import HOST
from .replication import unlinked_replica
from .server_conf import QUORUM, SERVICE, data_directives, sentinel_directives
from .servers import launch, prepare, prepare_data
from .settings import Topology
from .waiting import WAIT_SECONDS, wait_until, wait_until_complete

_DATA_SERVERS = 3
_SENTINELS = 3
_DEFAULT_PRIORITY = 100
# Accepted from 7.0 on, in milliseconds. Sentinel's own values are for networks. The one that
# matters: it reconnects once per ping period (1 s), and a promotion closes its connections, so that
# with down-after at 1 s the new primary is taken for down at once and a second failover follows.
# The others: INFO every 10 s; a returning primary is demoted after four publish periods of 2 s; and
# 30 s of doing nothing when the clock seems to jump, as it does on a busy machine.
_PERIODS_MS = {
    "ping-period": 200,
    "ask-period": 200,
    "info-period": 300,
    "publish-period": 200,
    "tilt-trigger": 5_000,
    "tilt-period": 1_000,
}


class SentinelLab(Lab):
    """Replication watched by Sentinels with a quorum of two."""

    topology: ClassVar[Topology] = "sentinel"

    def primary(self, key: str | bytes | None = None) -> Node:
        """Return the server that most Sentinels call the primary.

        Raises:
            LabError: They do not agree.
        """
        named = [node for node in map(self._named_by, self.sentinels) if node is not None]
        for node in self.nodes:
            if named.count(node) >= QUORUM:
                return node
        raise LabError(f"the Sentinels do not agree on a primary: {named}")

    def promote(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        """Have the Sentinels fail over to this replica, and return when all servers have settled.

        Sentinel chooses the replica with the lowest replica-priority: that is what makes it choose
        this one. Servers older than 7.0 take up to 20 s, because their Sentinels look only every 10
        s.

        Raises:
            LabError: It did not come about in time.
        """
        old = self.primary()
        if old is node:
            return
        sentinel = next((sentinel for sentinel in self.sentinels if sentinel.connected), None)
        if sentinel is None:
            raise LabError("no Sentinel is up and connected")
        node.ask("CONFIG", "SET", "replica-priority", 1)
        try:
            wait_until(
                lambda: self._replica(sentinel, node).get("slave-priority") == "1",
                f"{sentinel.name} to see the priority of {node.name}",
                timeout,
            )
            started = f"{sentinel.name} to start a failover"
            wait_until(lambda: self._fail_over(sentinel), started, timeout)

            def named() -> bool:
                if self._named_by(sentinel) is not node:
                    self._fail_over(sentinel)  # abandoned, or another won meanwhile; refused while it is under way
                return self._agreed() is node

            wait_until(named, f"the Sentinels to name {node.name}", timeout, poll_seconds=0.2)
        finally:
            with contextlib.suppress(RedisError):
                node.ask("CONFIG", "SET", "replica-priority", _DEFAULT_PRIORITY)
        self.wait_ready(timeout)

    def _build(self) -> None:
        self.nodes += prepare_data(self._settings, _DATA_SERVERS)
        self._attach(self.nodes)
        primary, *replicas = self.nodes
        for node in self.nodes:
            directives = data_directives(self._settings, node)
            if node is not primary:
                directives.append(f"replicaof {HOST} {primary.announced_port}")
            node.write_conf(directives)
        launch(self.nodes)
        self._write_sentinels(primary, replicas)
        wait_until_complete(lambda: unlinked_replica(primary, replicas))
        launch(self.sentinels)
        for sentinel in self.sentinels:
            self._came_up(sentinel)

    def _write_sentinels(self, primary: Node, replicas: list[Node]) -> None:
        for number in range(1, _SENTINELS + 1):
            name = f"sentinel-{number}"
            own_password = self._settings.sentinel_password
            sentinel = prepare(self._settings, name, "--sentinel", password=own_password)
            self.sentinels.append(sentinel)
        self._attach(self.sentinels)
        ids = [secrets.token_hex(20) for _ in self.sentinels]
        peers = list(zip(self.sentinels, ids, strict=True))
        for sentinel, own in peers:
            lines = sentinel_directives(self._settings, sentinel, primary)
            lines.append(f"sentinel myid {own}")
            known = f"sentinel known-replica {SERVICE} {HOST}"
            lines += [f"{known} {replica.announced_port}" for replica in replicas]
            lines += [
                f"sentinel known-sentinel {SERVICE} {HOST} {peer.announced_port} {other}"
                for peer, other in peers
                if peer is not sentinel
            ]
            sentinel.write_conf(lines)

    def _came_up(self, node: Node) -> None:
        if node in self.sentinels and self.server_version >= (7, 0, 0):
            pairs = [word for pair in _PERIODS_MS.items() for word in pair]
            node.ask("SENTINEL", "DEBUG", *pairs)

    def _followed(self, node: Node, timeout: float) -> dict[str, str]:
        primary = self.primary()
        if primary is node:
            primary = self.wait_for_new_primary(node, timeout)
        return {"replicaof": f"{HOST} {primary.announced_port}"}

    def _unsettled(self) -> str | None:
        primary = self._agreed()
        if primary is None:
            return "the Sentinels to agree on a primary that is one"
        replicas = [node for node in self.nodes if node.connected and node is not primary]
        return unlinked_replica(primary, replicas) or self._unseen(primary, replicas)

    def _unseen(self, primary: Node, replicas: list[Node]) -> str | None:
        watching = [sentinel for sentinel in self.sentinels if sentinel.connected]
        for sentinel in watching:
            master = _fields(sentinel.ask("SENTINEL", "MASTER", SERVICE))
            if master["flags"] != "master":
                return f"{sentinel.name} to find {primary.name} well (flags: {master['flags']})"
            for node in replicas:
                seen = self._replica(sentinel, node)
                well = (seen.get("flags"), seen.get("master-link-status"), seen.get("master-port"))
                if well != ("slave", "ok", str(primary.announced_port)):
                    return f"{sentinel.name} to find {node.name} well (flags, link, port: {well})"
            rows = map(_fields, sentinel.ask("SENTINEL", "SENTINELS", SERVICE))
            peers = {row["port"]: row for row in rows}
            for other in watching:
                flags = peers.get(str(other.announced_port), {}).get("flags", "unknown")
                # master_down is only what the peer answered when it was last asked, and may be
                # seconds old.
                if other is not sentinel and flags not in ("sentinel", "sentinel,master_down"):
                    return f"{sentinel.name} to find {other.name} well (flags: {flags})"
        return None

    def _successor(self, old: Node) -> Node | None:
        agreed = self._agreed()
        return agreed if agreed is not old else None

    def _agreed(self) -> Node | None:
        """Return the primary that all running Sentinels name, if it says so itself."""
        named = [self._named_by(sentinel) for sentinel in self.sentinels if sentinel.connected]
        first = named[0] if len(named) >= QUORUM else None
        if first is None or any(node is not first for node in named) or first.role() != "primary":
            return None
        return first

    def _named_by(self, sentinel: Node) -> Node | None:
        if not sentinel.up:
            return None
        try:
            answer = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        except RedisError:
            return None
        return next((node for node in self.nodes if answer and node.announced_port == int(answer[1])), None)

    def _replica(self, sentinel: Node, node: Node) -> dict[str, str]:
        rows = map(_fields, sentinel.ask("SENTINEL", "REPLICAS", SERVICE))
        return next((row for row in rows if row["port"] == str(node.announced_port)), {})

    @staticmethod
    def _fail_over(sentinel: Node) -> bool:
        try:
            sentinel.ask("SENTINEL", "FAILOVER", SERVICE)
        # INPROG: another one is still being finished; NOGOODSLAVE: not linked yet
        except ResponseError:
            return False
        return True


def _fields(flat: list[Any]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
