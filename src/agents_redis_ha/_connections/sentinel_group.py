"""All Sentinels of a service together: the configured ones and those that they tell of; the lease that they grant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from .._asyncio import BackgroundTasks
from .._config import Address, HAConfig, SentinelConfig
from .failures import in_words
from .locator import ask_all
from .sentinel_state import SentinelState, ask

__all__ = ["SentinelGroup", "is_refusal", "lease_seconds"]

# A lease is renewed at least as often as this while changes are confirmed, also where polling is slower.
_LONGEST_PERIOD_SECONDS = 1.0


def lease_seconds(settings: SentinelConfig) -> float:
    """Return how long a Sentinel's answer counts for a lease: one period of polling, and what an answer may take."""
    return min(settings.poll_interval_seconds, _LONGEST_PERIOD_SECONDS) + settings.timeout_seconds


class SentinelGroup:
    """Asks all Sentinels of a service at once.

    Attributes:
        settings: How they are asked.
        clients: One for each Sentinel that is asked.
        finds_others: Whether those are asked, too, that are not configured. A lease may need their word; without
            leases the configured ones are enough.
    """

    def __init__(self, config: HAConfig, make_client: Callable[[Address], Redis]) -> None:
        """Make clients of the configured Sentinels, without connecting."""
        self.settings = config.sentinel or SentinelConfig()
        self.clients = {address: make_client(address) for address in config.nodes}
        self.finds_others = False
        self._service = config.service_name or ""
        self._configured = frozenset(config.nodes)
        self._make_client = make_client
        self._count = len(self._configured)
        self._closing = BackgroundTasks()

    async def ask(self) -> tuple[dict[Address, SentinelState], dict[Address, Exception]]:
        """Return what the Sentinels know, of a majority at least if it answers, and why the others did not answer."""
        answers, errors = await self._ask(self.clients, self._voters)
        # Those that the answers tell of are asked at once: they may know a newer epoch.
        if met := self._meet(answers):
            more, failed = await self._ask(met, len(met))
            answers, errors = {**answers, **more}, {**errors, **failed}
        self._count_all(answers)
        return answers, errors

    async def problems(self) -> list[str]:
        """Return what is wrong with the configured Sentinels, in words."""
        configured = {address: self.clients[address] for address in self.clients if address in self._configured}
        # With no majority to be content with: each of them is waited for.
        _, errors = await self._ask(configured, 2 * len(configured))
        return [f"Sentinel {address} {_trouble(errors[address])}" for address in configured if address in errors]

    def is_majority(self, answers: Mapping[Address, SentinelState]) -> bool:
        """Whether these are the answers of more than half of the Sentinels."""
        return 2 * len(answers) > self._voters

    def lease_until(self, answers: Mapping[Address, SentinelState]) -> float:
        """Return until when no other primary than the one that these answers name can be elected, by their word.

        It is a leader lease that the Sentinels grant without knowing. Another primary needs a quorum that considers
        this one down, and the votes of a majority of all Sentinels. The lease ends as soon as the words of so many do
        not hold any more. There is none while a failover, maybe one by hand, is under way.

        Args:
            answers: Of the Sentinels that name this primary.
        """
        if any(answer.promoted_replica for answer in answers.values()):
            return 0.0
        leases = sorted(_by_sentinel(answers).values(), reverse=True)
        majority = self._count // 2 + 1
        if self._count - len(leases) >= majority:
            return 0.0
        # A quorum below the majority may be Sentinels that do not answer. They need the others' votes all the same, so
        # one that is gone for good must not end every lease: the word of all that do answer is needed then.
        quorum = min((answer.quorum for answer in answers.values()), default=majority)
        needed = self._count - min(quorum, majority) + 1
        return leases[min(needed, len(leases)) - 1]

    def shortfall(self, answers: Mapping[Address, SentinelState]) -> str:
        """Return how many Sentinels speak for the primary, in words."""
        return f"{len(_by_sentinel(answers))} of {self._count} speak for it"

    async def aclose(self) -> None:
        """Close every client. A peer that is gone takes no part in closing: the others are closed all the same."""
        await asyncio.gather(*(client.aclose() for client in self.clients.values()), return_exceptions=True)
        await self._closing.wait()

    @property
    def _voters(self) -> int:
        return min(self._count, len(self.clients))

    async def _ask(
        self, clients: Mapping[Address, Redis], voters: int
    ) -> tuple[dict[Address, SentinelState], dict[Address, Exception]]:
        seconds = lease_seconds(self.settings)
        questions = {
            address: ask(client, self._service, seconds, list_others=self.finds_others)
            for address, client in clients.items()
        }
        return await ask_all(questions, self.settings.timeout_seconds, voters)

    def _meet(self, answers: Mapping[Address, SentinelState]) -> dict[Address, Redis]:
        """Make clients of the Sentinels that were told of and are not configured; return the new ones."""
        lists = {address: answer.others for address, answer in answers.items() if answer.others is not None}
        told = {each: address for others in lists.values() for each, address in others.items() if address.port}
        # A configured name need not be the address that the others tell. A Sentinel is the one that it does not list.
        own = [told.keys() - lists[address].keys() for address in lists if address in self._configured]
        answered = {each for ids in own if len(ids) == 1 for each in ids}
        wanted = {address for each, address in told.items() if each not in answered} - self._configured
        if self._is_most(answers):
            for address in self.clients.keys() - self._configured - wanted:
                self._closing.start(self.clients.pop(address).aclose())
        met = {address: self._make_client(address) for address in wanted - self.clients.keys()}
        self.clients.update(met)
        return met

    def _count_all(self, answers: Mapping[Address, SentinelState]) -> None:
        """Learn how many Sentinels there are; fewer than before only by the word of a majority of those."""
        told = max((answer.sentinels for answer in answers.values()), default=0)
        count = max(told, len(self._configured), len(_by_sentinel(answers)))
        self._count = count if self._is_most(answers) else max(self._count, count)

    def _is_most(self, answers: Mapping[Address, SentinelState]) -> bool:
        return 2 * len(_by_sentinel(answers)) > self._count


def _by_sentinel(answers: Mapping[Address, SentinelState]) -> dict[object, float]:
    """Return the lease that each Sentinel grants; one that was asked by two names counts once.

    Two Sentinels do not know the same others: each knows the other one, and not itself.
    """
    leases: dict[object, float] = {}
    for address, answer in answers.items():
        key = address if answer.others is None else frozenset(answer.others)
        leases[key] = max(answer.lease_until, leases.get(key, 0.0))
    return leases


def is_refusal(error: Exception) -> bool:
    """Whether a Sentinel answered, with an error."""
    return isinstance(error, (redis_errors.ResponseError, redis_errors.AuthenticationError))


def _trouble(error: Exception) -> str:
    if is_refusal(error):
        return f"refuses: {in_words(error)}"
    return f"does not answer: {in_words(error)}"
