"""Additions to a conversation as it was when it was read, and to no other."""

from __future__ import annotations

import asyncio
import pickle
from functools import reduce
from typing import Any

import pytest

from agents_redis_ha import ConflictError, counters, ha_session, lab
from agents_redis_ha._commands import chain
from tests.support.history import PATIENT, message


async def test_items_are_added_to_the_version_that_was_read(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id)
    await session.add_items([message("one")], expected_version=0)
    assert (await session.info()).version == 1
    await session.add_items([message("two"), message("three")], expected_version=1)
    assert await session.get_items() == [message("one"), message("two"), message("three")]


async def test_nothing_is_added_to_another_version(servers: lab.Lab, session_id: str) -> None:
    session, other = (ha_session(servers.config(), session_id) for _ in range(2))
    await session.add_items([message("one")])
    version = (await session.info()).version
    await other.add_items([message("two")])
    with pytest.raises(ConflictError) as caught:
        await session.add_items([message("late")], expected_version=version)
    assert (caught.value.expected, caught.value.version) == (1, 2)
    assert session_id not in str(caught.value)
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    assert await session.get_items() == [message("one"), message("two")]
    await session.add_items([message("three")], expected_version=caught.value.version)


async def test_a_version_names_its_history_by_the_digest_of_all_ids_up_to_it(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id)
    await session.add_items([message("one"), message("two")])
    await session.pop_item()
    await session.add_items([message("three")], expected_version=(await session.info()).version.token)
    await session.clear_session()
    version, keys = (await session.info()).version, session._operations.spec.keys
    header, *changes = servers.client(servers.primary(keys.items)).lrange(keys.ops, 0, -1)
    ids: list[Any] = changes[::2]
    digests = [reduce(chain, ids[:number], b"") for number in range(5)]
    lengths = [2, 1, 2, 0]
    assert header == b"0:"
    assert changes[1::2] == [b"%b%d" % pair for pair in zip(digests[1:], lengths, strict=True)]
    assert version.token == f"4-{digests[4].decode()}"


async def test_of_many_who_read_the_same_one_adds(servers: lab.Lab, session_id: str) -> None:
    async def add(number: int) -> int:
        session = ha_session(servers.config(retry=PATIENT), session_id)
        await session.add_items([message(str(number))], expected_version=0)
        return number

    outcomes = await asyncio.gather(*(add(number) for number in range(20)), return_exceptions=True)
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 19
    assert await ha_session(servers.config(), session_id).get_items() == [message(str(winner))]


async def test_an_addition_whose_reply_is_lost_is_no_conflict_with_itself(proxied: lab.Lab, session_id: str) -> None:
    session = ha_session(proxied.config(), session_id)
    await session.add_items([message("one")])
    proxy = proxied.primary(session._operations.spec.keys.items).proxy
    assert proxy is not None
    before = counters()["repeats_suppressed"]
    proxy.cut_next_reply()
    await session.add_items([message("two")], expected_version=1)
    assert counters()["repeats_suppressed"] == before + 1
    assert await session.get_items() == [message("one"), message("two")]
