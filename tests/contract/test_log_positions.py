"""A version and its digest name one history: every loss is told, and a version never matches a later history."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agents_redis_ha import ConfigurationError, ConflictError, HistoryLostError, lab, session_keys
from agents_redis_ha._commands import append, chain
from tests.support.history import History, Workers, forget_all, message, say, texts, told_of_lost


async def test_a_loss_is_told_although_the_latest_change_was_repeated_behind_another(
    workers: Workers, history: History
) -> None:
    first, second, third = [await workers.make() for _ in range(3)]
    await say(first, "1", "2")
    await third.info()
    late = append(second._operations.spec, [b'{"role":"user","content":"y"}'])
    async with history.losing():
        await say(first, "x")
        await second._operations.execute(late)  # its reply is lost, as far as the second knows
        assert await texts(first) == ["1", "2", "x", "y"]
    coordinator = second._operations._source()
    coordinator._journal.forget(coordinator._journal.log(second._operations.spec))
    await say(third, "z")
    await second._operations.execute(late)
    with told_of_lost(3):
        await first.get_items()
    assert await texts(first) == ["1", "2", "z", "y"]


@pytest.mark.parametrize("others", [1, 200, 5_000])
async def test_a_reader_is_told_however_many_changes_came_since(
    workers: Workers, history: History, servers: lab.Lab, session_id: str, others: int
) -> None:
    if others > 200 and servers.topology != "standalone":
        pytest.skip("the same script as with 200")
    writer, reader, other = [await workers.make() for _ in range(3)]
    await say(writer, "1")
    async with history.losing():
        await say(writer, "x")
        assert await texts(reader) == ["1", "x"]
    for number in range(others):
        await say(other, str(number))
    with told_of_lost(2):
        await reader.get_items()
    with told_of_lost(2):
        await say(writer, "late")
    assert len(await texts(reader)) == others + 1


async def test_script_and_process_make_the_same_digests(workers: Workers, history: History) -> None:
    ours = await workers.make()
    await say(ours, "1", "2")
    await ours.pop_item()
    await ours.clear_session()
    await say(ours, "3")
    log = ours._operations._source()._journal.log(ours._operations.spec)
    digest = b""
    for version in range(1, 6):
        digest = chain(digest, log.entries[version].id)
        assert log.entries[version].digest == digest
    assert (await history.meta())[b"digest"] == digest == log.position.digest


async def forget_history(servers: lab.Lab, session_id: str) -> None:
    """Let what a clear left behind expire."""
    keys = session_keys("agents:ha", session_id)
    servers.client(servers.primary(keys.items)).delete(keys.items, keys.meta, keys.ops)


@pytest.mark.parametrize("form", [lambda version: version, lambda version: version.token, copy.copy])
async def test_an_answer_to_an_old_conversation_is_not_added_to_the_new_one(
    workers: Workers, servers: lab.Lab, session_id: str, form: Any
) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "old question")
    version = form((await ours.info()).version)
    await ours.clear_session()
    await forget_history(servers, session_id)
    await say(other, "new question")
    assert (await other.info()).version == 1
    with pytest.raises(ConflictError):
        await ours.add_items([message("old answer")], expected_version=version)
    assert await texts(other) == ["new question"]
    await ours.add_items([message("new answer")], expected_version=form((await ours.info()).version))
    assert await texts(other) == ["new question", "new answer"]


async def test_compaction_replaces_no_suffix_of_a_later_conversation(
    workers: Workers, servers: lab.Lab, session_id: str
) -> None:
    ours, other = await workers.make(), await workers.make()
    await say(ours, "1", "2")
    snapshot = await ours._get_compaction_snapshot(10)
    assert snapshot is not None
    await forget_history(servers, session_id)
    await say(other, "new", "newer")
    assert not await snapshot.replace_suffix(1, [message("compacted")])
    assert await texts(other) == ["new", "newer"]


@pytest.mark.parametrize("version", [True, "x", -1, 1.0, "1-xyz"])
async def test_what_is_no_version_is_refused(workers: Workers, version: Any) -> None:
    ours = await workers.make()
    with pytest.raises(ConfigurationError, match="expected_version"):
        await ours.add_items([message("1")], expected_version=version)
    assert await texts(ours) == []


async def test_many_lost_changes_of_which_nothing_is_known_are_given_up_at_once(
    workers: Workers, history: History
) -> None:
    ours, other = await workers.make(patience_seconds=0.1), await workers.make()
    await say(ours, "1")
    async with history.losing():
        for number in range(1_200):
            await say(other, str(number))
        await ours.info()
        forget_all(other)
    with pytest.raises(HistoryLostError) as caught:
        await ours.info()
    assert caught.value.versions == tuple(range(2, 1_202))
    await say(ours, "2")
    assert await texts(other) == ["1", "2"]
    assert (await ours.info()).version == 1_203
