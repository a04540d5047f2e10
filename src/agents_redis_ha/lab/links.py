"""The links between the servers of a lab, any of which can be cut.

Every server announces the address of a relay in front of it in place of its own, and dials from a source address of
its own (`bind-source-addr`, from Redis 7.0 on, with 127.0.0.11, 127.0.0.12 …). So a relay knows who dials whom, and
what is cut vanishes: bytes, the ends of connections, and new connections, which are accepted and never answered.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import LabError, PortTakenError
from .loop_thread import LoopThread
from .node import Node
from .ports import BUS_OFFSET, HOST, release_port, reserve_port
from .relays import Listener, Relays
from .wire import Wire

if TYPE_CHECKING:
    from agents_redis_ha._config import HAConfig

MINIMUM_VERSION = (7, 0, 0)  # the first with bind-source-addr
_FIRST_SOURCE = 11


@dataclass(frozen=True, kw_only=True)
class Door:
    """A port through which a server is reached.

    Attributes:
        target: The server behind it.
        port: Where it listens.
        bus: Whether it leads to the server's cluster bus.
        beside: The server whose clients dial it. None: servers and clients of any side, told apart by address.
    """

    target: Node
    port: int
    bus: bool = False
    beside: Node | None = None


class Links:
    """Faults between servers, for labs started with `links=True`; as `Lab.links`.

    Bytes between servers that are cut off vanish without a sign, as in a network that loses every packet. Only a new
    connection is accepted, by the relay; then nothing answers on it. When the cut is healed, a connection that lost
    bytes is reset, so that nothing arrives late. Connections on which nothing was sent go on.

    Args:
        server_version: The servers'.
        config_dialling: Makes the configuration of a client: where it dials each server, and the fields to replace.

    Raises:
        LabError: The servers are too old, or the system does not route 127.0.0.11.
    """

    def __init__(
        self,
        server_version: tuple[int, int, int],
        config_dialling: Callable[[Callable[[Node], str], Mapping[str, Any]], HAConfig],
    ) -> None:
        if server_version < MINIMUM_VERSION:
            version = ".".join(map(str, server_version))
            raise LabError(f"links=True needs servers of 7.0 or newer, which have bind-source-addr; this is {version}")
        _check_sources()
        self._config_dialling = config_dialling
        self._loop = LoopThread("links")
        self._listeners: dict[Door, Listener] = {}
        self._sources: dict[str, Node] = {}
        self._ports: list[int] = []
        self._sides: dict[Node, int] = {}
        self._sides_made = 0
        self._unreplicated: set[Node] = set()
        self._relays = Relays()

    def cut_replication(self, replica: Node) -> None:
        """Have the replica receive nothing more from its primary, nor from a later one.

        It stays up and answers clients, Sentinels and the cluster bus. Until `repl-timeout` (60 s) it calls itself a
        connected replica: it can be promoted with the data of this moment.
        """
        self._loop.run(self._change(unreplicated={*self._unreplicated, replica}))

    def mend_replication(self, replica: Node) -> None:
        """Undo `cut_replication`: the link is reset, and the replica asks at once for what it missed."""
        self._loop.run(self._change(unreplicated=self._unreplicated - {replica}))

    def is_replication_cut(self, replica: Node) -> bool:
        """Return whether `cut_replication` holds."""
        return replica in self._unreplicated

    def partition(self, *nodes: Node) -> None:
        """Cut these servers off from all the others; among themselves they still talk.

        Called again, it puts further servers on a third side. `wait_ready` and `wait_for_new_primary` then ask the
        rest alone. `lab.client`, `lab.config` and a server's own port still reach every server; `config_inside` and
        `config_outside` are the clients of one side.
        """
        self._sides_made += 1
        self._loop.run(self._change(sides={**self._sides, **dict.fromkeys(nodes, self._sides_made)}))
        for node in nodes:
            node.isolated = True

    def heal(self) -> None:
        """End all partitions and mend all replication."""
        self._loop.run(self._change(sides={}, unreplicated=set()))
        for node in self._sources.values():
            node.isolated = False

    def config_inside(self, node: Node, **overrides: Any) -> HAConfig:
        """Return the configuration of a client beside this server.

        It always reaches this server, and the others if this server reaches them: they vanish for it with `partition`
        and come back with `heal`. Faults of `node.proxy` hold for it too.

        Args:
            node: The server whose side the client is on.
            overrides: Fields of `HAConfig` to add or replace.
        """
        return self._config_dialling(partial(self._address_beside, node), overrides)

    def config_outside(self, **overrides: Any) -> HAConfig:
        """Return the configuration of a client on the side of the rest: it never reaches an isolated server.

        Args:
            overrides: Fields of `HAConfig` to add or replace.
        """
        return self._config_dialling(lambda node: node.announced_address, overrides)

    def attach(self, node: Node, *, with_bus: bool) -> None:
        """Give a server, before its start, a source address and a relay, which it is to announce.

        Raises:
            PortTakenError: Another process took the relay's port in the meantime.
        """
        if node.source is None:
            node.source = f"127.0.0.{_FIRST_SOURCE + len(self._sources)}"
            self._sources[node.source] = node
        else:
            self._loop.run(self._shut([door for door in self._listeners if door.target is node and not door.beside]))
        node.announced_port = reserve_port(with_bus=with_bus)
        self._open(Door(target=node, port=node.announced_port))
        if with_bus:
            self._open(Door(target=node, port=node.announced_port + BUS_OFFSET, bus=True))

    def close(self) -> None:
        """End all relays and the thread; a second time does nothing."""
        if not self._loop.closed:
            with contextlib.suppress(LabError):
                self._loop.run(self._end())
            self._loop.close()
            for port in self._ports:
                release_port(port)

    def _address_beside(self, node: Node, target: Node) -> str:
        """Return where the clients that stand beside `node` reach `target`."""
        for door in self._listeners:
            if door.beside is node and door.target is target:
                return f"{HOST}:{door.port}"
        door = Door(target=target, port=reserve_port(), beside=node)
        self._open(door)
        return f"{HOST}:{door.port}"

    async def _change(self, sides: dict[Node, int] | None = None, unreplicated: set[Node] | None = None) -> None:
        # In the relays' own thread: so no chunk is between its check and its delivery.
        self._sides = self._sides if sides is None else sides
        self._unreplicated = self._unreplicated if unreplicated is None else unreplicated
        self._relays.abort_mended()

    def _passes(self, door: Door, source: Node | None) -> bool:
        if source in self._unreplicated and not door.bus and not door.beside:
            return False
        side = self._sides.get(source, 0) if source else 0
        return side == self._sides.get(door.target, 0)

    def _open(self, door: Door) -> None:
        self._ports.append(door.port)
        try:
            self._loop.run(self._listen(door))
        except OSError as error:
            raise PortTakenError(f"no relay can listen on {HOST}:{door.port}: {error}") from error

    async def _listen(self, door: Door) -> None:
        self._listeners[door] = self._relays.listen(door.port, partial(self._accepted, door))

    def _accepted(self, door: Door, connection: socket.socket, host: str) -> Wire:
        source = door.beside or self._sources.get(host)
        server = _upstream(door, by_server=source is not None and not door.beside)
        return Wire(connection, server, lambda: self._passes(door, source))

    async def _shut(self, doors: Iterable[Door]) -> None:
        for door in list(doors):
            self._listeners.pop(door).close()

    async def _end(self) -> None:
        await self._shut(self._listeners)
        self._relays.abort()


def _upstream(door: Door, *, by_server: bool) -> tuple[str, int]:
    """Return where the relay leads: clients pass the server's proxy, if it has one."""
    node = door.target
    if door.bus:
        return node.host, node.port + BUS_OFFSET
    if by_server:
        return node.host, node.port
    host, _, port = node.dial_address.rpartition(":")
    return host, int(port)


def _check_sources() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((f"127.0.0.{_FIRST_SOURCE}", 0))
        except OSError as error:
            raise LabError(
                f"links=True gives each server a source address from 127.0.0.{_FIRST_SOURCE} on, and this system has "
                f"only 127.0.0.1 ({error}); on macOS add them with: ifconfig lo0 alias 127.0.0.{_FIRST_SOURCE}"
            ) from error
