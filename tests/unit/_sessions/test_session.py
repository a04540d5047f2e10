"""The SDK's protocol over commands: what each call sends, and what it makes of the replies. The server is scripted."""

from __future__ import annotations

from typing import Any

import pytest
from agents.memory import SessionSettings
from redis import exceptions as redis_errors

from agents_redis_ha import (
    ClosedError,
    ConfigurationError,
    ConflictError,
    HAConfig,
    InvalidItemError,
    Outcome,
    OutcomeLostError,
    PermissionDeniedError,
    RedisHASession,
    RetryConfig,
    UnconfirmedError,
)
from agents_redis_ha._commands import Confirmation, Status
from agents_redis_ha._connections import ShortfallError
from agents_redis_ha._telemetry import counters
from tests.support.fakes import FakeServer, a_digest, a_position, applied, described, elements, failed, reply
from tests.support.sessions import config, session
from tests.support.virtual_time import in_virtual_time

APPLIED, REPEAT, CONFLICT, UNSURE = Status.APPLIED, Status.REPEAT, Status.CONFLICT, Status.UNSURE
UNCHANGED = Status.UNCHANGED
NO_PERMISSION = failed(redis_errors.NoPermissionError("no"), sent=True)


def stored(*numbers: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in numbers]


def items(*numbers: int) -> list[Any]:
    return [{"n": number} for number in numbers]


async def test_the_items_are_those_of_one_read() -> None:
    server = FakeServer(read=[elements(*stored(1, 2, 3))])
    assert await session(server).get_items() == items(1, 2, 3)
    (read,) = server.sent("read")
    assert read.arguments[1] == 0  # all
    assert (await session(FakeServer(read=[elements(version=0)])).get_items()) == []


@pytest.mark.parametrize(("limit", "setting", "asked"), [(2, None, 2), (2, 7, 2), (None, 2, 2), (None, None, 0)])
async def test_a_limit_is_the_calls_or_that_of_the_settings(limit: int | None, setting: int | None, asked: int) -> None:
    server = FakeServer(read=[elements(*stored(2, 3), length=3)])
    found = session(server)
    found.session_settings = SessionSettings(limit=setting)
    assert await found.get_items(limit) == items(2, 3)
    assert [read.arguments[1] for read in server.sent("read")] == [asked]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_of_none_reads_nothing(limit: int) -> None:
    server = FakeServer()
    assert await session(server).get_items(limit) == []
    found = session(server)
    found.session_settings = SessionSettings(limit=limit)
    assert await found.get_items() == []
    assert server.asked == []


async def test_a_session_without_settings_reads_all() -> None:
    found = session(FakeServer(read=[elements(*stored(1))]))
    found.session_settings = None
    assert await found.get_items() == items(1)


async def test_corrupt_elements_are_skipped_and_counted() -> None:
    before = counters()["corrupt_items"]
    server = FakeServer(read=[elements(b"{}", b"half", b"[]", b'{"n":1}')])
    assert await session(server).get_items() == [{}, {"n": 1}]
    assert counters()["corrupt_items"] == before + 2


async def test_corrupt_elements_do_not_count_against_a_limit() -> None:
    before = counters()["corrupt_items"]
    reads = [
        elements(b"half", *stored(5), length=6),
        elements(*stored(2, 3), b"half", *stored(5), length=6),
    ]
    server = FakeServer(read=reads)
    assert await session(server).get_items(2) == items(3, 5)
    assert [read.arguments[1] for read in server.sent("read")] == [2, 4]
    assert counters()["corrupt_items"] == before + 1  # as of the last read


async def test_looking_back_for_items_ends_with_the_history() -> None:
    server = FakeServer(read=[elements(b"half", *stored(1), length=2)])
    assert await session(server).get_items(2) == items(1)
    assert len(server.requests) == 1


async def test_items_are_added_by_one_command() -> None:
    server = FakeServer(append=[applied(1)])
    await session(server, ttl=5, durability="replicas=1").add_items(items(1, 2))
    (append,) = server.sent("append")
    assert append.arguments == ("", b"", *stored(1, 2))
    assert (append.spec.ttl_ms, append.batch_size) == (5000, 2)
    assert append.confirmation == Confirmation(1, False, 1000)


