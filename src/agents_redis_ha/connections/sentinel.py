"""The primary that the Sentinels elected, learned from all of them and swapped the moment that it changes.

redis-py looks the primary up only when it connects, so a healthy connection to a deposed primary is never questioned.
Here the Sentinels are asked at the first use, after every error, every ``poll_interval_seconds``, and whenever one of
them announces a failover. Of their answers the one with the highest configuration epoch counts
(https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs): a Sentinel that was cut
off may name the deposed primary for as long as it likes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from ..config import Address, HAConfig, SentinelConfig, Topology
from ..errors import OperationError, PrimaryNotFoundError, WrongTopologyError
from ..verdicts import AttemptError, classify
from . import factory
from .handshake import lasting_cause
from .locator import Sendable, SingleFlight, ask_all, is_majority
from .node import Node

__all__ = ["SentinelLocator"]

# Announced in this order during a failover; each is a reason to ask.
_EVENTS = ("+promoted-slave", "+failover-state-reconf-slaves", "+switch-master")
# A Sentinel tells the others of a new epoch every 2 s; a majority that names an older one for longer has been reset.
_FORGET_EPOCH_SECONDS = 10.0


@dataclass(frozen=True)
class _Answer:
    """What one Sentinel says about the service."""

    address: Address
    epoch: int
    down: bool


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
        self._settings = config.sentinel or SentinelConfig()
        self._sentinels = {address: self._sentinel_client(address) for address in config.nodes}
        self._node: Node | None = None
        self._address: Address | None = None
        self._epoch = -1
        self._epoch_seen_at = 0.0
        self._stale = True
        self._refresh = SingleFlight(self._find_primary)
        self._watchers: list[asyncio.Task[None]] = []
        self.failovers = 0

    async def attempt(self, request: Sendable) -> tuple[Any, str]:
        """See `Locator.attempt`."""
        if self._stale or self._node is None:
            await self._refresh.run()
        node = self._node
        if node is None:
            raise _no_primary("the Sentinels named none")
        return await request.send(node), node.name

    def suspect(self, error: AttemptError) -> None:
        """See `Locator.suspect`."""
        self._stale = True

    async def primaries(self) -> list[Node]:
        """See `Locator.primaries`."""
        await self._refresh.run()
        return [self._node] if self._node else []

    async def problems(self) -> list[str]:
        """See `Locator.problems`."""
        questions = {address: self._ask(client) for address, client in self._sentinels.items()}
        answers = await asyncio.gather(*questions.values(), return_exceptions=True)
        named = zip(questions, answers, strict=True)
        return [f"Sentinel {address} does not answer" for address, answer in named if not isinstance(answer, _Answer)]

    async def _find_primary(self) -> None:
        questions = {address: self._ask(client) for address, client in self._sentinels.items()}
        named, errors = await ask_all(questions, self._settings.timeout_seconds)
        answers = list(named.values())
        if not answers:
            raise await self._nobody_knows(errors)
        if not self._watchers:
            self._start_watching()
        best = max(answers, key=lambda a: (a.epoch, not a.down))
        if best.down:
            raise _no_primary(f"the Sentinels see the primary {best.address} as down")
        if best.epoch < self._epoch and not self._was_reset(answers):
            raise _no_primary(f"only Sentinels that still name the deposed primary {best.address} answer")
        self._epoch, self._epoch_seen_at = best.epoch, time.monotonic()
        self._stale = False
        if best.address != self._address:
            await self._switch_to(best.address)

    def _was_reset(self, answers: list[_Answer]) -> bool:
        """Whether the Sentinels forgot their epochs (rebuilt, SENTINEL RESET): a majority, and for some time."""
        settled = time.monotonic() - self._epoch_seen_at > _FORGET_EPOCH_SECONDS
        return settled and is_majority(answers, self._sentinels)

    async def _switch_to(self, address: Address) -> None:
        old, self._address = self._node, address
        self._node = Node(str(address), partial(self._data_client, address), self._config.pool)
        if old is not None:
            self.failovers += 1
            old.retire()

    async def _ask(self, sentinel: Redis) -> _Answer:
        """Return one Sentinel's answer; the state of the failover counts, as in SENTINEL GET-MASTER-ADDR-BY-NAME."""
        # Any: redis-py types both replies as unions with what their other options return.
        reply: Any = await sentinel.sentinel_master(self._service)
        named_now: Any = await sentinel.sentinel_get_master_addr_by_name(self._service)
        host, port = named_now or (reply["ip"], reply["port"])
        address = Address(host.decode() if isinstance(host, bytes) else host, int(port))
        # Once a promoted replica is named, the epoch is that of the failover, but the flags are the old primary's.
        before = (reply["ip"], int(reply["port"])) != tuple(address)
        down = not before and bool(reply["is_sdown"] or reply["is_odown"])
        return _Answer(address, int(reply["config-epoch"]), down)

    async def _nobody_knows(self, errors: dict[Address, Exception]) -> AttemptError:
        """Return the error for a round in which no Sentinel named a primary: at once and clear where it will last."""
        text = "; ".join(f"Sentinel {address}: {_first_line(error)}" for address, error in errors.items())
        kinds = [await self._lasting(address, error) for address, error in errors.items()]
        lasting = next((kind for kind in kinds if kind is not None), None)
        if lasting is not None and not all(_is_refusal(error) for error in errors.values()):
            # Some could not be reached: they may know better, unless none ever will (wrong name, wrong password).
            lasting = lasting if self._epoch < 0 else None
        cause = redis_errors.ConnectionError(f"no Sentinel names a primary of {self._service!r} ({text})")
        return AttemptError(cause, node=None, sent=False, lasting=lasting)

    async def _lasting(self, address: Address, error: Exception) -> type[OperationError] | None:
        if isinstance(error, redis_errors.ResponseError):
            if "No such master" in str(error):
                return PrimaryNotFoundError
            if "unknown command" in str(error):
                return WrongTopologyError
        verdict = classify(error, sent=True)
        if not verdict.retry:
            return verdict.error
        if self._epoch >= 0:
            return None
        attempt = AttemptError(error, node=str(address), sent=True)
        return await lasting_cause(attempt, factory.dialled(self._config, address), self._settings.tls)

    def _start_watching(self) -> None:
        jobs: list[Coroutine[Any, Any, None]] = [self._poll()]
        jobs += [self._listen(address) for address in self._sentinels]
        self._watchers = [asyncio.ensure_future(job) for job in jobs]

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_interval_seconds)
            await self._look_again()

    async def _look_again(self) -> None:
        try:
            await self._refresh.run()
        except Exception:  # noqa: BLE001 (whoever needs a primary next asks again and reports what is wrong)
            self._stale = True

    async def _listen(self, address: Address) -> None:
        """Look again whenever a Sentinel announces a step of a failover of this service."""
        # A listener waits for hours: its connection has no response timeout.
        client = self._sentinel_client(address)
        client.connection_pool.connection_kwargs.update(socket_timeout=None, socket_keepalive=True)
        try:
            while True:
                try:
                    await self._follow_announcements(client)
                except (redis_errors.RedisError, OSError, asyncio.TimeoutError):
                    # Down, or its user may not subscribe: polling goes on, and this tries again.
                    await asyncio.sleep(self._settings.poll_interval_seconds)
        finally:
            await client.aclose()

    async def _follow_announcements(self, client: Redis) -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(*_EVENTS)
            await self._look_again()  # what was announced before
            async for message in subscription.listen():
                if self._service in bytes(message["data"]).decode(errors="replace").split():
                    await self._look_again()

    async def aclose(self) -> None:
        """See `Locator.aclose`."""
        for task in self._watchers:
            task.cancel()
        if self._watchers:
            await asyncio.wait(self._watchers)
        await self._refresh.aclose()
        await asyncio.gather(*(client.aclose() for client in self._sentinels.values()))
        if self._node is not None:
            await self._node.aclose()


def _no_primary(reason: str) -> AttemptError:
    return AttemptError(redis_errors.ConnectionError(reason), node=None, sent=False)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, (redis_errors.ResponseError, redis_errors.AuthenticationError))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
