"""Servers that come back under another address."""

from __future__ import annotations

from .errors import LabError
from .node import Node
from .ports import reserve_port
from .processes import Processes
from .server_conf import address_directives


class Moves(Processes):
    """What an orchestrator does when it replaces a pod: the same data under another address."""

    def move_address(self, node: Node, timeout: float = 30.0) -> None:
        """Stop a data server, start it with its data on another port, and return when all have settled.

        The others learn the new address from the server itself. A primary watched by Sentinels is replaced first and
        comes back as a replica, because Sentinels follow a primary only by a failover; they go on listing the old
        address as a replica that is down. A primary of a cluster stays one if it is back within `node_timeout_ms`.
        Configurations made before lack the new address in their `address_map`.

        Args:
            node: A data server, up or down.
            timeout: Seconds to wait for each step.

        Raises:
            LabError: It is a Sentinel, or a step has not come about in time.
        """
        if node not in self.nodes:
            raise LabError(f"{node.name} is no data server; only those move")
        if node.alive:
            self.stop(node)
        following = self._followed(node, timeout)
        with_bus = self.topology == "cluster"
        # Not released before `close`: the others go on dialling it, and must not meet a server of another lab there.
        self._abandoned_ports += [node.port, node.announced_port]
        node.move_to(reserve_port(with_bus=with_bus))
        self._attach([node])
        node.edit_conf({**address_directives(self._settings, node, with_bus=with_bus), **following})
        self.restart(node, timeout)
        self.wait_ready(timeout)

    def _followed(self, node: Node, timeout: float) -> dict[str, str]:
        """Return what a server that is down has to be told about its primary before it comes back."""
        return {}