async def test_no_items_are_no_command() -> None:
    server = FakeServer()
    await session(server).add_items([])
    assert server.asked == []


async def test_an_item_that_is_no_json_is_refused_before_anything_is_sent() -> None:
    server = FakeServer()
    with pytest.raises(InvalidItemError) as caught:
        await session(server).add_items([*items(1), {"n": {1, 2}}])
    assert (caught.value.index, server.asked) == (1, [])


async def test_items_for_an_expected_version_are_refused_where_it_is_another() -> None:
    server = FakeServer(append=[[CONFLICT, 4], applied(5)])
    found = session(server)
    with pytest.raises(ConflictError) as caught:
        await found.add_items(items(1), expected_version=3)
    assert (caught.value.expected, caught.value.version) == (3, 4)
    await found.add_items(items(1), expected_version=4)
    assert [append.arguments[:2] for append in server.sent("append")] == [(3, b""), (4, b"")]


async def test_an_expected_version_tells_its_history_too_also_as_a_token() -> None:
    server = FakeServer(info=[described(3, 7)], append=[[CONFLICT, 7], applied(8)])
    found = session(server)
    version = (await found.info()).version
    with pytest.raises(ConflictError) as caught:  # begun anew, it has another history of as many changes
        await found.add_items(items(1), expected_version=version)
    assert (caught.value.expected, caught.value.version) == (7, 7)
    await found.add_items(items(1), expected_version=version.token)
    assert [append.arguments[:2] for append in server.sent("append")] == [a_position(7)] * 2


@pytest.mark.parametrize("given", [[], [{"n": 1}]])
async def test_what_is_no_version_is_refused_before_anything_is_sent(given: Any) -> None:
    server = FakeServer()
    with pytest.raises(ConfigurationError):
        await session(server).add_items(given, expected_version=True)
    assert server.asked == []


async def test_a_change_that_was_there_already_is_counted_as_a_repeat() -> None:
    before = counters()["repeats_suppressed"]
    server = FakeServer(append=[failed(redis_errors.ConnectionError("reset"), sent=True), [REPEAT, 1, a_digest(1)]])
    await session(server).add_items(items(1))
    first, second = server.sent("append")
    assert first is second
    assert counters()["repeats_suppressed"] == before + 1


async def test_the_newest_item_is_popped() -> None:
    server = FakeServer(pop=[applied(2, b'{"n":3}'), applied(3, b'{"n":2}'), [UNCHANGED, 3]])
    found = session(server)
    assert [await found.pop_item() for _ in range(3)] == [{"n": 3}, {"n": 2}, None]
    # Each says which pop's result has arrived, so that the server need not keep it any longer.
    arrived = [("", b""), a_position(2), a_position(3)]
    assert [pop.arguments for pop in server.sent("pop")] == [("", 0, b"", 0, *position) for position in arrived]


async def test_a_pop_whose_result_did_not_arrive_is_not_acknowledged() -> None:
    server = FakeServer(pop=[applied(2, b'{"n":3}'), NO_PERMISSION, applied(5, b'{"n":1}'), [UNCHANGED, 5]])
    found = session(server)
    await found.pop_item()
    with pytest.raises(PermissionDeniedError):
        await found.pop_item()
    assert [await found.pop_item() for _ in range(2)] == [{"n": 1}, None]
    assert [pop.arguments[-2] for pop in server.sent("pop")] == ["", 2, 2, 5]


async def test_where_the_newest_element_may_be_no_item_the_newest_item_is_found_and_popped_by_its_place() -> None:
    before = counters()["corrupt_items"]
    server = FakeServer(pop=[[UNSURE, 2], applied(3, b'{"n":2}')], read=[elements(*stored(1, 2), b"half", version=2)])
    assert await session(server).pop_item() == {"n": 2}
    assert server.asked == ["pop", "read", "pop"]
    assert server.sent("pop")[1].arguments == (-2, *a_position(2), 3, "", b"")  # of the session as it was read
    assert counters()["corrupt_items"] == before + 1


