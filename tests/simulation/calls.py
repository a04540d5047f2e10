"""A session's calls that the campaign has not, each recorded as the campaign's are."""

from __future__ import annotations

from collections.abc import Sequence

from agents_redis_ha import RedisHASession
from tests.failover.campaign.caller import Caller as CampaignCaller
from tests.failover.campaign.caller import Items, _as_input
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.marks import Mark, find_mark
from tests.simulation.memory import Memory


class Caller(CampaignCaller):
    """One session object and its record."""

    def __init__(self, session: RedisHASession, name: str, worker: str, recorder: Memory) -> None:
        super().__init__(session, name, worker, recorder)
        self._memory = recorder

    async def expect(self, batch: Sequence[Mark], items: Items) -> Call:
        """Add a batch if no other process changes the session meanwhile; what is there then is noted."""

        async def appended() -> None:
            version = (await self._session.info()).version
            seen = await self._session.get_items()
            await self._session.add_items(_as_input(items), expected_version=version)
            self._memory.expectations[self.name, batch[0]] = find_mark(seen[-1], self.name) if seen else None

        return await self._record(Op.APPEND, batch, appended)

    def see_through(self) -> None:
        """Note that the latest call, whose caller was cancelled, has been seen through."""
        call = self._memory.latest[self._handle]
        if not call.finished:
            seen = Status.UNCONFIRMED if call.op is Op.POP else Status.OK
            self._memory.end(call, seen, error="cancelled, and seen through")
