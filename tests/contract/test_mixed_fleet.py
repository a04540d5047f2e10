"""Processes of one fleet with different settings, as a rolling change of the configuration has them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents_redis_ha import UnsupportedFormatError
from agents_redis_ha._commands import append, commands
from tests.support.history import History, Workers, message, say, texts

LONG: dict[str, Any] = {"op_retention_seconds": 120}
SHORT: dict[str, Any] = {"op_retention_seconds": 3, "retry": {"deadline_seconds": 1.5}, "durability": {}}


async def test_an_id_is_remembered_for_as_long_as_the_process_asked_that_made_the_change(
    workers: Workers, history: History
) -> None:
    patient, hasty = await workers.make(**LONG), await workers.make(**SHORT)
    command = append(patient._operations.spec, [b'{"role":"user","content":"1"}'])
    await patient._operations.execute(command)
    for number in range(6):
        await say(hasty, str(number))
        await asyncio.sleep(0.7)  # so that what is older than three seconds would be dropped
    await patient._operations.execute(replace(command, repeats=True))
    assert await texts(patient) == ["1", *"012345"]
    assert int((await history.meta())[b"retention"]) == 120_000


async def test_what_a_process_with_a_short_memory_cleared_stays_cleared(workers: Workers, history: History) -> None:
    patient, hasty = await workers.make(**LONG), await workers.make(**SHORT)
    await say(hasty, "1", "2")
    assert await texts(patient) == ["1", "2"]
    await hasty.clear_session()
    await asyncio.sleep(3.3)  # the trace of the clearing is gone
    assert await history.meta() == {}
    await history.lose()  # and with a failover, a deletion cannot be told from a loss
    assert await texts(patient) == []
    assert await texts(hasty) == []


async def test_the_ttl_is_that_of_the_last_change_that_had_one(workers: Workers, history: History) -> None:
    hour, minute, none = [await workers.make(ttl=ttl) for ttl in (3600, 60, None)]
    await say(hour, "1")
    await say(minute, "2")
    assert 50 < ((await none.info()).ttl_seconds or 0) <= 60
    await say(none, "3")
    assert 50 < ((await none.info()).ttl_seconds or 0) <= 60
    await say(hour, "4")
    assert ((await none.info()).ttl_seconds or 0) > 3500


async def test_ids_live_no_longer_than_the_session(workers: Workers, history: History) -> None:
    ours, other = await workers.make(ttl=1), await workers.make()
    await say(ours, "1")
    await say(other, "2")
    await asyncio.sleep(1.2)
    assert await texts(other) == []  # nothing is missing: it has expired
    assert await history.bytes_of("ops") == 0


@pytest.mark.parametrize("reads_with_hiredis", [True, False])
async def test_hints_of_processes_with_and_without_hiredis_fit_together(
    workers: Workers, history: History, monkeypatch: pytest.MonkeyPatch, reads_with_hiredis: bool
) -> None:
    first, second = await workers.make(), await workers.make()
    await say(first, "1")
    async with history.losing():
        await say(first, "2")
        monkeypatch.setattr(commands, "HIREDIS_AVAILABLE", reads_with_hiredis)
        assert await texts(second) == ["1", "2"]
        monkeypatch.setattr(commands, "HIREDIS_AVAILABLE", not reads_with_hiredis)
        await say(first, "3")
    await asyncio.gather(texts(first), texts(second))  # the second knows nothing of the last
    assert await texts(second) == ["1", "2", "3"] == await texts(first)


@pytest.mark.parametrize("format_", ["2", None], ids=["a later one", "none"])
@pytest.mark.parametrize("operation", ["append", "pop", "clear", "read", "info", "compact"])
async def test_a_session_in_an_unknown_format_is_left_as_it_is(
    workers: Workers, history: History, operation: str, format_: str | None
) -> None:
    writer, ours = await workers.make(), await workers.make()
    await say(writer, "1")
    if format_ is None:
        await history.forget_in_meta("format")
    else:
        await history.set_meta(format=format_)
    before = await history.meta()
    calls: dict[str, Any] = {
        "append": lambda: ours.add_items([message("2")]),
        "pop": ours.pop_item,
        "clear": ours.clear_session,
        "read": ours.get_items,
        "info": ours.info,
        "compact": lambda: ours._atomic_replace_items([message("2")]),
    }
    with pytest.raises(UnsupportedFormatError, match="format"):
        await calls[operation]()
    assert await history.meta() == before
    await history.set_meta(format="1")
    assert await texts(writer) == ["1"]
