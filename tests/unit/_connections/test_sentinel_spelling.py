"""Sentinels that tell host names beside others that tell addresses: one server in two spellings."""

from __future__ import annotations

from redis import exceptions as redis_errors

from tests.support.fake_nodes import LOST
from tests.support.fake_sentinels import Clock, World
from tests.support.fakes import failed

RESPELLED = ("10.0.0.1", 1)


def respells(world: World) -> None:
    """Let one Sentinel tell the primary's address where the others tell its name."""
    world.other.named = RESPELLED
    for each in world.sentinels:
        each.run_id = "one process"


async def test_sentinels_that_spell_the_primary_differently_cause_no_failovers(clock: Clock) -> None:
    world = World(clock, sentinels=3)
    respells(world)
    for silent in (*world.sentinels, *world.sentinels):
        kept, silent.named = silent.named, LOST
        assert await world.primary() == (await world.change()).history.node  # both spellings grant the lease
        silent.named = kept
    assert (world.locator.failovers, len(world.locator.nodes())) == ([], 1)
    await world.locator.aclose()


async def test_without_run_ids_the_spelling_in_use_is_kept_while_one_names_it(world: World) -> None:
    respells(world)
    world.leader.run_id, world.other.run_id = "", ""
    for _ in range(5):
        assert await world.primary() == "old:1"
    assert world.locator.failovers == []


async def test_a_spelling_that_leads_nowhere_gives_way_to_another_without_a_failover(world: World) -> None:
    respells(world)
    assert await world.primary() == "old:1"
    world.locator.suspect(failed(redis_errors.MaxConnectionsError("none free"), node="old:1"))
    assert await world.primary() == "old:1"  # that is no fault of the address
    world.locator.suspect(failed(redis_errors.ConnectionError("Error -2 Name or service not known"), node="old:1"))
    assert await world.primary() == "10.0.0.1:1"
    assert await world.primary() == "10.0.0.1:1"
    assert world.locator.failovers == []


async def test_another_process_at_another_address_is_a_failover_under_any_epoch(world: World) -> None:
    respells(world)
    world.leader.named, world.other.run_id = LOST, "another process"
    assert await world.primary() == "10.0.0.1:1"
    assert world.locator.failovers == ["10.0.0.1:1"]
