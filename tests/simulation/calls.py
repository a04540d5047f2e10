"""A session's calls that the campaign has not, each recorded as the campaign's are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agents_redis_ha import HistoryLostError, RedisHASession
from tests.failover.campaign.caller import Caller as CampaignCaller
from tests.failover.campaign.caller import Items, _as_input
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, find_mark
from tests.simulation.memory import Memory
from tests.simulation.plan import Step
from tests.simulation.turns import turn_caller

_WHOLE = 1_000_000  # items; more than any session has


class Caller(CampaignCaller):
    """One session object and its record.

    Attributes:
        rest_seconds: How long to wait between a look at the session and a change that expects it as it was.
    """

    def __init__(self, session: RedisHASession, name: str, worker: str, recorder: Memory, number: int = 0) -> None:
        super().__init__(session, name, worker, recorder)
        self._handle += "+" * number
        self._memory = recorder
        self.rest_seconds = 0.0

    async def expect(self, batch: Sequence[Mark], items: Items) -> Call:
        """Add a batch if no other process changes the session meanwhile; what is there then is noted."""

        async def appended() -> None:
            version = (await self._session.info()).version
            seen = await self._session.get_items()
            began = await self._rest()
            ended = asyncio.get_running_loop().time()
            await self._session.add_items(_as_input(items), expected_version=version)
            if not int(version):  # no conversation: another one may have come and gone, but nothing is in front
                self._memory.expectations[self.name, batch[0]] = None
                return
            self._memory.guarded.append((self.name, began, ended))
            self._memory.expectations[self.name, batch[0]] = find_mark(seen[-1], self.name) if seen else None

        return await self._record(Op.APPEND, batch, appended)

    async def _record(self, op: Op, batch: Sequence[Mark], work: Any, limit: int | None = None) -> Call:
        async def noted() -> Any:
            try:
                return await work()
            except HistoryLostError as error:
                self._memory.named[self.name].update(error.versions)
                raise

        return await super()._record(op, batch, noted, limit)

    async def compact(self, batch: Sequence[Mark], items: Items) -> Call:
        """Put a batch in the place of the whole history if no other process changes the session meanwhile."""

        async def compacted() -> bool:
            snapshot = await self._session._get_compaction_snapshot(_WHOLE)
            began = await self._rest()
            ended = asyncio.get_running_loop().time()
            done = snapshot is not None and await snapshot.replace_suffix(0, _as_input(items))
            if done:
                self._memory.guarded.append((self.name, began, ended))
            return done

        return await self._record(Op.REPLACE, batch, compacted)

    async def _rest(self) -> float:
        """Let others come in between; return when that began."""
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(self.rest_seconds)
        return began

    async def turn(self, step: Step, call: Call) -> Call:
        """Deliver a turn until it is answered, or cannot be."""
        return await turn_caller(self._session, call, step, self._memory).deliver()

    def see_through(self) -> None:
        """Note that the latest call, whose caller was cancelled, has been seen through."""
        call = self._memory.latest[self._handle]
        if not call.finished:
            seen = Status.UNCONFIRMED if call.op is Op.POP else Status.OK
            self._memory.end(call, seen, error="cancelled, and seen through")
