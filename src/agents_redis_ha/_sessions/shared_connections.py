"""Shared connections: sessions whose configurations connect alike share them within one process and event loop.

Connections belong to the event loop that made them and do not survive a fork. So a shared set is found by the running
loop, is closed when that loop shuts down (as `asyncio.run` does at its end), and is left behind untouched in a forked
child. A loop that goes on after that (the SDK's `Runner.run_sync` shuts its generators down after each call) keeps the
next set until `close_shared_connections`. A session looks its set up anew whenever it finds itself in another loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import TypeAlias
from weakref import WeakSet, WeakValueDictionary

from .._config import HAConfig
from .._connections import Client, adopt, create_locator
from .._recovery import Journal, RecoveryCoordinator
from .._retry import Executor

__all__ = ["CoordinatorSource", "close_shared_connections", "owned_coordinator", "shared_coordinator"]

CoordinatorSource: TypeAlias = Callable[[], RecoveryCoordinator]
"""Returns the coordinator to use in the running event loop."""

# A process that makes a configuration for each tenant does not keep the histories of all of them.
_MOST_JOURNALS = 16

_Key: TypeAlias = "tuple[HAConfig, Client | None]"  # the configuration's connection part


class _Registry:
    """The connections of every event loop of this process.

    Attributes:
        generation: Grows whenever something was closed or left behind; a session that saw an older one looks anew.
    """

    def __init__(self) -> None:
        self.generation = 0
        # Worker threads each run a loop of their own; a forked child takes a new one, since this may be held.
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopConnections] = {}
        # Loops that went on being used after they had shut their generators down (the SDK's Runner.run_sync).
        self._outliving: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        # What a forked child inherited: kept, since finalising it would disturb the parent's sockets and selectors.
        self._inherited: list[object] = []

    def of(self, loop: asyncio.AbstractEventLoop) -> _LoopConnections | None:
        return self._loops.get(loop)

    def open(self, loop: asyncio.AbstractEventLoop) -> _LoopConnections:
        connections = _LoopConnections(self)
        with self._lock:
            # Loops closed without shutting their generators down: nothing can be awaited there any more.
            self._loops = {known: kept for known, kept in self._loops.items() if not known.is_closed()}
            self._loops[loop] = connections
        # In such a loop a generator would bring a warning, and be of no use: it is shut down with each call.
        if loop not in self._outliving and not getattr(loop, "_asyncgens_shutdown_called", False):
            connections.register()
        return connections

    def generators_end(self, connections: _LoopConnections) -> None:
        self._outliving.update(loop for loop, known in self._loops.items() if known is connections)

    def forget(self, connections: _LoopConnections) -> None:
        with self._lock:
            self.generation += 1
            self._loops = {loop: known for loop, known in self._loops.items() if known is not connections}

    def leave_behind(self) -> None:
        self._lock = threading.Lock()
        self.generation += 1
        self._inherited.append(self._loops)
        self._loops = {}


class _LoopConnections:
    """The connections of one event loop, by configuration and (adopted) client."""

    def __init__(self, registry: _Registry) -> None:
        self.coordinators: dict[_Key, RecoveryCoordinator] = {}
        self._registry = registry
        self._guard = self._until_the_loop_ends()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Close everything when the loop shuts its asynchronous generators down."""
        try:
            yield
        finally:
            self._registry.generators_end(self)
            await self.aclose()

    def register(self) -> None:
        """Make the guard known to the running loop: one step, which awaits nothing, leads to its ``yield``."""
        with contextlib.suppress(StopIteration):
            self._guard.__anext__().send(None)

    async def aclose(self) -> None:
        self._registry.forget(self)
        coordinators, self.coordinators = self.coordinators, {}
        await asyncio.gather(*(coordinator.aclose() for coordinator in coordinators.values()))


class _Journals(threading.local):
    """What is known of the sessions, by the servers that keep them, for all event loops that a thread runs one by one.

    However a session is connected to and whatever its options are, there is one log of it. And a job that calls
    `asyncio.run` for each turn still knows what it wrote in the turns before.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Journal] = OrderedDict()
        self._in_use: WeakValueDictionary[Hashable, Journal] = WeakValueDictionary()  # also if it is not kept any more

    def of(self, config: HAConfig) -> Journal:
        """Return the journal of these servers, which keeps as much as this configuration asks for, or more."""
        servers = config.servers()
        journal = self._in_use.setdefault(servers, Journal(0, 0))
        journal.widen(config.repair)
        self._known[servers] = journal
        self._known.move_to_end(servers)
        while len(self._known) > _MOST_JOURNALS:
            self._known.popitem(last=False)
        return journal


_registry = _Registry()
_journals = _Journals()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.leave_behind)


def shared_coordinator(config: HAConfig, client: Client | None = None) -> CoordinatorSource:
    """Return a source of the coordinator that sessions of this configuration (and client) share in the running loop."""
    known: RecoveryCoordinator | None = None
    known_loop: asyncio.AbstractEventLoop | None = None
    generation = -1

    def source() -> RecoveryCoordinator:
        nonlocal known, known_loop, generation
        loop = asyncio.get_running_loop()
        if known is None or known_loop is not loop or generation != _registry.generation:
            known, known_loop, generation = _find(loop, config, client), loop, _registry.generation
        return known

    return source


def _find(loop: asyncio.AbstractEventLoop, config: HAConfig, client: Client | None) -> RecoveryCoordinator:
    connections = _registry.of(loop) or _registry.open(loop)
    key = (config.connection_part(), client)
    coordinator = connections.coordinators.get(key)
    if coordinator is None:
        coordinator = connections.coordinators[key] = _coordinator(config, client, _journals.of)
    else:
        coordinator.keep_as_much_as(config.repair)
    return coordinator


def owned_coordinator(config: HAConfig, client: Client | None = None) -> RecoveryCoordinator:
    """Return a coordinator with connections and a journal of its own, which the caller closes.

    Args:
        config: Where the servers are.
        client: A user's own client.

    Raises:
        ConfigurationError: The client is none that can be used.
    """
    return _coordinator(config, client)


def _coordinator(
    config: HAConfig, client: Client | None, journal_of: Callable[[HAConfig], Journal] | None = None
) -> RecoveryCoordinator:
    adopted, locator = (config, create_locator(config)) if client is None else adopt(client, config)
    return RecoveryCoordinator(adopted, Executor(adopted, locator), journal_of(adopted) if journal_of else None)


async def close_shared_connections() -> None:
    """Close the connections that sessions share in the running event loop; the next operation makes new ones.

    Rarely needed: they are closed when the event loop shuts down.
    """
    connections = _registry.of(asyncio.get_running_loop())
    if connections is not None:
        await connections.aclose()
