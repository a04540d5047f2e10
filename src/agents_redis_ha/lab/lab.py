"""What every lab can do, whatever its topology."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .certificates import Certificates
from .children import end_children
from .client_settings import config_of, url_of
from .credentials import Credentials
from .errors import LabError
from .links import Links
from .node import Node
from .ports import release_port, reserve_port
from .replication import has_all_writes, replicated_port
from .server_conf import address_directives
from .servers import ANSWER_SECONDS, put_proxy
from .settings import Settings, Topology
from .slots import SlotMove
from .waiting import WAIT_SECONDS, wait_until, wait_until_complete

if TYPE_CHECKING:
    import redis

    from agents_redis_ha._config import HAConfig

_STOP_SECONDS = 15.0  # longer than the 10 s that a server from 7.0 on waits for its replicas


class Lab(ABC):
    """Real servers on 127.0.0.1, as child processes, with faults.

    Made by `start`; as a context manager it closes itself. A topology provides the methods that are abstract here.

    All methods block: asynchronous code calls them by `asyncio.to_thread`.

    Attributes:
        topology: "standalone", "sentinel" or "cluster".
        nodes: The data servers, primaries and replicas; the order never changes.
        sentinels: The Sentinels, if any.
        credentials: Changes passwords and certificates.
        start_seconds: How long the start took until everything was ready.
    """

    topology: ClassVar[Topology]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._owner = os.getpid()
        self._abandoned_ports: list[int] = []
        self._links = Links(settings.server.version, self._config_dialling) if settings.links else None
        self.nodes: list[Node] = []
        self.sentinels: list[Node] = []
        self.credentials = Credentials(settings, self.nodes, self.sentinels, self._restart_settled)
        self.start_seconds = 0.0
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<Lab {self.topology} {self._all_nodes()}>"

    def __enter__(self) -> Lab:
        return self

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
    def links(self) -> Links:
        """What is between the servers, to cut them off from each other.

        Raises:
            LabError: The lab was started without links.
        """
        if self._links is None:
            raise LabError("this lab cannot cut links; start it with links=True")
        return self._links

    @property
    def url(self) -> str:
        """A URL for `ha_session`, credentials included.

        A URL cannot hold an address map: behind proxies use `config`.
        """
        return url_of(self._settings, self.topology, [node.dial_address for node in self._seeds])

    def config(self, **overrides: Any) -> HAConfig:
        """Return the configuration for `ha_session`; it leads through the lab's proxies.

        Args:
            overrides: Fields of `HAConfig` to add or replace.
        """
        return self._config_dialling(lambda node: node.dial_address, overrides)

    def client(self, node: Node) -> redis.Redis:
        """Return a new client of the server itself, past its proxy; it never resends."""
        return node.client()

    def primaries(self) -> list[Node]:
        """Return the data servers that say now that they are primaries."""
        return [node for node in self.nodes if node.role() == "primary"]

    def replicas_of(self, node: Node) -> list[Node]:
        """Return the data servers that say now that they replicate this one."""
        return [other for other in self.nodes if other is not node and replicated_port(other) == node.announced_port]

    @abstractmethod
    def primary(self, key: str | bytes | None = None) -> Node:
        """Return the node that takes writes now.

        Args:
            key: In a cluster, the key whose slot's owner is wanted; None means slot 0. Elsewhere without meaning.

        Raises:
            LabError: There is none, or the Sentinels do not agree on one.
        """

    @abstractmethod
    def promote(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        """Make a replica the primary in an orderly failover, and return when all servers have settled.

        Raises:
            LabError: The topology has no failover, or it did not come about in time.
        """

    def wait_ready(self, timeout: float = WAIT_SECONDS) -> None:
        """Return when all servers that are up have settled.

        Replicas are linked and synced; all Sentinels see the same primary, every replica and each other; every member
        of a cluster sees all slots covered and no member failing. Servers that are down, stalled or isolated are left
        out.

        Raises:
            LabError: They have not in `timeout` seconds; the message says what was missing.
        """
        wait_until_complete(self._unsettled, timeout)

    def wait_replicated(self, primary: Node, timeout: float = 10.0) -> None:
        """Return when every replica of a primary has all the writes that it has now.

        Raises:
            LabError: Not in `timeout` seconds, for example because replication is cut.
        """
        offset = int(primary.ask("INFO", "replication")["master_repl_offset"])
        for replica in self.replicas_of(primary):
            what = f"{replica.name} to have all writes of {primary.name}"
            wait_until(partial(has_all_writes, replica, offset), what, timeout)

    def wait_for_new_primary(self, old: Node, timeout: float = WAIT_SECONDS) -> Node:
        """Return the server that took over from `old`, as soon as the others agree on it.

        Args:
            old: A primary of before; it may be dead, stalled or demoted.
            timeout: Seconds to wait for it.

        Raises:
            LabError: No server has taken over in time.
        """
        return wait_until(lambda: self._successor(old), f"a new primary in the place of {old.name}", timeout)

    def kill(self, node: Node) -> None:
        """End the process with SIGKILL; connections break at once."""
        node.kill()

    def stop(self, node: Node) -> None:
        """End the process with SIGTERM, as an orderly shutdown does."""
        node.terminate(_STOP_SECONDS)

    def stall(self, node: Node) -> None:
        """Stop the process with SIGSTOP: it accepts connections but answers nothing."""
        node.freeze()

    def resume(self, node: Node) -> None:
        """Let a stalled process go on (SIGCONT). It does not know what it missed."""
        node.thaw()

    def restart(self, node: Node, timeout: float = ANSWER_SECONDS) -> None:
        """Start the server again on its port and with its files, and return when it answers.

        A server that is up is stopped first. A former primary comes back as a primary, until the Sentinels or the
        cluster demote it: `wait_ready` waits for that.

        Raises:
            LabError: It does not start; the message holds the end of its log.
        """
        if node.alive:
            self.stop(node)
        node.launch()
        node.wait_until_answering(timeout)
        self._came_up(node)

    def restart_empty(self, node: Node, timeout: float = ANSWER_SECONDS) -> None:
        """Kill the server, remove its data, start it again at once, and return when it answers.

        It keeps what it knows of its cluster. This takes about 0.1 s. If `down_after_ms` (`node_timeout_ms`) is longer,
        there is no failover: a primary stays one, and its replicas copy the empty data; `wait_ready` waits for that. A
        primary of a cluster answers CLUSTERDOWN for its first 2 s (Redis's own delay after a restart).

        Raises:
            LabError: It does not start; the message holds the end of its log.
        """
        if node.alive:
            self.kill(node)
        node.remove_data()
        self.restart(node, timeout)

    def stop_sentinels(self, *, all_but: int = 0) -> None:
        """Stop (SIGTERM) the Sentinels that are up, the last ones first, until `all_but` are left."""
        for sentinel in [sentinel for sentinel in self.sentinels if sentinel.up][all_but:]:
            self.stop(sentinel)

    def start_sentinels(self) -> None:
        """Start the Sentinels that are down, and return when they answer."""
        for sentinel in self.sentinels:
            if not sentinel.alive:
                self.restart(sentinel)

    def rolling_restart(self, timeout: float = WAIT_SECONDS) -> None:
        """Restart every data server, as an operator does for an upgrade, and return when all have settled.

        First the replicas; then each primary, after an orderly failover to a replica. All settle between two restarts.

        Args:
            timeout: Seconds to wait for each step.

        Raises:
            LabError: A step has not come about in time.
        """
        primaries = self.primaries()
        for node in [node for node in self.nodes if node not in primaries] + primaries:
            heirs = self.replicas_of(node)
            if heirs and node.role() == "primary":
                self.promote(heirs[0], timeout)
            self._restart_settled(node, timeout)

    def move_address(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        """Stop a data server, start it with its data on another port, and return when all have settled.

        It is what an orchestrator does when it replaces a pod. The others learn the new address from the server itself.
        A primary watched by Sentinels is replaced first and comes back as a replica, because Sentinels follow a primary
        only by a failover; they go on listing the old address as a replica that is down. A primary of a cluster stays
        one if it is back within `node_timeout_ms`. Configurations made before lack the new address in their
        `address_map`.

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
        self._restart_settled(node, timeout)

    def begin_slot_move(self, slot: int, target: Node | None = None) -> SlotMove:
        """Start to move a slot: the source answers ASK for the keys that it does not have.

        Args:
            slot: 0 to 16383.
            target: A primary; None takes the one after the slot's owner.

        Raises:
            LabError: Not a cluster, or the target is no other primary.
        """
        raise LabError(f"a {self.topology} lab has no slots")

    def move_slot(self, slot: int, target: Node | None = None, *, pause: Callable[[], object] | None = None) -> Node:
        """Move a slot with its keys to another primary, while clients go on, and return the new owner.

        Args:
            slot: 0 to 16383.
            target: A primary; None takes the one after the slot's owner.
            pause: Called once, when half of the slot's keys have moved.

        Raises:
            LabError: Not a cluster, or the target is no other primary.
        """
        move = self.begin_slot_move(slot, target)
        if pause is not None:
            move.migrate_keys(move.keys_left() // 2)
            pause()
        move.finish()
        return move.target

    def start_servers(self) -> None:
        """Start all servers and return when the lab is ready; called once, by `start`."""
        began = time.monotonic()
        self._build()
        for node in self._all_nodes():
            put_proxy(self._settings, node, wanted=self._settings.proxies and node in self.nodes)
        self.wait_ready()
        self.start_seconds = time.monotonic() - began

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
        if self._links:
            self._links.close()
        for port in (*(node.port for node in nodes), *self._abandoned_ports):
            release_port(port)
        self._settings.directory.cleanup()

    @abstractmethod
    def _build(self) -> None:
        """Start the servers and introduce them to each other."""

    @abstractmethod
    def _unsettled(self) -> str | None:
        """Say what is still missing; None if nothing is."""

    @abstractmethod
    def _successor(self, old: Node) -> Node | None:
        """Return the primary that replaced `old`, if all servers that are up agree on one."""

    def _came_up(self, node: Node) -> None:
        """React to a server that has been started again."""

    def _followed(self, node: Node, timeout: float) -> dict[str, str]:
        """Return what a server that is down has to be told about its primary before it comes back."""
        return {}

    def _restart_settled(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        self.restart(node, timeout)
        self.wait_ready(timeout)

    def _attach(self, nodes: Iterable[Node]) -> None:
        """Give servers that are still to be started their place among the links, if the lab has any."""
        if self._links:
            for node in nodes:
                self._links.attach(node, with_bus=self.topology == "cluster")

    def _config_dialling(self, address_of: Callable[[Node], str], overrides: Mapping[str, Any]) -> HAConfig:
        seeds = [address_of(node) for node in self._seeds]
        dialled = {node.announced_address: address_of(node) for node in self._all_nodes()}
        return config_of(self._settings, self.topology, seeds, dialled, overrides)

    @property
    def _seeds(self) -> list[Node]:
        return self.sentinels or self.nodes

    def _all_nodes(self) -> list[Node]:
        return [*self.nodes, *self.sentinels]
