"""Sentinels without servers: what they know, and the data servers that they tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions as redis_errors

from agents_redis_ha import HAConfig
from agents_redis_ha._commands import Confirmation, Reply, Status
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.sentinel import SentinelLocator
from tests.support.fake_nodes import CANNOT_CLOSE, FakeClient, FakePool, Written, command
from tests.support.fakes import request

OLD, NEW, THIRD = ("old", 1), ("new", 2), ("third", 3)
PATIENCE_SECONDS = 60
CHANGE = command(confirmation=Confirmation(1, False, 500))


class Clock:
    """What `time.monotonic` tells the locator."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


class Sentinel:
    """One Sentinel, as the test sets it up; an exception as `named` is how it fails, a future how it hangs."""

    def __init__(self) -> None:
        self.named: Any = OLD
        self.epoch = 7
        self.down = False
        self.state: str | None = None
        self.promoted: tuple[str, int] | None = None
        self.may_list = True
        self.ping_sent_ms = 0
        self.silent_ms = 0
        self.quorum = 2
        self.run_id: str | None = None
        self.others: dict[str, tuple[str, int]] = {}
        self.asked = 0
        self.closed = 0

    async def sentinel_master(self, service: str) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.named, Exception):
            raise self.named
        if isinstance(self.named, asyncio.Future):
            await self.named
        before = self.named if self.state is None else OLD
        reply = {
            "ip": before[0],
            "port": before[1],
            "config-epoch": self.epoch,
            "is_sdown": self.down,
            "quorum": self.quorum,
        }
        reply |= {"down-after-milliseconds": PATIENCE_SECONDS * 1000, "last-ping-sent": self.ping_sent_ms}
        reply |= {
            "last-ok-ping-reply": self.silent_ms,
            "runid": self.run_id or before[0],
            "num-other-sentinels": len(self.others),
        }
        return {**reply, "is_odown": self.down, **({"failover-state": self.state} if self.state else {})}

    async def sentinel_get_master_addr_by_name(self, service: str) -> Any:
        return self.named

    async def sentinel_slaves(self, service: str) -> list[dict[str, Any]]:
        if not self.may_list:
            raise redis_errors.NoPermissionError("no")
        flags = {address: "slave,promoted" if address == self.promoted else "slave" for address in (NEW, THIRD)}
        return [{"ip": host, "port": port, "flags": f} for (host, port), f in flags.items()]

    async def sentinel_sentinels(self, service: str) -> list[dict[str, Any]]:
        if not self.may_list:
            raise redis_errors.NoPermissionError("no")
        return [{"runid": each, "ip": host, "port": port} for each, (host, port) in self.others.items()]

    async def aclose(self) -> None:
        self.closed += 1
        raise CANNOT_CLOSE

    def promotes(self, replica: tuple[str, int]) -> None:
        self.down, self.state, self.promoted = True, "wait_promotion", replica

    def announces(self, address: tuple[str, int], epoch: int) -> None:
        self.named, self.epoch, self.down, self.state, self.promoted = address, epoch, False, None, None


class DataPool(FakePool):
    """A data server: tells the role that the world gives it, and takes every change."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(cannot_close=CANNOT_CLOSE)
        self.world, self.name = world, name

    def replies_to(self, commands: list[Written]) -> list[Any]:
        return [self._reply_to(command[0]) for command in commands]

    def _reply_to(self, verb: bytes) -> Any:
        self.world.asked.append((self.name, verb))
        if verb == b"ROLE":
            role = self.world.roles[self.name]
            role = role.pop(0) if isinstance(role, list) else role  # one after another
            return role if isinstance(role, Exception) else [role, 0, []]
        return 1 if verb == b"WAIT" else self._changed()

    async def _changed(self) -> list[Any]:
        await self.world.meanwhile()
        return [Status.APPLIED, 5, b""]


class World:
    """Sentinels, of which the first leads, and the roles that the data servers claim.

    They know each other as s:1, s:2 and so on. Of these the first are configured: all, if no number is given.
    """

    def __init__(self, clock: Clock, sentinels: int = 2, configured: int | None = None) -> None:
        self.clock = clock
        self.sentinels = [Sentinel() for _ in range(sentinels)]
        for own, each in enumerate(self.sentinels):
            each.others = {f"id-{n}": ("s", n + 1) for n in range(sentinels) if n != own}
        self.leader, self.other = self.sentinels[0], self.sentinels[-1]
        self.roles: dict[str, Any] = {"old:1": b"master", "new:2": b"slave", "third:3": b"slave"}
        self.asked: list[tuple[str, bytes]] = []
        self.meanwhile: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        nodes = [f"s:{port}" for port in range(1, (configured or sentinels) + 1)]
        self.locator = SentinelLocator(
            HAConfig(topology="sentinel", nodes=nodes, service_name="m"),
            data_client=lambda address: FakeClient(DataPool(self, str(address))),  # type: ignore[arg-type,return-value]
            sentinel_client=lambda address: self.sentinels[address.port - 1],  # type: ignore[arg-type,return-value]
        )
        self.locator._start_listening = lambda: None  # type: ignore[method-assign]

    def promotes(self, replica: tuple[str, int], *, by_hand: bool = False) -> None:
        """Let the leader choose a replica; by hand (SENTINEL FAILOVER) the old primary is well."""
        self.leader.promotes(replica)
        self.leader.down = self.other.down = not by_hand

    async def primary(self) -> str | None:
        """Return the primary's name, or None while there is none to be had."""
        try:
            (found,) = await self.locator.primaries()
        except AttemptError:
            return None
        return found.name

    async def change(self) -> Reply:
        return await self.locator.attempt(request(CHANGE))
