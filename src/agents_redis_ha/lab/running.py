"""The running servers of a lab: which they are, how clients reach them, whether they have settled."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import redis

from .certificates import Certificates
from .children import end_children
from .client_settings import config_of, url_of
from .errors import LabError
from .network import Network
from .node import Node
from .ports import release_port
from .servers import put_proxy
from .settings import Settings, Topology
from .waiting import wait_until

if TYPE_CHECKING:
    from agents_redis_ha._config import HAConfig


class Running(ABC):
    """The methods that a topology provides, and those built on them; `Lab` describes the attributes."""

    topology: ClassVar[Topology]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._owner = os.getpid()
        self._abandoned_ports: list[int] = []
        self._network = Network(settings.server.version) if settings.links else None
        self.nodes: list[Node] = []
        self.sentinels: list[Node] = []
        self.start_seconds = 0.0
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<Lab {self.topology} {[*self.nodes, *self.sentinels]}>"

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def server_version(self) -> tuple[int, int, int]:
        """Major, minor and patch of the server binary."""
        return self._settings.server.version

    @property
    def directory(self) -> Path:
        """The temporary directory with the servers' files; removed by `close`."""
        return self._settings.path

    @property
    def tls(self) -> bool:
        """Whether clients have to speak TLS."""
        return self._settings.certificates is not None

    @property
    def certificates(self) -> Certificates:
        """The throwaway certificates.

        Raises:
            LabError: The lab was started without TLS.
        """
        if self._settings.certificates is None:
            raise LabError("this lab has no certificates; start it with tls=True")
        return self._settings.certificates

    @property
    def url(self) -> str:
        """A URL for `ha_session`, credentials included.

        A URL cannot hold an address map: behind proxies use `config`.
        """
        return url_of(self._settings, self.topology, self._dialled())

    def config(self, **overrides: Any) -> HAConfig:
        """Return the configuration for `ha_session`; it leads through the lab's proxies.

        Args:
            overrides: Fields of `HAConfig` to add or replace.
        """
        mapped = {} if self.topology == "standalone" else self.address_map
        return config_of(self._settings, self.topology, self._dialled(), mapped, overrides)

    @property
    def address_map(self) -> dict[str, str]:
        """From the `host:port` that a server announces to the one to dial, where that is another."""
        nodes = self._all_nodes()
        return {
            node.announced_address: node.dial_address for node in nodes if node.announced_address != node.dial_address
        }

    def client(self, node: Node) -> redis.Redis:
        """Return a new client of the server itself, past its proxy; it never resends."""
        return node.client()

    def primaries(self) -> list[Node]:
        """Return the data servers that say now that they are primaries."""
        return [node for node in self.nodes if node.role() == "primary"]

    def replicas_of(self, node: Node) -> list[Node]:
        """Return the data servers that say now that they replicate this one."""
        return [other for other in self.nodes if other is not node and _primary_port(other) == node.announced_port]

    @abstractmethod
    def primary(self, key: str | bytes | None = None) -> Node:
        """Return the node that takes writes now.

        Args:
            key: In a cluster, the key whose slot's owner is wanted; None means slot 0. Elsewhere
                without meaning.

        Raises:
            LabError: There is none, or the Sentinels do not agree on one.
        """

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return when all servers that are up have settled.

        Replicas are linked and synced; all Sentinels see the same primary, every replica and each
        other; every member of a cluster sees all slots covered and no member failing. Servers that are
        down, stalled or isolated are left out.

        Raises:
            LabError: They have not in `timeout` seconds; the message says what was missing.
        """
        missing: list[str] = ["an answer"]

        def settled() -> bool:
            missing[0] = self._unsettled() or ""
            return not missing[0]

        wait_until(settled, lambda: missing[0], timeout)

    def wait_replicated(self, primary: Node, timeout: float = 10.0) -> None:
        """Return when every replica of a primary has all the writes that it has now.

        Raises:
            LabError: Not in `timeout` seconds, for example because replication is cut.
        """
        offset = int(primary.ask("INFO", "replication")["master_repl_offset"])

        def has_all(replica: Node) -> bool:
            return int(replica.ask("INFO", "replication")["slave_repl_offset"]) >= offset

        for replica in self.replicas_of(primary):
            wait_until(partial(has_all, replica), f"{replica.name} to have all writes of {primary.name}", timeout)

    def wait_for_new_primary(self, old: Node, timeout: float = 30.0) -> Node:
        """Return the server that took over from `old`, as soon as the others agree on it.

        Args:
            old: A primary of before; it may be dead, stalled or demoted.
            timeout: Seconds to wait for it.

        Raises:
            LabError: No server has taken over in time.
        """
        return wait_until(lambda: self._successor(old), f"a new primary in the place of {old.name}", timeout)

    @abstractmethod
    def promote(self, node: Node, timeout: float = 30.0) -> None:
        """Make a replica the primary in an orderly failover, and return when all servers have settled.

        Raises:
            LabError: The topology has no failover, or it did not come about in time.
        """

    def close(self) -> None:
        """End all processes and proxies, and remove the files.

        Does nothing the second time, or in a forked child.
        """
        atexit.unregister(self.close)
        if self._owner != os.getpid():
            return
        nodes = self._all_nodes()
        for node in nodes:
            with contextlib.suppress(LabError):
                node.close()
        end_children([node.process for node in nodes if node.alive])
        if self._network:
            self._network.close()
        for port in (*(node.port for node in nodes), *self._abandoned_ports):
            release_port(port)
        self._settings.directory.cleanup()

    def start_servers(self) -> None:
        """Start all servers and return when the lab is ready; called once, by `start`."""
        began = time.monotonic()
        self._build()
        for node in self._all_nodes():
            put_proxy(self._settings, node, wanted=self._settings.proxies and node in self.nodes)
        self.wait_ready()
        self.start_seconds = time.monotonic() - began

    @abstractmethod
    def _build(self) -> None:
        """Start the servers and introduce them to each other."""

    @abstractmethod
    def _unsettled(self) -> str | None:
        """Say what is still missing; None if nothing is."""

    @abstractmethod
    def _successor(self, old: Node) -> Node | None:
        """Return the primary that replaced `old`, if all servers that are up agree on one."""

    def _switch_own_clients(self) -> None:
        """Use the settings' credentials for the lab's own connections from now on."""
        for nodes, password in (
            (self.nodes, self._settings.password),
            (self.sentinels, self._settings.sentinel_password),
        ):
            for node in nodes:
                node.use_client_options(self._settings.client_options(password))

    def _attach(self, nodes: Iterable[Node]) -> None:
        """Give servers that are still to be started their place in the network, if the lab has one."""
        if self._network:
            for node in nodes:
                self._network.attach(node, with_bus=self.topology == "cluster")

    def _came_up(self, node: Node) -> None:
        """React to a server that has been started again."""

    def _dialled(self) -> list[str]:
        return [node.dial_address for node in self.sentinels or self.nodes]

    def _all_nodes(self) -> list[Node]:
        return [*self.nodes, *self.sentinels]


def _primary_port(node: Node) -> int | None:
    """Return the port of a replica's primary; None for others, and if it does not answer."""
    if not node.up:
        return None
    with contextlib.suppress(redis.RedisError):
        role = node.ask("ROLE")
        return int(role[2]) if role[0] == "slave" else None
    return None
