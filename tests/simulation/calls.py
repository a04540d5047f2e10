"""A session's calls that the campaign has not, each recorded as the campaign's are."""

from __future__ import annotations

from collections.abc import Sequence

from tests.failover.campaign.caller import Caller as CampaignCaller
from tests.failover.campaign.caller import Items, _as_input
from tests.failover.campaign.history import Call, Op
from tests.failover.campaign.marks import Mark


class Caller(CampaignCaller):
    """One session object and its record."""

    async def expect(self, batch: Sequence[Mark], items: Items) -> Call:
        """Add a batch if no other process changes the session between a look at its version and that."""

        async def appended() -> None:
            version = (await self._session.info()).version
            await self._session.add_items(_as_input(items), expected_version=version)

        return await self._record(Op.APPEND, batch, appended)
