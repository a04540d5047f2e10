"""Turns wait in the order of arrival: those who died lose their places, those whose server was away keep them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from agents_redis_ha import RedisHASession, TurnBusyError, ha_session, ha_turn, lab
from agents_redis_ha._commands import TurnSpec, begin_turn, new_operation_id

LEASE_MS, RETENTION_MS = 60_000, 600_000


class Queue:
    """Asks for a session that a turn has, and changes how long ago each of those who wait was heard of."""

    def __init__(self, servers: lab.Lab, session: RedisHASession) -> None:
        self._operations = session._operations
        self._key = self._operations.spec.keys.turns
        self._client: Any = servers.client(servers.primary(self._key))

    async def ask(self, turn_id: str) -> int:
        """Return the place of a turn that asks once."""
        turn = TurnSpec(self._operations.spec, turn_id.encode(), new_operation_id(), b"-", LEASE_MS, RETENTION_MS)
        command = begin_turn(turn, if_busy="enqueue", if_unanswered="resume", newest=0)
        return (await self._operations.execute(command)).place

    async def let_places_end_in(self, **milliseconds: int) -> None:
        """Let the places of these turns, in the order of the queue, hold for so long, or have run out before."""
        await asyncio.to_thread(self._write, milliseconds)

    async def leave_a_dead_one(self, session: RedisHASession) -> None:
        """Let one turn die while it waits for another, which ends; a minute passes."""
        async with ha_turn(session, "running") as turn:
            assert await self.ask("dead") == 1
            await self.let_places_end_in(dead=-60_000)
            turn.answer()

    def _write(self, milliseconds: Mapping[str, int]) -> None:
        seconds, microseconds = self._client.time()
        now = seconds * 1000 + microseconds // 1000
        waiting = self._client.hget(self._key, "queue").decode().split()[::2]
        ends = zip(waiting, milliseconds.values(), strict=True)
        self._client.hset(self._key, "queue", " ".join(f"{ticket} {now + left}" for ticket, left in ends))


@pytest.mark.parametrize(
    "left",
    [
        pytest.param({"a": -59_000, "b": -60_000, "c": -58_100}, id="for a minute"),
        pytest.param({"a": -900, "b": -100, "c": 1000}, id="for so long that some places have run out"),
    ],
)
@pytest.mark.parametrize("first", ["b", "c", "newcomer"])
async def test_those_who_wait_keep_their_order_while_the_server_is_away(
    servers: lab.Lab, session_id: str, left: dict[str, int], first: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    async with ha_turn(session, "running"):
        assert [await queue.ask(each) for each in "abc"] == [1, 2, 3]
        await queue.let_places_end_in(**left)
        places = {"a": 1, "b": 2, "c": 3, "newcomer": 4}
        assert await queue.ask(first) == places[first]
        assert await queue.ask("c") == 3  # it asks twice before a has asked at all
        assert {each: await queue.ask(each) for each in places} == places


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_one_who_is_not_heard_of_while_others_are_loses_its_place(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    async with ha_turn(session, "running"):
        assert [await queue.ask(each) for each in "abc"] == [1, 2, 3]
        await queue.let_places_end_in(a=-1, b=3900, c=2400)
        assert [await queue.ask(each) for each in "bca"] == [1, 2, 3]


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_all_who_wait_may_have_died(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    await queue.leave_a_dead_one(session)
    async with ha_turn(session, "living", wait_seconds=60) as turn:
        turn.answer()


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_those_who_died_long_ago_hold_nobody_up(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    async with ha_turn(session, "running"):
        assert await queue.ask("dead") == 1
        await queue.let_places_end_in(dead=-601_000)
        assert await queue.ask("living") == 1


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
@pytest.mark.parametrize("if_busy", ["reject", "interrupt", "rollback"])
async def test_those_who_died_hold_nobody_up_who_does_not_queue(
    servers: lab.Lab, session_id: str, if_busy: Any
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    await queue.leave_a_dead_one(session)
    async with ha_turn(session, "first", if_busy=if_busy, wait_seconds=1) as turn:
        turn.answer()


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_one_that_died_is_waited_for_once_however_short_others_wait(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    await queue.leave_a_dead_one(session)
    for _ in range(2):
        with pytest.raises(TurnBusyError):
            await ha_turn(session, "short", wait_seconds=0).__aenter__()
    await queue.let_places_end_in(dead=-1)
    async with ha_turn(session, "short", wait_seconds=0) as turn:
        turn.answer()


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
@pytest.mark.parametrize("first", ["a", "c"])
async def test_those_who_wait_keep_their_order_when_the_clock_goes_back(
    servers: lab.Lab, session_id: str, first: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    async with ha_turn(session, "running"):
        assert [await queue.ask(each) for each in "abc"] == [1, 2, 3]
        await queue.let_places_end_in(a=64_000, b=63_000, c=63_500)
        places = {"a": 1, "b": 2, "c": 3}
        assert await queue.ask(first) == places[first]
        await queue.let_places_end_in(a=3900, b=3900, c=3900)  # they are kept anew, as from now
        assert {each: await queue.ask(each) for each in places} == places


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_a_turn_that_was_rolled_back_waits_behind_those_who_wait(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    queue = Queue(servers, session)
    with contextlib.suppress(KeyError):
        async with ha_turn(session, "again", on_error="rollback"):
            raise KeyError
    async with ha_turn(session, "running"):
        assert [await queue.ask(each) for each in ("a", "again")] == [1, 2]
