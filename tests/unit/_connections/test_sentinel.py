"""Between a promotion and its announcement: whom the Sentinel locator follows, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import exceptions as redis_errors
from tests.unit._connections.conftest import FakeRequest, introduction

from agents_redis_ha import Address, HAConfig
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.sentinel import SentinelLocator
from agents_redis_ha._connections.sentinel_state import Answer

OLD, NEW, THIRD = ("old", 1), ("new", 2), ("third", 3)


class Sentinel:
    """One Sentinel, as the test sets it up; None as `named` means that it does not answer."""

    def __init__(self) -> None:
        self.named: tuple[str, int] | None = OLD
        self.epoch = 7
        self.down = False
        self.state: str | None = None
        self.heir: tuple[str, int] | None = None
        self.may_list = True

    async def sentinel_master(self, service: str) -> dict[str, Any]:
        if self.named is None:
            raise redis_errors.ConnectionError("refused")
        before = self.named if self.state is None else OLD
        reply = {"ip": before[0], "port": before[1], "config-epoch": self.epoch, "is_sdown": self.down}
        reply["down-after-milliseconds"] = 60_000
        return {**reply, "is_odown": self.down, **({"failover-state": self.state} if self.state else {})}

    async def sentinel_get_master_addr_by_name(self, service: str) -> tuple[str, int] | None:
        return self.named

    async def sentinel_slaves(self, service: str) -> list[dict[str, Any]]:
        if not self.may_list:
            raise redis_errors.NoPermissionError("no")
        flags = {address: "slave,promoted" if address == self.heir else "slave" for address in (NEW, THIRD)}
        return [{"ip": host, "port": port, "flags": f} for (host, port), f in flags.items()]

    async def aclose(self) -> None: ...

    def promotes(self, heir: tuple[str, int]) -> None:
        self.down, self.state, self.heir = True, "wait_promotion", heir

    def announces(self, address: tuple[str, int], epoch: int) -> None:
        self.named, self.epoch, self.down, self.state, self.heir = address, epoch, False, None, None


class World:
    """Two Sentinels, of which the first leads, and the roles that the data servers claim."""

    def __init__(self) -> None:
        self.leader, self.other = Sentinel(), Sentinel()
        self.roles: dict[str, Any] = {"old:1": b"master", "new:2": b"slave", "third:3": b"slave"}
        self.asked: list[str] = []
        sentinels = [self.leader, self.other]
        self.locator = SentinelLocator(
            HAConfig(topology="sentinel", nodes=["s:1", "s:2"], service_name="m"),
            data_client=lambda address: self._data(str(address)),
            sentinel_client=lambda address: sentinels[address.port - 1],  # type: ignore[arg-type,return-value]
        )
        self.locator._start_listening = lambda: None  # type: ignore[method-assign]

    def _data(self, name: str) -> Any:
        world = self

        class Connection:
            socket_timeout = 3.0

            async def send_packed_command(self, packed: bytes, check_health: bool) -> None:
                world.asked.append(name)
                self.replies: list[Any] = [*introduction(packed)[0], None]

            async def read_response(self, disable_decoding: bool) -> Any:
                identity, role = self.replies.pop(0), world.roles[name]
                if isinstance(role, list) and not identity:  # one after another
                    role = role.pop(0)
                if isinstance(role, Exception):
                    raise role
                return identity or [role, 0, []]

            async def disconnect(self, nowait: bool = False) -> None: ...

            def register_connect_callback(self, callback: Any) -> None: ...

        class Pool:
            async def get_connection(self) -> Connection:
                return Connection()

            async def release(self, connection: Connection) -> None: ...

            async def disconnect(self, inuse_connections: bool = True) -> None: ...

        class Client:
            connection_pool = Pool()

        return Client()

    def promotes(self, heir: tuple[str, int]) -> None:
        self.other.down = True
        self.leader.promotes(heir)

    async def primary(self) -> str | None:
        """Return the primary's name, or None while there is none to be had."""
        try:
            (found,) = await self.locator.primaries()
        except AttemptError:
            return None
        return found.name


@pytest.fixture
async def world() -> World:
    world = World()
    assert await world.primary() == "old:1"
    return world


async def test_a_chosen_replica_that_says_it_is_the_primary_is_followed_before_it_is_announced(world: World) -> None:
    world.promotes(NEW)
    assert await world.primary() is None
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    assert (len(world.locator.failovers), world.locator._stale) == (1, False)
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"
    assert len(world.locator.failovers) == 1


async def test_no_other_server_that_claims_to_be_the_primary_is_followed(world: World) -> None:
    world.roles["third:3"] = b"master"  # such as one that was deposed long ago and has just come back
    world.promotes(NEW)
    assert await world.primary() is None
    assert "third:3" not in world.asked
    world.leader.state = "select_slave"
    world.roles["new:2"] = b"master"
    assert await world.primary() is None


