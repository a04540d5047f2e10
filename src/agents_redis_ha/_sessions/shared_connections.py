"""Shared connections: sessions whose configurations connect alike share them within one process and event loop.

Connections belong to the event loop that made them and do not survive a fork. So a shared set is found by the running
loop, is closed when that loop shuts down (as `asyncio.run` does at its end), and is left behind untouched in a forked
child. A loop that goes on after that (the SDK's `Runner.run_sync` shuts its generators down after each call) keeps the
next set until `close_shared_connections`. A session looks its set up anew whenever it finds itself in another loop.

A set is in use as long as a session object exists that has used it, which includes every operation under way. One that
is not is kept for a while, since web workers make a session a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass, field
from weakref import WeakSet, WeakValueDictionary

from redis.credentials import CredentialProvider

from .._asyncio import retrieve_exception
from .._config import HAConfig
from .._connections import Client, Locator, adopt, create_locator
from .._recovery import CoordinatorSource, Journal, RecoveryCoordinator
from .._retry import Executor

__all__ = ["close_shared_connections", "owned_coordinator", "shared_coordinator"]

# A process that makes a configuration for each tenant does not keep the histories of all of them.
_MOST_JOURNALS = 16
# What two looks in a row find unused is closed: after 30 to 60 s.
_LOOK_SECONDS = 30.0
# So many logs are freed with a look; that takes 5 ms.
_FREED_AT_ONCE = 1000
# A client or a credential provider that is made for each request is never met again: at 20 requests a second, 1,200
# sets of connections, with 6 to the Sentinels each, would wait for that.
_MOST_UNUSED = 8
# From so many sets on that differ in nothing but such an object, this is said.
_MANY_ALIKE = 4

_MADE_ANEW = (
    "%d sets of connections to the same servers differ in nothing but their %s. Sessions share connections only if "
    "they are given the same object: make the %s once, for all sessions"
)

_log = logging.getLogger("agents_redis_ha")


@dataclass(frozen=True)
class _Key:
    """What sessions have to have in common to share connections.

    Attributes:
        config: Where and how to connect, but for the credential provider.
        provider: The credential provider. Its type's ``__eq__`` decides; it need not be hashable.
        client: The user's own client.
    """

    config: HAConfig
    provider: CredentialProvider | None = field(hash=False)
    client: Client | None

    @classmethod
    def of(cls, config: HAConfig, client: Client | None) -> _Key:
        connecting = config.connection_part()
        return cls(connecting.model_copy(update={"credential_provider": None}), connecting.credential_provider, client)

    @property
    def is_of_an_object(self) -> bool:
        """Whether a session has to be given the same object, not only equal settings."""
        return self.client is not None or self.provider is not None


@dataclass
class _Set:
    """A set of connections.

    Attributes:
        coordinator: Uses them.
        journal: What is known of the sessions of these servers.
        users: The sources of the sessions that have used it, as long as these exist.
        was_unused: Whether nothing has used it since the last look.
    """

    coordinator: RecoveryCoordinator
    journal: Journal
    users: WeakSet[_Source] = field(default_factory=WeakSet)
    was_unused: bool = False

    @property
    def is_unused(self) -> bool:
        return not self.users and not self.coordinator.sweeps


class _Registry:
    """The connections of every event loop of this process.

    Attributes:
        generation: Grows whenever something was closed or left behind; a session that saw an older one looks anew.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._warned = False
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

    def warn(self, what: str) -> None:
        """Say once that an object which has to be the same one is made again and again."""
        if not self._warned:
            self._warned = True
            _log.warning(_MADE_ANEW, _MANY_ALIKE, what, what)

    def leave_behind(self) -> None:
        self._lock = threading.Lock()
        self.generation += 1
        self._inherited.append(self._loops)
        self._loops = {}


