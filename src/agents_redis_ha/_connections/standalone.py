"""One endpoint: a standalone server, a Unix socket, or a managed service's stable name."""

from __future__ import annotations

import asyncio
from functools import partial

from redis.exceptions import MovedError, ResponseError

from .._asyncio import timeout_at
from .._commands import Reply
from .._config import HAConfig, Topology
from ..errors import NotPrimaryError, OperationError, WrongTopologyError
from .diagnosis import permanent_cause
from .factory import dialled, node_client
from .failover_monitor import FailoverMonitor
from .failures import READ_ONLY, AttemptError, classify
from .locator import Patience
from .node import Node
from .request import Request

__all__ = ["StandaloneLocator"]


class StandaloneLocator:
    """Always the same endpoint. A name behind which the primary changes is resolved anew for each new connection."""

    topology: Topology = "standalone"

    def __init__(self, config: HAConfig, node: Node | None = None) -> None:
        address = config.nodes[0] if config.nodes else None
        self._dialled = dialled(config, address) if address else None
        self._tls = config.tls
        self._node = node or Node(
            str(address or config.unix_socket_path), partial(node_client, config, address), config.pool
        )
        self._patience = Patience(config.pool)
        self._answered = False
        self._was_read_only = False
        self.monitor = FailoverMonitor(self._look)
        self.failovers: list[str | None] = []

    async def attempt(self, request: Request) -> Reply:
        """See `Locator.attempt`."""
        try:
            reply = await self._node.execute(request)
        except AttemptError as error:
            error.permanent = await self._permanent(error)
            raise
        self._answered = True
        if self._was_read_only:  # a replica refuses what reads, too (reading.lua)
            self._was_read_only = False
            self.failovers.append(self._node.name)
        return reply

    async def _permanent(self, error: AttemptError) -> type[OperationError] | None:
        if isinstance(error.cause, MovedError):
            return WrongTopologyError
        if classify(error.cause, sent=error.sent).reason == READ_ONLY:
            # If it answered before, a failover behind the endpoint is under way: its name will lead elsewhere.
            if not self._answered:
                return NotPrimaryError
            self._was_read_only = True
            self._node.note_takeover(self._node.replication_id)
            self._node.start_afresh()
            return None
        if not self._answered:
            return await permanent_cause(error, self._dialled, self._tls)
        return None

    def suspect(self, error: AttemptError) -> None:
        """See `Locator.suspect`. There is nowhere else to look, but it may come back."""
        self.monitor.begin()

    async def _look(self) -> None:
        """Return if the server answers, be it with a refusal, unless it says that it is not ready yet."""
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with timeout_at(began + self._patience.seconds):  # the next look follows at once
                await self._node.call(("PING",))
            self._patience.answered(now() - began)
        except asyncio.TimeoutError:
            self._patience.silent()
            raise
        except AttemptError as error:
            if not isinstance(error.cause, ResponseError) or classify(error.cause, sent=error.sent).refresh_topology:
                raise

    def nodes(self) -> list[Node]:
        """See `Locator.nodes`."""
        return [self._node]

    async def primaries(self) -> list[Node]:
        """See `Locator.primaries`."""
        return [self._node]

    async def problems(self) -> list[str]:
        """See `Locator.problems`."""
        return []

    async def aclose(self) -> None:
        """See `Locator.aclose`."""
        await self.monitor.aclose()
        await self._node.aclose()
