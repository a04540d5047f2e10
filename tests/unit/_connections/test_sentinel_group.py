"""Which Sentinels are asked, how many there are, and until when their words grant a lease."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import Address, HAConfig, SentinelConfig
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.sentinel_group import SentinelGroup, lease_seconds
from agents_redis_ha._connections.sentinel_state import SentinelState
from tests.support.fake_nodes import LOST
from tests.support.fake_sentinels import NEW, Clock, World
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import assert_cancellable


def group(configured: int) -> SentinelGroup:
    nodes = [f"s:{port}" for port in range(1, configured + 1)]
    config = HAConfig(topology="sentinel", nodes=nodes, service_name="m")
    return SentinelGroup(config, lambda address: None)  # type: ignore[arg-type,return-value]


def said(*leases: float, quorum: int = 2, sentinels: int = 1) -> dict[Address, SentinelState]:
    """Return the words of as many Sentinels as there are leases."""
    primary = Address("old", 1)
    return {
        Address("s", port): SentinelState(primary, 7, False, until, quorum, sentinels=sentinels)
        for port, until in enumerate(leases, 1)
    }


@pytest.mark.parametrize(
    ("nodes", "quorum", "leases", "until"),
    [
        (3, 2, (9.0, 5.0, 7.0), 7.0),  # two of three would have to agree, so two have to grant it
        (3, 2, (9.0,), 0.0),
        (3, 1, (9.0, 5.0, 7.0), 5.0),  # any of them can begin an election
        (3, 1, (9.0, 5.0), 5.0),  # the third one needs their votes
        (3, 1, (9.0,), 0.0),  # the others can elect without this one
        (3, 3, (9.0, 5.0), 5.0),  # no majority's word is newer
        (5, 3, (9.0, 8.0, 7.0, 6.0, 5.0), 7.0),
        (5, 3, (9.0, 8.0, 7.0), 7.0),
        (5, 3, (9.0, 8.0), 0.0),
        (4, 3, (9.0, 8.0), 8.0),  # the other two are no majority
        (1, 1, (9.0,), 9.0),
        (3, 2, (), 0.0),
    ],
)
def test_a_lease_lasts_until_others_can_have_a_quorum_and_a_majority(
    nodes: int, quorum: int, leases: tuple[float, ...], until: float
) -> None:
    found, answers = group(nodes), said(*leases, quorum=quorum)
    assert found.lease_until(answers) == until
    promoting = {a: dataclasses.replace(answer, promoted_replica=Address("new", 2)) for a, answer in answers.items()}
    assert found.lease_until(promoting) == 0.0


def test_an_answer_counts_for_one_period_of_polling_and_the_time_that_an_answer_may_take() -> None:
    assert lease_seconds(SentinelConfig()) == 1.5
    assert lease_seconds(SentinelConfig(poll_interval_seconds=0.25, timeout_seconds=0.1)) == pytest.approx(0.35)
    assert lease_seconds(SentinelConfig(poll_interval_seconds=30)) == 1.5  # it is renewed by those that need it


def lease_left(world: World) -> float:
    return max(0.0, world.locator._lease_until - world.clock.now)


async def test_the_sentinels_that_the_configured_one_tells_of_have_a_say_in_the_lease(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    await world.change()
    assert lease_left(world) == lease_seconds(SentinelConfig())
    for cut_off in world.sentinels[1:]:
        cut_off.named = LOST
    clock.now += lease_left(world)
    with pytest.raises(AttemptError, match=r"no majority of the Sentinels .* \(1 of 3 speak for it\)"):
        await world.change()
    world.sentinels[2].named = ("old", 1)
    await world.change()
    await world.locator.aclose()
    assert [each.closed for each in world.sentinels] == [1, 1, 1]


async def test_a_sentinel_that_may_not_list_the_others_shows_no_majority_alone(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    world.leader.may_list = False
    with pytest.raises(AttemptError, match=r"1 of 3 speak for it"):
        await world.change()
    assert [each.asked > 0 for each in world.sentinels] == [True, False, False]
    await world.locator.aclose()


async def test_without_changes_to_confirm_only_the_configured_sentinels_are_asked(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    assert await world.primary() == "old:1"
    assert [each.asked for each in world.sentinels] == [1, 0, 0]
    await world.locator.aclose()


async def test_a_sentinel_with_two_names_has_one_say(clock: Clock) -> None:
    world = World(clock, sentinels=3)
    world.sentinels[1] = world.sentinels[0]  # behind the second name is the first one again
    world.locator._sentinels.clients[Address("s", 2)] = world.sentinels[0]  # type: ignore[assignment]
    world.sentinels[2].named = LOST
    with pytest.raises(AttemptError, match=r"1 of 3 speak for it"):
        await world.change()
    await world.locator.aclose()


async def test_configured_names_that_answer_are_not_asked_again_by_the_addresses_that_others_tell(
    clock: Clock,
) -> None:
    world = World(clock, sentinels=3)
    for each in world.sentinels:
        each.others = {name: ("10.0.0.1", port) for name, (_, port) in each.others.items()}
    await world.change()
    assert [each.asked for each in world.sentinels] == [1, 1, 1]
    world.sentinels[2].named = LOST  # it may be asked by the other address: what it says counts once
    await world.primary()
    assert Address("10.0.0.1", 3) in world.locator._sentinels.clients
    world.sentinels[2].named = ("old", 1)
    await world.primary()
    assert world.locator._sentinels.clients.keys() == {Address("s", port) for port in (1, 2, 3)}
    await world.locator.aclose()


async def test_a_newer_epoch_is_learned_from_a_sentinel_that_was_told_of(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    world.other.announces(NEW, 8)
    world.roles["new:2"] = b"master"
    world.locator._sentinels.finds_others = True
    assert await world.primary() == "new:2"
    await world.locator.aclose()


async def test_a_sentinel_that_forgot_the_others_is_not_all_there_is(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    await world.change()
    world.leader.others = {}  # SENTINEL RESET, in a minority
    for cut_off in world.sentinels[1:]:
        cut_off.named = LOST
    clock.now += lease_left(world)
    with pytest.raises(AttemptError, match="1 of 3 speak for it"):
        await world.change()
    await world.locator.aclose()


async def test_sentinels_that_are_removed_for_good_are_not_counted_any_more(clock: Clock) -> None:
    world = World(clock, sentinels=3, configured=1)
    await world.change()
    removed = world.sentinels[2]
    removed.named = LOST
    for own, each in enumerate(world.sentinels[:2]):
        each.others = {f"id-{1 - own}": ("s", 2 - own)}
    await world.primary()
    assert world.locator._sentinels.clients.keys() == {Address("s", 1), Address("s", 2)}
    await world.locator.aclose()
    assert removed.closed == 1


@in_virtual_time
async def test_a_lease_is_renewed_while_a_change_is_on_its_way(clock: Clock) -> None:
    world = World(clock, sentinels=3)
    await world.change()
    rounds = world.leader.asked
    clock.now += lease_left(world) / 2
    await world.change()
    assert world.leader.asked == rounds  # it is new enough
    clock.now += lease_left(world) - 0.01
    renewed: list[float] = []

    async def look() -> None:
        await asyncio.sleep(0.001)  # ends when all that can go on has gone on
        renewed.append(lease_left(world))

    world.meanwhile = look
    await world.change()
    assert renewed == [lease_seconds(SentinelConfig())]
    await world.locator.aclose()


@in_virtual_time
async def test_a_sentinel_that_fails_or_hangs_is_a_problem_after_its_timeout() -> None:
    world = World(Clock())
    assert await world.locator.problems() == []
    for world.other.named in (LOST, asyncio.get_running_loop().create_future()):
        (problem,) = await world.locator.problems()
        assert problem.startswith("Sentinel s:2 does not answer: ")


@pytest.mark.parametrize(
    "error", [redis_errors.AuthenticationError("WRONGPASS no"), redis_errors.ResponseError("ERR No such master")]
)
async def test_a_sentinel_that_refuses_does_answer(error: Exception) -> None:
    world = World(Clock())
    world.other.named = error
    assert await world.locator.problems() == [f"Sentinel s:2 refuses: {error}"]


@in_virtual_time
async def test_a_look_at_the_sentinels_can_be_cancelled_in_any_moment(clock: Clock) -> None:
    def look(answer: asyncio.Future[None]) -> Coroutine[Any, Any, object]:
        async def fail(service: str) -> dict[str, Any]:
            await answer
            raise LOST

        world = World(clock)
        world.other.sentinel_master = fail  # type: ignore[method-assign]
        return world.locator.problems()

    await assert_cancellable(look)
