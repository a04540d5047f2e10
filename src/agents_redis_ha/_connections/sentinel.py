"""The primary that the Sentinels elected, learned from all of them and swapped the moment that it changes.

redis-py looks the primary up only when it connects, so a healthy connection to a deposed primary is never questioned.
Here the Sentinels are asked at the first use, after every error, every ``poll_interval_seconds``, and whenever one of
them announces a failover. Of their answers the one with the highest configuration epoch counts
(https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs): a Sentinel that was cut
off may name the deposed primary for as long as it likes.

A Sentinel promotes a replica by a command and then waits for its own next INFO, up to a second later, to learn that it
took effect; only then does it announce the new primary. Here the replica itself is asked: what the leading Sentinel has
chosen, and what says itself that it is a primary, is the one that all of them are about to name. From the choice on,
nothing is sent to the old primary: in a failover by hand that one is alive, and what it still takes is lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from .. import _ambient as ambient
from .._asyncio import BackgroundTasks, timeout_at
from .._commands import Reply
from .._config import Address, HAConfig, Topology
from ..errors import OperationError, PrimaryNotFoundError, WrongTopologyError
from . import factory, sentinel_events
from .diagnosis import permanent_cause
from .failover_monitor import FailoverMonitor
from .failures import AttemptError, NoPrimaryError, ShortfallError, TakenOverError, classify, in_words
from .locator import SingleFlight
from .node import Node
from .request import Request
from .sentinel_group import SentinelGroup, is_refusal
from .sentinel_state import SentinelState

__all__ = ["SentinelLocator"]

# A Sentinel tells the others of a new epoch every 2 s; a majority that names an older one for longer has been reset.
_FORGET_EPOCH_SECONDS = 10.0

# A listener that goes on although it was cancelled is cancelled again after so long.
_CANCELS_AGAIN_SECONDS = 0.1


class SentinelLocator:
    """Asks the Sentinels which server is the primary and keeps a plain client of that one."""

    topology: Topology = "sentinel"

    def __init__(
        self,
        config: HAConfig,
        data_client: Callable[[Address], Redis] | None = None,
        sentinel_client: Callable[[Address], Redis] | None = None,
    ) -> None:
        """Make a locator without connecting.

        Args:
            config: Where the Sentinels are.
            data_client: Returns a client of a data server; None means as the configuration says.
            sentinel_client: Returns a client of a Sentinel; None means as the configuration says.
        """
        self._config = config
        self._data_client = data_client or partial(factory.node_client, config)
        self._sentinel_client = sentinel_client or partial(factory.sentinel_client, config)
        self._service = config.service_name or ""
        self._sentinels = SentinelGroup(config, self._sentinel_client)
        self._settings = self._sentinels.settings
        self._node: Node | None = None
        self._address: Address | None = None
        self._run_id: str | None = None
        self._unreachable: Address | None = None
        self._promoted_replica: Node | None = None
        self._promoted_by: Address | None = None
        self._epoch = -1
        self._epoch_seen_at = 0.0
        self._lease_until = 0.0
        self._vouching = ""
        self._announced = 0
        self._stale = True
        self._refresh = SingleFlight(self._find_primary)
        self._listeners: list[asyncio.Task[None]] = []
        self._closing = BackgroundTasks()
        self.monitor = FailoverMonitor(self._refresh.run)
        self.failovers: list[str | None] = []

    async def attempt(self, request: Request) -> Reply:
        """See `Locator.attempt`."""
        confirmed = request.command.confirmation is not None
        if confirmed:
            self._sentinels.finds_others = True
        if self._stale or self._node is None:
            await self.monitor.looked()
        if (node := self._node) is None:
            raise _no_primary("the Sentinels named none")
        if confirmed and self._lease_until - ambient.monotonic() < self._settings.timeout_seconds / 2:
            self._refresh.start()  # while the request is on its way: so a lease that ends costs no time
        reply = await self.monitor.send(request, node)
        if confirmed:
            await self._check_lease(node, reply)
        return reply

    async def _check_lease(self, node: Node, reply: Reply) -> None:
        """Confirm nothing for a primary whose lease is over: the replica that has the change may be on its side."""
        if ambient.monotonic() >= self._lease_until:
            with contextlib.suppress(AttemptError):
                await self._refresh.run()
        if node is not self._node or ambient.monotonic() >= self._lease_until:
            text = f"no majority of the Sentinels grants the primary its lease ({self._vouching})"
            raise AttemptError(ShortfallError(text, 0.0), node=node.name, sent=True, reply=reply)

    def suspect(self, error: AttemptError) -> None:
        """See `Locator.suspect`."""
        if not isinstance(error.cause, TakenOverError):
            if self._node is not None and error.node == self._node.name and _is_unreachable(error):
                self._unreachable = self._address
            self._stale = True
            self.monitor.begin()

    def nodes(self) -> list[Node]:
        """See `Locator.nodes`."""
        return [node for node in (self._node, self._promoted_replica) if node]

    async def primaries(self) -> list[Node]:
        """See `Locator.primaries`."""
        await self._refresh.run()
        return [self._node] if self._node else []

    async def problems(self) -> list[str]:
        """See `Locator.problems`."""
        return await self._sentinels.problems()

    async def _find_primary(self) -> None:
        announced = None
        while announced != self._announced:  # else what was said may be from before that
            announced = self._announced
            lease_until = await self._ask_sentinels()
        self._lease_until, self._stale = lease_until, False

    async def _ask_sentinels(self) -> float:
        """Find the primary; return until when its lease lasts."""
        named, errors = await self._sentinels.ask()
        if not named:
            raise await self._no_answer(errors)
        if not self._listeners:
            self._start_listening()
        best = self._best(named.values())
        if await self._is_promoted(named, best.epoch):
            return 0.0
        if best.down:
            self._lease_until = 0.0
            raise _no_primary(f"the Sentinels see the primary {best.address} as down")
        if best.epoch < self._epoch and not self._was_reset(named):
            raise _no_primary(f"only Sentinels that still name the deposed primary {best.address} answer")
        self._epoch, self._epoch_seen_at = best.epoch, ambient.monotonic()
        self._follow(best)
        vouching = {address: answer for address, answer in named.items() if answer.names(best)}
        self._vouching = self._sentinels.shortfall(vouching)
        return self._sentinels.lease_until(vouching)

    def _best(self, answers: Collection[SentinelState]) -> SentinelState:
        """Return the answer that counts: of those of the highest epoch one that names the node in use, if it can."""
        highest = max((answer.epoch, not answer.down) for answer in answers)
        best = [answer for answer in answers if (answer.epoch, not answer.down) == highest]
        in_use = (answer for answer in best if answer.address == self._address != self._unreachable)
        others = (answer for answer in best if answer.address != self._unreachable)
        return next(in_use, None) or next(others, None) or best[0]

    def _follow(self, best: SentinelState) -> None:
        """Use the node that was named; another spelling of the one in use is no failover.

        Some Sentinels may tell host names (announce-hostnames) and others addresses of the same server.
        """
        is_same = best.run_id is not None and best.run_id == self._run_id
        if best.address == self._address:
            self._run_id = best.run_id
        elif not is_same or self._unreachable == self._address:
            self._switch_to(best.address, respelled=is_same)
            self._run_id = best.run_id

    def _was_reset(self, answers: Mapping[Address, SentinelState]) -> bool:
        """Whether the Sentinels forgot their epochs (rebuilt, SENTINEL RESET): a majority, and for some time."""
        return self._is_settled() and self._sentinels.is_majority(answers)

    def _is_settled(self) -> bool:
        return ambient.monotonic() - self._epoch_seen_at > _FORGET_EPOCH_SECONDS

    async def _is_promoted(self, named: dict[Address, SentinelState], epoch: int) -> bool:
        """Whether the node in use, maybe as of now, is a promoted replica that is still to be announced."""
        leader = next((a for a, s in named.items() if s.promoted_replica and s.epoch == epoch >= self._epoch), None)
        if leader is None:
            # It was announced or the promotion given up, unless the Sentinel that would know is not among those.
            if self._promoted_by in named or epoch != self._epoch or self._is_settled():
                self._promoted_by = None
            return self._promoted_by is not None
        self._lease_until = 0.0
        promoted = named[leader].promoted_replica
        role = await self._role_of(promoted) if promoted else None
        if promoted is None or role is None:
            return False
        if role != b"master":
            raise _no_primary(f"the replica {promoted} is just being promoted")
        if self._promoted_by is None:
            self._epoch, self._epoch_seen_at = epoch, ambient.monotonic()
        self._promoted_by = leader
        if promoted != self._address:
            self._switch_to(promoted)
        return True

    async def _role_of(self, address: Address) -> bytes | None:
        """Return what a replica that was told to become the primary says that it is; None without an answer."""
        node = self._node
        if node is None or address != self._address:
            node = self._promoted_replica = self._prepared(address)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_seconds
        for _ in range(2):  # a promotion cuts every connection to the replica (sentinel.c, sentinelSendSlaveOf)
            with contextlib.suppress(AttemptError, asyncio.TimeoutError):
                async with timeout_at(deadline):
                    (role,) = await node.call(("ROLE",))
                    return bytes(role[0])
        if node is self._node:  # never back to the one that it took over from
            raise _no_primary(f"the promoted replica {address} does not answer")
        return None

    def _prepared(self, address: Address) -> Node:
        """Return a node for this address: the promoted replica's, if it is that one."""
        if (promoted := self._promoted_replica) is not None:
            if promoted.name == str(address):
                return promoted
            self._leave(promoted)
        return Node(str(address), partial(self._data_client, address), self._config.pool)

    def _switch_to(self, address: Address, *, respelled: bool = False) -> None:
        old, self._node, self._address = self._node, self._prepared(address), address
        self._promoted_replica = self._run_id = self._unreachable = None
        if old is not None:
            if not respelled:
                self._node.note_takeover(old.replication_id)
                self.failovers.append(self._node.name)
            self._leave(old)
            self.monitor.cut(old)
        self.monitor.topology_changed()

    def _leave(self, node: Node) -> None:
        node.retire()
        self._closing.start(node.aclose())

    async def _no_answer(self, errors: dict[Address, Exception]) -> AttemptError:
        """Return the error for a round in which no Sentinel named a primary: at once and clear where it will last."""
        text = "; ".join(f"Sentinel {address}: {in_words(error)}" for address, error in errors.items())
        kinds = [await self._permanent(address, error) for address, error in errors.items()]
        permanent = next((kind for kind in kinds if kind is not None), None)
        if permanent is not None and not all(is_refusal(error) for error in errors.values()):
            # Some could not be reached: they may know better, unless none ever will (wrong name, wrong password).
            permanent = permanent if self._epoch < 0 else None
        cause = NoPrimaryError(f"no Sentinel names a primary of {self._service!r} ({text})")
        return AttemptError(cause, node=None, sent=False, permanent=permanent)

    async def _permanent(self, address: Address, error: Exception) -> type[OperationError] | None:
        if isinstance(error, redis_errors.ResponseError):
            if "No such master" in str(error):
                return PrimaryNotFoundError
            if "unknown command" in str(error):
                return WrongTopologyError
        failure = classify(error, sent=True)
        if not failure.retry:
            return failure.error
        if self._epoch >= 0:
            return None
        attempt = AttemptError(error, node=str(address), sent=True)
        return await permanent_cause(attempt, factory.dialled(self._config, address), self._settings.tls)

    def _start_listening(self) -> None:
        jobs: list[Coroutine[Any, Any, None]] = [self._poll()]
        jobs += [
            sentinel_events.follow(client, self._service, self._note_step, self._look_again, self._settings)
            for client in map(self._sentinel_client, self._config.nodes)
        ]
        self._listeners = [asyncio.ensure_future(job) for job in jobs]

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_interval_seconds)
            await self._look_again()

    async def _look_again(self) -> None:
        try:
            await self._refresh.run()
        except Exception:  # noqa: BLE001 (the next operation asks again and reports what is wrong)
            self._stale = True

    async def _note_step(self) -> None:
        """Look again, and until then neither send nor confirm anything: the primary may be about to be replaced."""
        self._announced += 1
        self._lease_until, self._stale = 0.0, True
        self.monitor.begin()  # until it is settled
        await self._look_again()

    async def aclose(self) -> None:
        """See `Locator.aclose`."""
        while listening := [task for task in self._listeners if not task.done()]:
            for task in listening:  # again, too: before Python 3.11, redis-py 7 can take a cancellation for its timeout
                task.cancel()
            await asyncio.wait(listening, timeout=_CANCELS_AGAIN_SECONDS)
        await self.monitor.aclose()
        await self._refresh.aclose()
        await self._sentinels.aclose()
        for node in filter(None, (self._node, self._promoted_replica)):
            await node.aclose()
        await self._closing.wait()


def _is_unreachable(error: AttemptError) -> bool:
    """Whether no connection could be made."""
    return not error.sent and classify(error.cause, sent=False).reason in ("connection", "timeout")


def _no_primary(reason: str) -> AttemptError:
    return AttemptError(NoPrimaryError(reason), node=None, sent=False)