async def test_a_large_item_that_the_server_does_not_judge_is_read_alone_and_popped_at_its_place() -> None:
    large = b'{"n":"%s"}' % (b"x" * 70_000)
    reads = [elements(large, length=9, version=5)]
    server = FakeServer(pop=[applied(4, b'{"n":9}'), [UNSURE, 5], applied(6), applied(7, b'{"n":7}')], read=reads)
    found = session(server)
    assert [await found.pop_item() for _ in range(3)] == [{"n": 9}, {"n": "x" * 70_000}, {"n": 7}]
    assert [read.arguments[1] for read in server.sent("read")] == [1]
    places = [pop.arguments for pop in server.sent("pop")]
    assert places[2] == (-1, *a_position(5), 9, *a_position(4))  # it has no result of its own to acknowledge
    assert places[3] == ("", 0, b"", 0, *a_position(4))


async def test_an_item_that_another_worker_popped_meanwhile_is_looked_for_anew() -> None:
    server = FakeServer(
        pop=[[UNSURE, 2], [CONFLICT, 3], applied(4, b'{"n":1}')],
        read=[elements(*stored(1, 2), b"half", version=2)],
    )
    assert await session(server).pop_item() == {"n": 1}
    assert [pop.arguments[0] for pop in server.sent("pop")] == ["", -2, ""]


async def test_the_newest_item_is_looked_for_further_and_further_back() -> None:
    reads = [elements(*[b"half"] * count, length=40) for count in (1, 4, 16)]
    reads.append(elements(*[b"half"] * 8, *stored(7), *[b"half"] * 31, length=40))
    server = FakeServer(pop=[[UNSURE, 1], applied(2, b'{"n":7}')], read=reads)
    assert await session(server).pop_item() == {"n": 7}
    assert [read.arguments[1] for read in server.sent("read")] == [1, 4, 16, 64]
    assert server.sent("pop")[1].arguments == (-32, *a_position(1), 40, "", b"")


@pytest.mark.parametrize("left", [(b"half", b"half"), ()])
async def test_where_no_element_is_an_item_none_is_popped(left: tuple[bytes, ...]) -> None:
    before = counters()["corrupt_items"]
    server = FakeServer(pop=[[UNSURE, 1]], read=[elements(*left)])
    assert await session(server).pop_item() is None
    assert server.asked == ["pop", "read"]
    assert counters()["corrupt_items"] == before + len(left)


async def test_a_popped_element_that_only_the_script_took_for_an_item_is_passed_over() -> None:
    before = counters()["corrupt_items"]
    server = FakeServer(pop=[applied(2, b'{"n":0x10}'), applied(3, b'{"n":1}')])
    assert await session(server).pop_item() == {"n": 1}
    assert counters()["corrupt_items"] == before + 1


@pytest.mark.parametrize(("removed", "were_there"), [(b"3", True), (b"0", False)])
async def test_clearing_tells_whether_there_were_items(removed: bytes, were_there: bool) -> None:
    assert await session(FakeServer(clear=[applied(2, removed)])).clear() is were_there


@pytest.mark.parametrize("call", [lambda found: found.clear(), lambda found: found.pop_item()])
async def test_what_a_change_returned_is_never_made_up_where_the_server_has_lost_it(call: Any) -> None:
    lost = [failed(redis_errors.ConnectionError("reset"), sent=True), [REPEAT, 2, a_digest(2)]]
    with pytest.raises(OutcomeLostError) as caught:
        await call(session(FakeServer(clear=[*lost], pop=[*lost])))
    assert caught.value.outcome is Outcome.APPLIED


async def test_the_protocols_clear_is_the_same_command() -> None:
    server = FakeServer(clear=[applied(2, b"3")])
    assert await session(server).clear_session() is None  # type: ignore[func-returns-value]  # the protocol's
    assert server.asked == ["clear"]


async def test_info_is_what_the_server_tells_of_this_session() -> None:
    found = await session(FakeServer(info=[described(3, 7)])).info()
    assert (found.session_id, found.item_count, found.version, found.exists) == ("u", 3, 7, True)


async def test_a_ping_tells_whether_the_node_answers_as_a_primary() -> None:
    found = session(FakeServer(info=[described(), NO_PERMISSION]))
    assert [await found.ping(), await found.ping()] == [True, False]


async def test_an_error_names_the_operation_and_what_became_of_the_data() -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        await session(FakeServer(append=[NO_PERMISSION])).add_items(items(1))
    assert (caught.value.operation, caught.value.outcome) == ("append", Outcome.NOT_APPLIED)