class _LoopConnections:
    """The connections of one event loop, those that were used last at the end."""

    def __init__(self, registry: _Registry) -> None:
        self.sets: dict[_Key, _Set] = {}
        # What was used last, by the objects themselves: to compare configurations takes as long as half an append.
        self._latest: tuple[HAConfig, Client | None, _Set] | None = None
        self._registry = registry
        self._guard = self._until_the_loop_ends()
        self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._close_unused)
        self._closing: dict[asyncio.Task[None], RecoveryCoordinator] = {}

    def of(self, config: HAConfig, user: _Source) -> RecoveryCoordinator:
        """Return the coordinator for a configuration, which this source's sessions use from now on."""
        if self._latest is not None and self._latest[0] is config and self._latest[1] is user.client:
            found = self._latest[2]
        else:
            key = _Key.of(config, user.client)
            known = self.sets.pop(key, None)
            found = known or self._make(key, config)
            found.journal.widen(config.repair)
            self.sets[key] = found
            self._latest = config, user.client, found
        found.users.add(user)
        found.was_unused = False
        return found.coordinator

    def _make(self, key: _Key, config: HAConfig) -> _Set:
        adopted, locator = _locate(config, key.client)
        journal = _journals.of(adopted)
        if key.is_of_an_object:
            kept = {known: each for known, each in self.sets.items() if known.is_of_an_object}
            alike = sum(known.config == key.config and each.journal is journal for known, each in kept.items())
            if alike + 1 == _MANY_ALIKE:
                self._registry.warn("client" if key.client else "credential_provider")
            for unused in [known for known, each in kept.items() if each.is_unused][: 1 - _MOST_UNUSED]:
                self._close(unused)
        return _Set(RecoveryCoordinator(adopted, Executor(adopted, locator), journal), journal)

    def _close_unused(self) -> None:
        self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._close_unused)
        for key, each in list(self.sets.items()):
            if each.is_unused and each.was_unused:
                self._close(key)
            each.was_unused = each.is_unused
            each.journal.drop_past(_FREED_AT_ONCE)

    def _close(self, key: _Key) -> None:
        coordinator, self._latest = self.sets.pop(key).coordinator, None
        task = asyncio.ensure_future(coordinator.aclose())
        self._closing[task] = coordinator
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        retrieve_exception(task)
        if not task.cancelled():  # as `asyncio.run` does with all tasks at its end
            del self._closing[task]

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
        self._look.cancel()
        sets, self.sets, self._latest = self.sets, {}, None
        left = [*self._closing.values(), *(each.coordinator for each in sets.values())]
        await asyncio.gather(*(coordinator.aclose() for coordinator in left))


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


class _Source:
    """Returns the coordinator that the sessions of one configuration (and client) share in the running loop."""

    __slots__ = ("__weakref__", "_config", "_coordinator", "_generation", "_loop", "client")

    def __init__(self, config: HAConfig, client: Client | None) -> None:
        self.client = client
        self._config = config
        self._coordinator: RecoveryCoordinator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generation = -1

    def __call__(self) -> RecoveryCoordinator:
        loop = asyncio.get_running_loop()
        if self._coordinator is None or self._loop is not loop or self._generation != _registry.generation:
            connections = _registry.of(loop) or _registry.open(loop)
            self._coordinator, self._loop = connections.of(self._config, self), loop
            self._generation = _registry.generation
        return self._coordinator


def shared_coordinator(config: HAConfig, client: Client | None = None) -> CoordinatorSource:
    """Return a source of the coordinator that sessions of this configuration (and client) share in the running loop.

    The connections are in use as long as the source exists.
    """
    return _Source(config, client)


def owned_coordinator(config: HAConfig, client: Client | None = None) -> RecoveryCoordinator:
    """Return a coordinator with connections and a journal of its own, which the caller closes.

    Args:
        config: Where the servers are.
        client: A user's own client.

    Raises:
        ConfigurationError: The client is none that can be used.
    """
    adopted, locator = _locate(config, client)
    return RecoveryCoordinator(adopted, Executor(adopted, locator))


def _locate(config: HAConfig, client: Client | None) -> tuple[HAConfig, Locator]:
    return (config, create_locator(config)) if client is None else adopt(client, config)


async def close_shared_connections() -> None:
    """Close the connections that sessions share in the running event loop; the next operation makes new ones.

    Rarely needed: they are closed when the event loop shuts down.
    """
    connections = _registry.of(asyncio.get_running_loop())
    if connections is not None:
        await connections.aclose()
