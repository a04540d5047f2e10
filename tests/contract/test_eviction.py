"""A server that evicts keys: a repeat is stored once, and what is missing is put back or said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest

from agents_redis_ha import HistoryLostError, Outcome, OutcomeLostError, SessionStore, lab, session_keys
from agents_redis_ha._commands import EarlierAttempts, LogPosition, Status, append, pop
from agents_redis_ha._connections import Request
from agents_redis_ha._telemetry import OperationSpan
from tests.support.history import History, Workers, forget_all, message, say, texts

KEYS = ("items", "meta", "ops")
PARTS = [parts for count in (1, 2) for parts in combinations(KEYS, count)]
parts_of_it = pytest.mark.parametrize("parts", PARTS, ids="+".join)


async def repeat_with_evicted(history: History, session: Any, parts: tuple[str, ...], *between: Any) -> None:
    """Send an append whose reply is lost a second time; the server evicts keys before that."""
    command = append(session._operations.spec, [b'{"role":"user","content":"again"}'])
    coordinator = session._operations._source()
    await session._operations.execute(command)
    for other in between:
        await say(other, "between")
    await history.evict(*parts)
    coordinator._journal.forget(
        coordinator._journal.log(session._operations.spec)
    )  # this call is all that the process knows
    await session._operations.execute(replace(command, repeats=True))


@parts_of_it
async def test_a_repeat_is_never_stored_twice(workers: Workers, history: History, parts: tuple[str, ...]) -> None:
    ours, reader = await workers.make(), await workers.make()
    await say(ours, "1")
    try:
        await repeat_with_evicted(history, ours, parts)
    except OutcomeLostError as error:
        assert error.outcome is Outcome.UNKNOWN  # noqa: PT017 (either is right)
    try:
        found = await texts(reader)
    except HistoryLostError:
        found = await texts(reader)
    assert found.count("again") <= 1
    if "items" not in parts:
        assert found == ["1", "again"]


@pytest.mark.parametrize("parts", [("ops",), ("meta", "ops")], ids="+".join)
async def test_a_repeat_that_cannot_be_told_from_a_first_attempt_is_refused(
    workers: Workers, history: History, parts: tuple[str, ...]
) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "1")
    with pytest.raises(OutcomeLostError) as caught:
        await repeat_with_evicted(history, ours, parts, other)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert await texts(other) == ["1", "again", "between"]
    await say(ours, "2")
    assert await texts(other) == ["1", "again", "between", "2"]


async def test_a_repeat_is_not_stored_twice_in_a_history_that_began_anew(workers: Workers, history: History) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "1")
    coordinator, spec = ours._operations._source(), ours._operations.spec
    since = coordinator._journal.log(spec).position
    command = append(spec, [b'{"role":"user","content":"again"}'])
    await ours._operations.execute(command)  # say its reply is lost
    await history.evict("meta", "ops")
    await say(other, "between")
    coordinator._journal.forget(coordinator._journal.log(spec))
    span = OperationSpan("append", coordinator.executor.locator.topology, spec.session_id, spec.show_id)
    operation = coordinator.executor.begin(span, changes=True, options=ours._operations._options)
    operation._earlier[command.id] = EarlierAttempts(since, may_be_applied=True)
    with pytest.raises(OutcomeLostError):
        await coordinator.execute(operation, command)
    span.finish()
    assert await texts(other) == ["1", "again", "between"]


@pytest.mark.parametrize("repair", [{}, {"max_changes": 0}], ids=["", "keeping nothing"])
async def test_where_ids_were_evicted_a_late_first_attempt_is_refused_and_a_living_client_goes_on(
    workers: Workers, history: History, repair: dict[str, int]
) -> None:
    ours, other = await workers.make(repair=repair), await workers.make()
    await say(other, "1")
    await texts(ours)
    command = append(ours._operations.spec, [b'{"role":"user","content":"again"}'])
    known = LogPosition(1, (await history.ops())[2][:12])  # its request was on its way then
    await ours._operations.execute(command)  # its repeat
    await history.evict("ops")
    await say(other, "between")
    late = Request(command, SimpleNamespace(position=known), lambda node: None)
    refused = command.decode(await ours._operations._source().executor.locator.attempt(late))
    assert refused.status is Status.LOG_MISMATCH
    await say(ours, "2")
    await say(other, "3")
    assert await texts(other) == ["1", "again", "between", "2", "3"]


@pytest.mark.parametrize("then", [("meta", "ops"), ("ops", "meta")], ids="+".join)
async def test_what_is_evicted_while_the_rest_is_missed_is_said_to_be_lost(
    workers: Workers, history: History, then: tuple[str, ...]
) -> None:
    writer = await workers.make(repair={"max_changes": 0})
    newcomer = await workers.make(patience_seconds=1.0)
    await say(writer, "1", "2")
    await newcomer.info()
    await history.evict("items")
    reading = asyncio.ensure_future(newcomer.get_items())
    while b"fence" not in await history.meta():
        assert not reading.done()
    for part in then:
        await history.evict(part)
    with pytest.raises(HistoryLostError) as caught:
        await reading
    assert 2 in caught.value.versions
    assert await texts(newcomer) == []


@parts_of_it
async def test_a_process_that_has_read_the_session_puts_it_back(
    workers: Workers, history: History, parts: tuple[str, ...]
) -> None:
    writer, reader, newcomer = [await workers.make() for _ in range(3)]
    await say(writer, "1", "2")
    await writer.pop_item()
    assert await texts(reader) == ["1"]
    await say(reader, "3")
    await history.evict(*parts)
    assert await texts(reader) == ["1", "3"]
    assert await texts(newcomer) == ["1", "3"]
    await say(newcomer, "4")
    assert await texts(writer) == ["1", "3", "4"]


@pytest.mark.parametrize("operation", ["read", "append", "info", "pop"])
@pytest.mark.parametrize("parts", [("items",), ("items", "meta"), ("items", "ops")], ids="+".join)
async def test_items_that_no_process_knows_are_said_to_be_lost_once(
    workers: Workers, history: History, parts: tuple[str, ...], operation: str
) -> None:
    writer = await workers.make(repair={"max_changes": 0})
    newcomer, second = await workers.make(patience_seconds=0.1), await workers.make()
    await say(writer, "1", "2")
    await history.evict(*parts)
    calls: dict[str, Any] = {"read": newcomer.get_items, "info": newcomer.info, "pop": newcomer.pop_item}
    with pytest.raises(HistoryLostError) as caught:
        await (say(newcomer, "3") if operation == "append" else calls[operation]())
    assert caught.value.outcome is Outcome.NOT_APPLIED
    await say(newcomer, "3")
    assert await texts(newcomer) == ["3"]
    assert await texts(second) == ["3"]


async def test_a_process_that_knew_the_items_is_told_that_others_gave_them_up(
    workers: Workers, history: History
) -> None:
    writer, newcomer = await workers.make(), await workers.make(patience_seconds=0.1)
    await say(writer, "1", "2")
    await writer.info()
    forget_all(writer)
    await writer.info()  # all that it knows: there are two changes
    await history.evict("items")
    with pytest.raises(HistoryLostError):
        await newcomer.get_items()
    with pytest.raises(HistoryLostError) as caught:
        await writer.get_items()
    assert caught.value.versions == (1, 2)
    assert await texts(writer) == []


async def test_a_session_whose_keys_are_all_gone_counts_as_deleted(workers: Workers, history: History) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "1")
    assert await texts(other) == ["1"]
    await history.evict(*KEYS)
    assert await texts(other) == []
    await say(ours, "2")
    assert await texts(other) == ["2"]


async def test_the_result_of_a_pop_that_was_evicted_is_said_to_be_gone(workers: Workers, history: History) -> None:
    ours = await workers.make()
    await say(ours, "1", "2")
    command = pop(ours._operations.spec)
    await ours._operations.execute(command)
    version = int((await history.meta())[b"version"])
    await history.forget_in_meta(f"result:{version}")
    with pytest.raises(OutcomeLostError) as caught:
        await ours._operations.execute(replace(command, repeats=True))
    assert caught.value.outcome is Outcome.APPLIED
    assert await texts(ours) == ["1"]


@pytest.mark.parametrize("policy", ["allkeys-random", "volatile-random"])
async def test_under_real_evictions_every_session_is_whole_or_deleted_or_said_to_be_lost(policy: str) -> None:
    said = [message("x" * 400), message("y" * 400)]
    with lab.start("standalone") as servers:
        node = servers.primary()
        outcomes: dict[str, int] = {}
        async with SessionStore(servers.config(repair={"patience_seconds": 0.05})) as store:
            for number in range(60):
                await store.session(f"s{number}").add_items(said)
            used = node.ask("INFO", "memory")["used_memory"]
            node.ask("CONFIG", "SET", "maxmemory-policy", policy)
            (warning,) = (await store.health()).warnings
            assert f"maxmemory-policy is {policy}" in warning
            node.ask("CONFIG", "SET", "maxmemory", used - 20_000)
            lab.wait_until(lambda: node.ask("INFO", "stats")["evicted_keys"] > 20, "the server to evict")
            node.ask("CONFIG", "SET", "maxmemory", 0)
        async with SessionStore(servers.config(repair={"patience_seconds": 0.05})) as store:
            for number in range(60):
                keys = session_keys("agents:ha", f"s{number}")
                there = node.ask("EXISTS", *(key.decode() for key in (keys.items, keys.meta, keys.ops)))
                try:
                    items = await store.session(f"s{number}").get_items()
                    outcome = "whole" if items == said else "deleted" if items == [] and not there else "silent"
                except HistoryLostError:
                    outcome = "said"
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert "silent" not in outcomes
        assert outcomes.get("whole", 0) < 60 or policy == "volatile-random"
