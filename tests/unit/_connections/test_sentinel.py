"""Whom the Sentinel locator follows, and what it confirms: by epochs, promotions and leases."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import HAConfig, SentinelConfig
from agents_redis_ha._commands import Status
from agents_redis_ha._connections import sentinel
from agents_redis_ha._connections.failures import AttemptError, ShortfallError, TakenOverError
from agents_redis_ha._connections.sentinel import SentinelLocator
from agents_redis_ha._connections.sentinel_group import lease_seconds
from agents_redis_ha.errors import AuthenticationFailedError, PrimaryNotFoundError, WrongTopologyError
from tests.support.fake_nodes import CANNOT_CLOSE, LOST, command
from tests.support.fake_sentinels import NEW, OLD, PATIENCE_SECONDS, THIRD, Clock, World
from tests.support.fakes import failed, request
from tests.support.virtual_time import in_virtual_time

LEASE_SECONDS = lease_seconds(SentinelConfig())


async def test_a_promoted_replica_that_says_it_is_the_primary_is_followed_before_it_is_announced(world: World) -> None:
    world.promotes(NEW)
    assert await world.primary() is None
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    assert world.locator.failovers == ["new:2"]
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"
    assert world.locator.failovers == ["new:2"]


async def test_a_replication_id_that_a_failover_does_not_change_says_nothing(world: World) -> None:
    assert (await world.change()).history.replication_id is not None
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"
    assert (await world.change()).history == ("new:2", None)


async def test_no_other_server_that_claims_to_be_the_primary_is_followed(world: World) -> None:
    world.roles["third:3"] = b"master"  # such as one that was deposed long ago and has just come back
    world.promotes(NEW)
    assert await world.primary() is None
    assert {name for name, _ in world.asked} == {"new:2"}
    world.leader.state = "select_slave"
    world.roles["new:2"] = b"master"
    assert await world.primary() is None


async def test_a_leader_that_falls_silent_after_the_promotion_does_not_lead_back(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.leader.named = LOST
    assert await world.primary() == "new:2"  # the other one still names the old primary, under the same epoch
    world.other.announces(THIRD, 9)
    assert await world.primary() == "third:3"


async def test_a_silent_leader_is_waited_for_until_the_others_would_have_heard_of_its_failover(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.leader.named, world.other.down = LOST, False
    world.clock.now += 9
    assert await world.primary() == "new:2"
    world.clock.now += 2
    assert await world.primary() == "old:1"


async def test_a_promotion_that_is_given_up_leads_back(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.leader.announces(OLD, 7)
    assert await world.primary() == "old:1"


async def test_a_promoted_replica_that_does_not_answer_is_waited_for(world: World) -> None:
    world.promotes(NEW, by_hand=True)
    world.roles["new:2"] = LOST
    assert await world.primary() == "old:1"
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"
    world.roles["new:2"] = LOST
    assert await world.primary() is None


@pytest.mark.parametrize("state", ["send_slaveof_noone", "wait_promotion"])
async def test_a_chosen_replica_is_waited_for_also_where_the_old_primary_is_well(world: World, state: str) -> None:
    world.promotes(NEW, by_hand=True)
    world.leader.state = "select_slave"
    assert await world.primary() == "old:1"
    world.leader.state = state
    assert await world.primary() is None
    world.roles["new:2"] = b"master"
    assert await world.primary() == "new:2"


async def test_a_promotion_that_cuts_the_connections_to_the_replica_leads_to_it_all_the_same(world: World) -> None:
    world.promotes(NEW, by_hand=True)
    world.roles["new:2"] = [b"slave", redis_errors.ConnectionError("killed"), b"master"]
    assert await world.primary() is None
    assert await world.primary() == "new:2"


async def test_a_second_choice_takes_the_place_of_the_first(world: World) -> None:
    world.promotes(NEW)
    assert await world.primary() is None
    assert [node.name for node in world.locator.nodes()] == ["old:1", "new:2"]
    first = world.locator.nodes()[1]
    world.leader.promoted, world.roles["third:3"] = THIRD, b"master"
    assert await world.primary() == "third:3"
    assert (first.retired, [node.name for node in world.locator.nodes()]) == (True, ["third:3"])


async def test_what_is_announced_during_a_look_is_looked_at_too(world: World) -> None:
    async def announce(service: str) -> tuple[str, int]:  # after the leader's answer
        if world.leader.state is None:
            world.locator._announced += 1
            world.promotes(NEW, by_hand=True)
        return OLD

    world.other.sentinel_get_master_addr_by_name = announce  # type: ignore[method-assign]
    assert await world.primary() is None


@pytest.mark.parametrize("announced", [True, False])
async def test_a_change_that_a_failover_by_hand_overtakes_is_not_confirmed(world: World, announced: bool) -> None:
    looking: list[asyncio.Future[None]] = []

    async def chosen() -> None:
        world.promotes(NEW, by_hand=True)
        if announced:
            looking.append(asyncio.ensure_future(world.locator._note_step()))
            await asyncio.sleep(0)  # it has begun to look
        else:
            await world.locator._look_again()

    assert (await world.change()).history.node == "old:1"
    world.meanwhile = chosen
    with pytest.raises(AttemptError, match="no majority of the Sentinels grants") as caught:
        await world.change()
    assert caught.value.sent
    assert caught.value.reply is not None
    await asyncio.gather(*looking)


async def test_what_comes_after_an_announcement_waits_for_the_look_that_it_causes(world: World) -> None:
    world.promotes(NEW, by_hand=True)
    looking = asyncio.ensure_future(world.locator._note_step())
    await asyncio.sleep(0)
    with pytest.raises(AttemptError, match="is just being promoted"):
        await world.change()
    await looking


async def test_a_primary_whose_promoted_replica_is_dead_is_asked_but_confirms_nothing(world: World) -> None:
    world.promotes(NEW, by_hand=True)
    world.roles["new:2"] = redis_errors.ConnectionError("refused")
    assert await world.primary() == "old:1"
    assert (await world.locator.attempt(request(command()))).history.node == "old:1"
    with pytest.raises(AttemptError, match="lease"):
        await world.change()


async def test_without_the_right_to_list_replicas_the_announcement_is_waited_for(world: World) -> None:
    world.leader.may_list = False
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    assert await world.primary() is None
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"


async def test_an_older_epoch_promotes_no_replica(world: World) -> None:
    world.other.announces(THIRD, 8)
    assert await world.primary() == "third:3"
    world.leader.promotes(NEW)  # it slept through that failover
    world.roles["new:2"] = b"master"
    assert await world.primary() == "third:3"
    world.other.named = LOST
    assert await world.primary() is None


async def test_what_waits_is_woken_by_the_promotion(world: World) -> None:
    world.promotes(NEW)
    world.roles["new:2"] = b"master"
    seen = world.locator.monitor.topology_epoch
    waiter = asyncio.ensure_future(world.locator.monitor.wait_for_topology_change(30, seen))
    await asyncio.sleep(0)
    await world.primary()
    await asyncio.wait_for(waiter, 5)


async def test_a_change_after_the_lease_is_confirmed_if_the_sentinels_renew_it(world: World) -> None:
    world.clock.now += LEASE_SECONDS + 1
    assert (await world.change()).value == [Status.APPLIED, 5, b""]
    assert world.locator._lease_until == world.clock.now + LEASE_SECONDS


@pytest.mark.parametrize("gone", [True, False])
async def test_a_change_on_a_primary_whose_lease_is_over_is_a_shortfall_that_keeps_the_reply(
    world: World, gone: bool
) -> None:
    world.clock.now += LEASE_SECONDS + 1
    for each in world.sentinels:
        each.named = LOST if gone else OLD
        each.ping_sent_ms = PATIENCE_SECONDS * 1000  # it has not answered them for so long either
    with pytest.raises(AttemptError) as caught:
        await world.change()
    error = caught.value
    assert isinstance(error.cause, ShortfallError)
    assert (error.node, error.sent, error.cause.wait_seconds) == ("old:1", True, 0.0)
    assert error.reply is not None
    assert error.reply.value == [Status.APPLIED, 5, b""]


async def test_a_change_on_a_primary_that_turns_out_to_be_deposed_is_not_confirmed(world: World) -> None:
    world.clock.now += LEASE_SECONDS + 1
    world.other.announces(NEW, 8)
    with pytest.raises(AttemptError, match="lease"):
        await world.change()
    assert await world.primary() == "new:2"


async def test_a_sentinel_that_still_names_another_primary_grants_no_lease(clock: Clock) -> None:
    world = World(clock, sentinels=3)
    world.other.announces(NEW, 8)
    assert await world.primary() == "new:2"
    assert world.locator._lease_until == 0.0
    world.leader.announces(NEW, 8)
    assert await world.primary() == "new:2"
    assert world.locator._lease_until == clock.now + LEASE_SECONDS


async def test_what_needs_no_confirmation_needs_no_lease(world: World) -> None:
    world.clock.now += LEASE_SECONDS + 1
    for each in world.sentinels:
        each.named = LOST
    assert (await world.locator.attempt(request(command()))).history.node == "old:1"


@pytest.mark.parametrize(("epoch", "down"), [(8, False), (7, True)])
async def test_the_higher_epoch_counts_and_of_equal_ones_the_well(world: World, epoch: int, down: bool) -> None:
    world.other.announces(NEW, epoch)
    world.leader.down = down
    assert await world.primary() == "new:2"


async def test_a_sentinel_that_slept_through_a_failover_does_not_lead_back(world: World) -> None:
    world.other.announces(NEW, 8)
    assert await world.primary() == "new:2"
    world.other.named = LOST
    world.clock.now += 11
    with pytest.raises(AttemptError, match="only Sentinels that still name the deposed primary old:1"):
        await world.locator.primaries()


async def test_a_majority_that_names_an_older_epoch_for_long_was_reset(clock: Clock) -> None:
    world = World(clock, sentinels=3)
    for each in world.sentinels:
        each.announces(NEW, 8)
    assert await world.primary() == "new:2"
    for each in world.sentinels[:2]:
        each.announces(THIRD, 1)
    world.sentinels[2].named = LOST
    clock.now += 9
    assert await world.primary() is None
    clock.now += 2
    assert await world.primary() == "third:3"
    await world.locator.aclose()


async def test_a_primary_that_the_sentinels_see_as_down_is_not_asked(world: World) -> None:
    world.leader.down = world.other.down = True
    with pytest.raises(AttemptError, match="see the primary old:1 as down"):
        await world.locator.primaries()


@in_virtual_time
async def test_a_failover_cuts_what_waits_for_the_old_primary(world: World) -> None:
    async def switched() -> None:
        world.other.announces(NEW, 8)
        await asyncio.get_running_loop().create_future()

    world.meanwhile = switched
    task = asyncio.ensure_future(world.locator.attempt(request(command())))
    await asyncio.sleep(0.01)
    assert await world.primary() == "new:2"
    with pytest.raises(AttemptError) as caught:
        await task
    assert isinstance(caught.value.cause, TakenOverError)
    world.locator.suspect(caught.value)
    assert not world.locator._stale  # what was found out is as new as can be


async def test_after_a_failure_the_sentinels_are_asked_before_the_next_attempt(world: World) -> None:
    world.locator.suspect(failed(LOST, node="old:1"))
    world.other.announces(NEW, 8)
    assert (await world.locator.attempt(request(command()))).history.node == "new:2"


NO_SUCH = redis_errors.ResponseError("ERR No such master with that name")


@pytest.mark.parametrize(
    ("errors", "permanent"),
    [
        ((NO_SUCH, NO_SUCH), PrimaryNotFoundError),
        ((NO_SUCH, LOST), PrimaryNotFoundError),
        ((redis_errors.ResponseError("ERR unknown command 'SENTINEL'"),) * 2, WrongTopologyError),
        ((redis_errors.AuthenticationError("WRONGPASS"),) * 2, AuthenticationFailedError),
        ((redis_errors.ConnectionError("Error 111"), redis_errors.ConnectionError("Error 111")), None),
    ],
)
async def test_what_cannot_succeed_later_either_is_said_at_the_first_contact(
    clock: Clock, errors: tuple[Exception, ...], permanent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def passing(*what: Any) -> None: ...

    monkeypatch.setattr(sentinel, "permanent_cause", passing)
    world = World(clock)
    for each, error in zip(world.sentinels, errors, strict=True):
        each.named = error
    with pytest.raises(AttemptError, match="Sentinel s:1: ") as caught:
        await world.locator.primaries()
    assert (caught.value.permanent, caught.value.node, caught.value.sent) == (permanent, None, False)


async def test_a_service_that_was_known_may_be_known_again_by_a_sentinel_that_cannot_be_reached(world: World) -> None:
    world.leader.named, world.other.named = NO_SUCH, LOST
    for permanent in (None, PrimaryNotFoundError):
        with pytest.raises(AttemptError) as caught:
            await world.locator.primaries()
        assert caught.value.permanent is permanent
        world.other.named = NO_SUCH


@in_virtual_time
async def test_polling_goes_on_whatever_one_round_meets() -> None:
    locator = SentinelLocator(HAConfig(topology="sentinel", nodes=["s:1"], service_name="m"))
    rounds = []

    async def fail() -> None:
        rounds.append(asyncio.get_running_loop().time())
        raise CANNOT_CLOSE

    locator._refresh = SimpleNamespace(run=fail)  # type: ignore[assignment]
    task = asyncio.ensure_future(locator._poll())
    await asyncio.sleep(3.5 * locator._settings.poll_interval_seconds)
    assert not task.done()
    assert len(rounds) == 3


async def test_closing_waits_until_the_connections_to_a_deposed_primary_are_closed(world: World) -> None:
    (old,) = world.locator.nodes()
    gate, closed = asyncio.Event(), []

    async def disconnect(inuse_connections: bool) -> None:
        await gate.wait()
        closed.append(inuse_connections)

    old.client.connection_pool.disconnect = disconnect  # type: ignore[assignment]
    world.other.announces(NEW, 8)
    assert await world.primary() == "new:2"
    closing = asyncio.ensure_future(world.locator.aclose())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    assert closed
    assert all(closed)


async def test_closing_closes_every_sentinel_and_node_although_none_can_be_closed(world: World) -> None:
    (node,) = world.locator.nodes()
    await world.locator.aclose()
    assert [each.closed for each in world.sentinels] == [1, 1]
    assert node.retired