CALLS: list[Any] = [
    lambda found: found.get_items(),
    lambda found: found.get_items(0),
    lambda found: found.add_items(items(1)),
    lambda found: found.add_items([]),
    lambda found: found.pop_item(),
    lambda found: found.clear_session(),
    lambda found: found.clear(),
    lambda found: found.info(),
    lambda found: found.ping(),
    lambda found: found._atomic_replace_items([]),
    lambda found: found._get_compaction_snapshot(5),
]


@pytest.mark.parametrize("call", CALLS)
async def test_after_closing_every_call_says_so_and_sends_nothing(call: Any) -> None:
    server = FakeServer()
    async with session(server) as found:
        pass
    with pytest.raises(ClosedError):
        await call(found)
    await found.close()  # again: it changes nothing
    assert (server.asked, server.closed) == ([], 0)  # the connections are not the session's


def test_a_session_without_an_id_gets_one_and_the_sdks_settings_of_its_own() -> None:
    first, second = (RedisHASession(config(), None, lambda: None) for _ in range(2))  # type: ignore[arg-type,return-value]
    assert (len(first.session_id), first.session_id != second.session_id) == (32, True)
    assert first.session_settings == SessionSettings()
    assert first.session_settings is not second.session_settings


def test_a_session_shows_neither_its_id_nor_its_servers() -> None:
    assert repr(session(FakeServer(), password="s3cr3t")) == "<RedisHASession>"


SHORTFALL = failed(ShortfallError("on 0 of 1 replicas", 0.05), sent=True, reply=reply(applied(1)))


@in_virtual_time
async def test_a_change_on_too_few_replicas_is_an_error_or_good_enough_as_the_configuration_says() -> None:
    fields: dict[str, Any] = {"retry": RetryConfig(deadline_seconds=2)}
    strict = session(FakeServer(append=[SHORTFALL]), durability={"replicas": 1}, **fields)
    with pytest.raises(UnconfirmedError) as caught:
        await strict.add_items(items(1))
    assert caught.value.outcome is Outcome.APPLIED
    server = FakeServer(append=[SHORTFALL], info=[described(1, 1)])
    lenient = session(server, durability={"replicas": 1, "on_shortfall": "degrade"}, **fields)
    before = counters()["unconfirmed"]
    await lenient.add_items(items(1))
    assert counters()["unconfirmed"] == before + 1
    await lenient.info()
    assert server.positions[-1].version == 1  # it is known like any other change


class Subclass(RedisHASession):
    """What overrides the protocol's methods must not be bypassed."""


async def test_the_sdks_compaction_replaces_the_history_in_one_step_unless_the_session_is_a_subclass() -> None:
    server = FakeServer(replace=[applied(2)], read=[elements(*stored(1))])
    assert await session(server)._atomic_replace_items(items(7)) is True
    (replaced,) = server.sent("replace")
    assert replaced.arguments == ("", b"", 0, 0, *stored(7))
    inherited = session(server, Subclass)
    assert await inherited._atomic_replace_items(items(7)) is False
    assert await inherited._get_compaction_snapshot(5) is None
    assert server.asked == ["replace"]


@pytest.mark.parametrize(("status", "done"), [(APPLIED, True), (REPEAT, True), (CONFLICT, False)])
async def test_the_compactions_snapshot_is_replaced_at_its_version(status: Status, done: bool) -> None:
    answer = [status, 8, a_digest(8)] if done else [status, 8]
    server = FakeServer(read=[elements(*stored(1, 2, 3), version=7)], replace=[answer])
    found = await session(server)._get_compaction_snapshot(5)
    assert found is not None
    assert (found.items, found.complete) == (items(1, 2, 3), True)
    assert await found.replace_suffix(1, items(9)) is done
    (replaced,) = server.sent("replace")
    assert replaced.arguments == (*a_position(7), 0, 1, *stored(9))


async def test_a_history_with_a_corrupt_element_is_not_compacted() -> None:
    assert await session(FakeServer(read=[elements(*stored(1), b"half")]))._get_compaction_snapshot(5) is None


def test_an_id_that_cannot_be_used_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="session_id"):
        RedisHASession(HAConfig(nodes=["h"]), 5, lambda: None)  # type: ignore[arg-type,return-value]
