"""The nodes of a cluster: one plain client each, a slot map learned from any node, redirects followed here.

redis-py's `RedisCluster` never carries a session's data: it sends ASKING on another connection than the command that it
is for, and closes connections under other tasks when the topology changes, whose writes it then resends (see
docs/architecture.md). Here MOVED corrects the map at once, ASK leads one request elsewhere on one connection, and a
failed node makes the map be learned anew from the others, once for all operations that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from .. import _ambient as ambient
from .._commands import Reply
from .._config import Address, HAConfig, Topology
from ..errors import OperationError, WrongTopologyError
from . import factory
from .diagnosis import permanent_cause
from .failover_monitor import FailoverMonitor
from .failures import AttemptError, NoPrimaryError, TakenOverError, classify, in_words, tls_error
from .locator import Patience, SingleFlight, ask_all, is_majority
from .node import Node
from .request import Request

__all__ = ["ClusterLocator"]

_SLOTS = 16384
# A slot changes hands at most a few times while one request looks for it; more is a loop of stale maps.
_MAX_REDIRECTS = 6
# In a large cluster, so many members are asked for the slot map besides the seeds.
_MOST_INFORMANTS = 12


@dataclass(frozen=True)
class _Map:
    """What one node knows.

    Attributes:
        epoch: The cluster's.
        own_epoch: That of the node's own shard: in the moment of a failover only the new primary's is the highest.
        is_well: Whether the node serves requests: it finds a majority, and an owner for each slot.
        ranges: As CLUSTER SLOTS gives them.
        took_seconds: How long it took to tell.
    """

    epoch: int
    own_epoch: int
    is_well: bool
    ranges: list[Any]
    took_seconds: float = 0.0

    @property
    def authority(self) -> tuple[int, int, int]:
        """What makes one map better than another; the number of covered slots tells a node that has just joined."""
        return self.epoch, self.own_epoch, sum(last + 1 - first for first, last, *_ in self.ranges)


class ClusterLocator:
    """Knows the owner of each slot and keeps a plain client of each node that it met."""

    topology: Topology = "cluster"

    def __init__(self, config: HAConfig, data_client: Callable[[Address], Redis] | None = None) -> None:
        """Make a locator without connecting.

        Args:
            config: Some nodes of the cluster.
            data_client: Returns a client of a node; None means as the configuration says.
        """
        self._config = config
        self._data_client = data_client or partial(factory.node_client, config)
        self._seeds = config.nodes
        self._members: list[Address] = []
        self._nodes: dict[Address, Node] = {}
        self._owners: list[Address | None] = [None] * _SLOTS
        self._rows: list[tuple[Any, ...]] = []  # the ranges that they are from
        self._stale = True
        self._suspects: set[str] = set()
        self._known = False
        self._epoch = -1
        self._unwell: set[Address] = set()
        self._patience = Patience(config.pool)
        self._refresh = SingleFlight(self._learn)
        self.monitor = FailoverMonitor(self._refresh.run)
        self.failovers: list[str | None] = []

    async def attempt(self, request: Request) -> Reply:
        """See `Locator.attempt`."""
        node, asking = await self._owner(request.command.spec.keys.slot), False
        source = node
        for _ in range(_MAX_REDIRECTS):
            try:
                return await self.monitor.send(request, node, asking=asking)
            except AttemptError as error:
                cause = error.cause
                request.sent = request.sent and not _was_redirected(cause)
                if isinstance(cause, redis_errors.MovedError):
                    node, asking = self._moved(cause, node), False
                elif isinstance(cause, redis_errors.AskError):
                    source, node, asking = node, self._node(_address(cause, node)), True
                elif asking and isinstance(cause, redis_errors.TryAgainError):
                    return await self._begin_at(node, source, request)
                else:
                    raise
        raise AttemptError(redis_errors.ConnectionError("the nodes redirect in a circle"), node=node.name, sent=False)

    async def _begin_at(self, target: Node, source: Node, request: Request) -> Reply:
        """Send a request to the node that imports the slot although not all of its keys exist there.

        Such a node refuses several keys of which some are missing (TRYAGAIN), since they may still be at the source. If
        the source holds none of them, none can be created there any more: then they begin at the target, and the script
        declares one key only, which the target accepts. Otherwise the migration has to move them first.
        """
        keys = request.command.spec.keys
        try:
            answers = await source.call(*(("EXISTS", key) for key in (keys.items, keys.meta, keys.ops, keys.turns)))
        except AttemptError as error:  # what was sent is the question only; a broken connection is no failed handshake
            cause = redis_errors.ConnectionError(str(error)) if tls_error(error.cause) else error.cause
            raise AttemptError(cause, node=source.name, sent=False) from error
        if not all(isinstance(answer, redis_errors.AskError) for answer in answers):
            moving = redis_errors.TryAgainError("the session is being moved to another node")
            raise AttemptError(moving, node=target.name, sent=False)
        return await self.monitor.send(request, target, asking=True, only_first_key=True)

    def suspect(self, error: AttemptError) -> None:
        """See `Locator.suspect`."""
        if isinstance(error.cause, TakenOverError):
            return
        if error.node is None:
            self._stale = True
        else:  # requests to other nodes need not wait
            self._suspects.add(error.node)
        self.monitor.begin()

    def nodes(self) -> list[Node]:
        """See `Locator.nodes`."""
        return list(self._nodes.values())

    async def primaries(self) -> list[Node]:
        """See `Locator.primaries`."""
        await self._refresh.run()
        return [self._node(address) for address in sorted({a for a in self._owners if a is not None})]

    async def problems(self) -> list[str]:
        """See `Locator.problems`."""
        missing = self._owners.count(None)
        return [f"{missing} of {_SLOTS} slots have no owner"] if missing else []

    async def _owner(self, slot: int) -> Node:
        address = self._owners[slot]
        if self._stale or address is None or (self._suspects and str(address) in self._suspects):
            await self.monitor.looked()
            address = self._owners[slot]
        if address is None:
            self._stale = True
            cause = NoPrimaryError("no node of the cluster owns the slot of this session")
            raise AttemptError(cause, node=None, sent=False)
        return self._node(address)

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None or node.retired:
            node = self._nodes[address] = Node(str(address), partial(self._data_client, address), self._config.pool)
        return node

    def _moved(self, error: redis_errors.MovedError, told_by: Node) -> Node:
        address = _address(error, told_by)
        self._owners[error.slot_id] = address
        self._rows = []
        # One slot moved, or the whole map is old: the next request learns it anew.
        self._stale = True
        return self._node(address)

    async def _learn(self) -> None:
        """Learn the slot map from the node with the highest epoch: one that slept may still name the deposed ones."""
        # Replicas tell it too: they are all that is left of what we know if the only seed is the node that died.
        others = ambient.sample(self._members, min(len(self._members), _MOST_INFORMANTS))
        known = dict.fromkeys([*self._seeds, *others])
        questions = {address: self._ask(self._node(address)) for address in known}
        maps, errors = await ask_all(questions, self._patience.seconds, one_is_enough=True)
        if not maps:
            self._patience.silent()
            raise await self._no_answer(errors)
        self._patience.answered(min(each.took_seconds for each in maps.values()))
        told_by = max(maps, key=lambda address: maps[address].authority)
        best = maps[told_by]
        if best.epoch < self._epoch and not is_majority(maps, known):
            reason = f"only nodes that slept through a failover answer ({', '.join(str(a) for a in maps)})"
            raise AttemptError(redis_errors.ConnectionError(reason), node=None, sent=False)
        self._epoch = best.epoch
        self._adopt(best.ranges, told_by)
        self._note_health({address for address in known if address not in maps or not maps[address].is_well})

    def _note_health(self, unwell: set[Address]) -> None:
        """Wake waiting operations when a primary serves again without a takeover: it came back, or found the rest."""
        recovered = self._unwell - unwell
        self._unwell = unwell
        if recovered and recovered & set(self._owners):
            self.monitor.topology_changed()

    async def _ask(self, node: Node) -> _Map:
        """Return a node's slot map and the epoch that it knows."""
        now = asyncio.get_running_loop().time
        began = now()
        ranges, state = await node.call(("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"))
        for reply in (ranges, state):
            if isinstance(reply, redis_errors.ResponseError):
                raise AttemptError(reply, node=node.name, sent=True)
        fields = dict(line.split(":", 1) for line in bytes(state).decode().split() if ":" in line)
        epoch, own_epoch = (int(fields.get(f"cluster_{name}_epoch", 0)) for name in ("current", "my"))
        return _Map(epoch, own_epoch, fields.get("cluster_state", "ok") == "ok", ranges, now() - began)

    def _adopt(self, ranges: list[Any], told_by: Address) -> None:
        rows = [(first, last, *(_named(node, told_by) for node in nodes)) for first, last, *nodes in ranges]
        if rows == self._rows:  # as with almost every poll: to go through 16,384 slots takes a millisecond
            before = owners = self._owners
            deposed = set[Address]()
        else:
            before, owners = self._owners, [None] * _SLOTS
            for first, last, primary, *_ in rows:
                owners[first : last + 1] = [primary] * (last + 1 - first)
            deposed = {a for a in before if a is not None} - {a for a in owners if a is not None}
        successors = dict(zip(before, owners, strict=True)) if deposed else {}
        members = list(dict.fromkeys(address for row in rows for address in row[2:]))
        self._rows, self._owners, self._members, self._known = rows, owners, members, True
        self._stale = False
        self._suspects.clear()
        for address in deposed & set(self._nodes):
            # Cut what waits for it: a node that lost its slots cannot answer for them.
            successor = successors[address]
            self.failovers.append(str(successor) if successor else None)
            if successor:
                self._node(successor).note_takeover(self._nodes[address].replication_id)
            self._retire(address)
        for address in set(self._nodes) - set(members) - set(self._seeds):
            self._retire(address)
        if deposed:
            self.monitor.topology_changed()

    def _retire(self, address: Address) -> None:
        node = self._nodes.pop(address)
        node.retire()
        self.monitor.cut(node)

    async def _no_answer(self, errors: dict[Address, Exception]) -> AttemptError:
        text = "; ".join(f"{address}: {in_words(error)}" for address, error in errors.items())
        cause = NoPrimaryError(f"no node tells the slot map ({text})")
        permanent = None
        if not self._known:
            found = [await self._permanent(address, error) for address, error in errors.items()]
            permanent = next((kind for kind in found if kind is not None), None)
        return AttemptError(cause, node=None, sent=False, permanent=permanent)

    async def _permanent(self, address: Address, error: Exception) -> type[OperationError] | None:
        if not isinstance(error, AttemptError):
            return None
        if "cluster support disabled" in str(error.cause) or "unknown command" in str(error.cause):
            return WrongTopologyError
        failure = classify(error.cause, sent=error.sent)
        if not failure.retry:
            return failure.error
        return await permanent_cause(error, factory.dialled(self._config, address), self._config.tls)

    async def aclose(self) -> None:
        """See `Locator.aclose`."""
        await self.monitor.aclose()
        await self._refresh.aclose()
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()))


def _was_redirected(cause: BaseException) -> bool:
    """Whether a node refused a request before it ran, and another one or another attempt is to be asked."""
    return isinstance(cause, (redis_errors.MovedError, redis_errors.AskError, redis_errors.TryAgainError))


def _address(error: redis_errors.AskError, told_by: Node) -> Address:
    """Return where a redirect leads; an empty host means the one that answered (cluster-preferred-endpoint-type)."""
    host = error.host if error.host and error.host != "?" else told_by.name.rpartition(":")[0].strip("[]")
    return Address(host, error.port)


def _named(node: list[Any], told_by: Address) -> Address:
    """Return a node's address in CLUSTER SLOTS, where a missing host likewise means the one that answered."""
    host = node[0].decode() if node[0] else ""
    return Address(host if host not in ("", "?") else told_by.host, int(node[1]))