async def test_a_leader_that_falls_silent_after_the_promotion_does_not_lead_back(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.leader.named = None
    assert await world.primary() == "new:2"  # the other one still names the old primary, under the same epoch
    world.other.announces(THIRD, 9)
    assert await world.primary() == "third:3"


async def test_a_promotion_that_is_given_up_leads_back(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.leader.announces(OLD, 7)
    assert await world.primary() == "old:1"


async def test_a_promoted_replica_that_does_not_answer_is_waited_for(world: World) -> None:
    world.promotes(NEW)
    world.leader.down = world.other.down = False  # SENTINEL FAILOVER: the old primary is well
    world.roles["new:2"] = redis_errors.ConnectionError("lost")
    assert await world.primary() == "old:1"
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.roles["new:2"] = redis_errors.ConnectionError("lost")
    assert await world.primary() is None


@pytest.mark.parametrize("state", ["send_slaveof_noone", "wait_promotion"])
async def test_from_its_choice_on_a_replica_is_waited_for_also_by_those_whose_primary_is_well(
    world: World, state: str
) -> None:
    world.promotes(NEW)
    world.leader.down = world.other.down = False
    world.leader.state = "select_slave"
    assert await world.primary() == "old:1"
    world.leader.state = state
    assert await world.primary() is None
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"


async def test_a_promotion_that_cuts_the_connections_to_the_replica_leads_to_it_all_the_same(world: World) -> None:
    world.promotes(NEW)
    world.leader.down = world.other.down = False
    world.roles["new:2"] = [b"slave", redis_errors.ConnectionError("killed"), b"master"]
    assert await world.primary() is None
    assert await world.primary() == "new:2"


async def test_what_is_announced_during_a_look_is_looked_at_too(world: World) -> None:
    async def announce(service: str) -> tuple[str, int]:  # after the leader's answer
        if world.leader.state is None:
            world.locator._announced += 1
            world.leader.promotes(NEW)
            world.leader.down = False
        return OLD

    world.other.sentinel_get_master_addr_by_name = announce  # type: ignore[method-assign]
    assert await world.primary() is None


class Change(FakeRequest):
    """A change that has to be confirmed, and what happens while it is under way."""

    confirmation: Any = object()

    def __init__(self, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        self.meanwhile = meanwhile

    async def send(self, node: Any, **_: Any) -> str:
        if self.meanwhile is not None:
            await self.meanwhile()
        return "done"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_change_that_a_failover_by_hand_overtakes_is_not_confirmed(world: World, announced: bool) -> None:
    async def chosen() -> None:
        world.promotes(NEW)
        world.leader.down = world.other.down = False
        if announced:
            looking.append(asyncio.ensure_future(world.locator._note_step()))
            await asyncio.sleep(0)  # it has begun to look
        else:
            await world.locator._look_again()

    looking: list[asyncio.Future[None]] = []

    assert await world.locator.attempt(Change()) == ("done", "old:1")
    with pytest.raises(AttemptError, match="vouches") as caught:
        await world.locator.attempt(Change(chosen))
    assert (caught.value.sent, caught.value.applied) == (True, True)
    await asyncio.gather(*looking)
    await world.locator.aclose()


async def test_what_comes_after_an_announcement_waits_for_the_look_that_it_causes(world: World) -> None:
    world.promotes(NEW)
    world.leader.down = world.other.down = False
    looking = asyncio.ensure_future(world.locator._note_step())
    await asyncio.sleep(0)
    with pytest.raises(AttemptError, match="is just being promoted"):
        await world.locator.attempt(Change())
    await looking
    await world.locator.aclose()


async def test_a_primary_whose_heir_is_dead_is_asked_but_confirms_nothing(world: World) -> None:
    world.promotes(NEW)
    world.leader.down = world.other.down = False
    world.roles["new:2"] = redis_errors.ConnectionError("refused")
    assert await world.primary() == "old:1"
    with pytest.raises(AttemptError, match="vouches"):
        await world.locator.attempt(Change())


async def test_without_the_right_to_list_replicas_the_announcement_is_waited_for(world: World) -> None:
    world.leader.may_list = False
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() is None
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"


async def test_an_older_epoch_promotes_nobody(world: World) -> None:
    world.other.announces(THIRD, 8)
    assert await world.primary() == "third:3"
    world.leader.promotes(NEW)  # it slept through that failover
    world.roles["new:2"] = b"master"
    assert await world.primary() == "third:3"


async def test_those_who_wait_are_woken_by_the_promotion(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    seen = world.locator.watch.changes
    waiter = asyncio.ensure_future(world.locator.watch.wait_for_change(30, seen))
    await asyncio.sleep(0)
    await world.primary()
    await asyncio.wait_for(waiter, 5)


@pytest.mark.parametrize(
    ("nodes", "quorum", "promises", "until"),
    [
        (3, 2, (9.0, 5.0, 7.0), 7.0),  # two of three would have to agree, so two have to promise
        (3, 2, (9.0,), 0.0),
        (3, 1, (9.0, 5.0, 7.0), 5.0),  # any of them can begin an election
        (3, 3, (9.0, 5.0), 9.0),
        (1, 2, (9.0,), 9.0),  # only one of them is configured
        (3, 2, (), 0.0),
    ],
)
def test_a_primary_reigns_as_long_as_too_few_sentinels_can_hold_it_to_be_down(
    nodes: int, quorum: int, promises: tuple[float, ...], until: float
) -> None:
    config = HAConfig(topology="sentinel", nodes=[f"s:{port}" for port in range(1, nodes + 1)], service_name="m")
    answers = [Answer(Address("old", 1), 7, False, holds_until, quorum) for holds_until in promises]
    assert SentinelLocator(config)._reign(answers) == until
