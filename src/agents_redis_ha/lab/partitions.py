"""Cutting the servers of a lab off from each other, for labs started with `links=True`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client_settings import config_of
from .errors import LabError
from .network import Network
from .node import Node
from .running import Running

if TYPE_CHECKING:
    from agents_redis_ha._config import HAConfig


class Partitions(Running):
    """Faults between servers.

    Bytes between servers that are cut off vanish without a sign, as in a network that loses every packet. Only a new
    connection is accepted, by the relay; then nothing answers on it. When the cut is healed, a connection that lost
    bytes is reset, so that nothing arrives late. Connections on which nothing was sent go on.
    """

    def cut_replication(self, replica: Node) -> None:
        """Have the replica receive nothing more from its primary, nor from a later one.

        It stays up and answers clients, Sentinels and the cluster bus. Until `repl-timeout` (60 s) it calls itself a
        connected replica: it can be promoted with the data of this moment.

        Raises:
            LabError: The lab was started without links.
        """
        self._links.cut_replication(replica)

    def mend_replication(self, replica: Node) -> None:
        """Undo `cut_replication`: the link is reset, and the replica asks at once for what it missed."""
        self._links.mend_replication(replica)

    def partition(self, *nodes: Node) -> None:
        """Cut these servers off from all the others; among themselves they still talk.

        Called again, it puts further servers on a third side. `wait_ready` and `wait_for_new_primary` then ask the
        rest alone. `lab.client`, `config` and a server's own port still reach every server; `config_inside` and
        `config_outside` are the clients of one side.

        Raises:
            LabError: The lab was started without links.
        """
        self._links.isolate(nodes)
        for node in nodes:
            node.isolated = True

    def heal(self) -> None:
        """End all partitions and mend all replication."""
        self._links.heal()
        for node in self._all_nodes():
            node.isolated = False

    def config_inside(self, node: Node, **overrides: Any) -> HAConfig:
        """Return the configuration of a client beside this server.

        It always reaches this server, and the others if this server reaches them: they vanish for it with `partition`
        and come back with `heal`. Faults of `node.proxy` hold for it too.

        Args:
            node: The server whose side the client is on.
            overrides: Fields of `HAConfig` to add or replace.

        Raises:
            LabError: The lab was started without links.
        """
        network = self._links
        beside = {target: network.address_beside(node, target) for target in self._all_nodes()}
        seeds = [beside[target] for target in self.sentinels or self.nodes]
        mapped = {target.announced_address: address for target, address in beside.items()}
        return self._config_through(seeds, mapped, overrides)

    def config_outside(self, **overrides: Any) -> HAConfig:
        """Return the configuration of a client on the side of the rest: it never reaches an isolated server.

        Args:
            overrides: Fields of `HAConfig` to add or replace.

        Raises:
            LabError: The lab was started without links.
        """
        _ = self._links
        return self._config_through([node.announced_address for node in self.sentinels or self.nodes], {}, overrides)

    @property
    def _links(self) -> Network:
        if self._network is None:
            raise LabError("this lab cannot cut links; start it with links=True")
        return self._network

    def _config_through(self, seeds: list[str], mapped: dict[str, str], overrides: dict[str, Any]) -> HAConfig:
        return config_of(
            self._settings, self.topology, seeds, {} if self.topology == "standalone" else mapped, overrides
        )
