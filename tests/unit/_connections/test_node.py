"""One server: what is written to it, when a change counts as confirmed, and what becomes of its connections."""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import PoolConfig
from agents_redis_ha._commands import NO_POSITION, REPLICATION_INFO, Command, Confirmation, LogPosition, Status
from agents_redis_ha._connections.failures import AttemptError, ShortfallError, classify
from agents_redis_ha._connections.node import Node
from agents_redis_ha._connections.request import Request
from agents_redis_ha._telemetry import PoolUse
from agents_redis_ha.errors import ServerRefusedError
from tests.support.fake_nodes import CANNOT_CLOSE, LOST, SCRIPT, FakePool, Written, as_written, command, fake_node
from tests.support.fakes import SPEC, request
from tests.support.virtual_time import in_virtual_time

ASKING = (b"ASKING",)
TWO_REPLICAS = Confirmation(2, False, 500)
WAIT = as_written("WAIT", 2, 500)
POSITION = LogPosition(4, b"digest")
NONE_BEFORE = (4, b"")  # since the position, none may have been applied
UNKNOWN_SCRIPT = redis_errors.NoScriptError("No matching script.")
# What a primary tells those who wait there when it becomes a replica (Redis 6.2 to 8, Valkey).
UNBLOCKED = redis_errors.ResponseError(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
)


def script(key_count: int = 3, *, with_source: bool = False) -> Written:
    keys = (SPEC.keys.items, SPEC.keys.meta, SPEC.keys.ops)[:key_count]
    verb = ("EVAL", SCRIPT.source) if with_source else ("EVALSHA", SCRIPT.sha)
    return as_written(*verb, key_count, *keys, "head", *POSITION, *NONE_BEFORE, b"item")


async def failure(used: Node, asked: Command[Any] | None = None, **how: bool) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await (used.call(("A",)) if asked is None else used.execute(request(asked, POSITION), **how))
    return caught.value


async def test_a_command_is_its_script_with_keys_head_log_position_and_arguments() -> None:
    pool, left = FakePool("value"), list[str]()
    asked = Request(command(), POSITION, left.append)
    reply = await fake_node(pool).execute(asked)
    assert pool.written == [[script()]]
    assert (reply.value, reply.trailing, reply.position) == ("value", [], POSITION)
    assert reply.history == ("h:1", "1f" * 20)
    assert (asked.sent, left) == (True, ["h:1"])


async def test_the_log_position_is_read_anew_for_each_attempt_and_told_with_the_reply() -> None:
    pool, log = FakePool(), SimpleNamespace(position=LogPosition(1, b"a"))
    used = fake_node(pool)
    first = await used.execute(Request(command(), log, lambda node: None))
    log.position = LogPosition(2, b"b")
    second = await used.execute(Request(command(), log, lambda node: None))
    assert [commands[0][7:9] for commands in pool.written] == [(b"1", b"a"), (b"2", b"b")]
    assert (first.position, second.position) == ((1, b"a"), (2, b"b"))


async def test_a_request_is_marked_as_sent_before_it_leaves_and_announced_behind_it() -> None:
    seen: list[bool] = []

    class Pool(FakePool):
        def replies_to(self, commands: list[Written]) -> list[Any]:
            seen.append(asked.sent)
            assert left == []
            return super().replies_to(commands)

    left: list[str] = []
    asked = Request(command(), NO_POSITION, left.append)
    await fake_node(Pool()).execute(asked)
    assert (seen, left) == ([True], ["h:1"])


@pytest.mark.parametrize("confirmation", [None, TWO_REPLICAS])
async def test_a_node_that_does_not_know_the_script_is_sent_its_source(confirmation: Confirmation | None) -> None:
    waits = [2] if confirmation else []
    pool = FakePool(UNKNOWN_SCRIPT, *waits, [Status.APPLIED, 5], *waits)
    reply = await fake_node(pool).execute(request(command(confirmation=confirmation), POSITION))
    assert reply.value == [Status.APPLIED, 5]
    behind = [WAIT] if confirmation else []
    assert pool.written == [[script(), *behind], [script(with_source=True), *behind]]


async def test_a_node_that_does_not_know_the_script_that_it_was_just_sent_is_not_asked_for_ever() -> None:
    pool = FakePool(UNKNOWN_SCRIPT, UNKNOWN_SCRIPT)
    assert (await failure(fake_node(pool), command())).cause is UNKNOWN_SCRIPT
    assert len(pool.written) == 2


async def test_asking_stands_before_each_command_and_its_answers_are_left_out() -> None:
    pool = FakePool(b"OK", [Status.APPLIED, 5], b"OK", "trails", b"OK", 2)
    asked = command(trailing=(("LLEN", "x"),), confirmation=TWO_REPLICAS)
    reply = await fake_node(pool).execute(request(asked, POSITION), asking=True)
    assert (reply.value, reply.trailing) == ([Status.APPLIED, 5], ["trails"])
    assert pool.written == [[ASKING, script(), ASKING, as_written("LLEN", "x"), ASKING, WAIT]]


async def test_a_script_that_a_node_does_not_know_is_asked_for_again_with_asking() -> None:
    pool = FakePool(b"OK", UNKNOWN_SCRIPT, b"OK", "value")
    assert (await fake_node(pool).execute(request(command(), POSITION), asking=True)).value == "value"
    assert pool.written == [[ASKING, script()], [ASKING, script(with_source=True)]]


async def test_only_the_first_key_is_declared_where_that_is_asked_for() -> None:
    pool = FakePool()
    await fake_node(pool).execute(request(command(key_count_on_tryagain=2), POSITION), only_first_key=True)
    assert pool.written == [[script(1)]]


@pytest.mark.parametrize("error", [redis_errors.TryAgainError("Multiple keys"), redis_errors.AskError("1 h:2")])
async def test_a_missing_key_that_holds_a_command_up_is_not_declared_where_it_is_not_needed(error: Exception) -> None:
    pool = FakePool(error, "value")
    assert (await fake_node(pool).execute(request(command(key_count_on_tryagain=2), POSITION))).value == "value"
    assert pool.written == [[script(3)], [script(2)]]


@pytest.mark.parametrize(
    ("error", "only_first_key", "fewer"),
    [
        (redis_errors.TryAgainError("x"), False, None),
        (redis_errors.AskError("1 h:2"), False, None),
        (redis_errors.TryAgainError("x"), False, 3),
        (redis_errors.TryAgainError("x"), True, 2),
        (redis_errors.BusyLoadingError("x"), False, 2),
    ],
)
async def test_no_other_failure_and_no_other_command_is_sent_with_fewer_keys(
    error: Exception, only_first_key: bool, fewer: int | None
) -> None:
    used, asked = fake_node(pool := FakePool(error)), command(key_count_on_tryagain=fewer)
    assert (await failure(used, asked, only_first_key=only_first_key)).cause is error
    assert len(pool.written) == 1


@pytest.mark.parametrize("status", [Status.APPLIED, Status.REPEAT])
async def test_a_change_is_confirmed_when_enough_replicas_have_it(status: Status) -> None:
    pool = FakePool([status, 5, b""], 2)
    reply = await fake_node(pool).execute(request(command(confirmation=TWO_REPLICAS), POSITION))
    assert (reply.value, reply.trailing) == ([status, 5, b""], [])
    assert pool.written == [[script(), WAIT]]


@pytest.mark.parametrize("status", [Status.APPLIED, Status.REPEAT])
async def test_a_change_on_too_few_replicas_is_a_shortfall_that_keeps_the_reply(status: Status) -> None:
    error = await failure(fake_node(FakePool([status, 5, b""], 1)), command(confirmation=TWO_REPLICAS))
    assert isinstance(error.cause, ShortfallError)
    assert error.reply is not None
    assert (error.reply.value, error.cause.wait_seconds) == ([status, 5, b""], 0.5)
    assert error.reply.history == ("h:1", "1f" * 20)  # the reply may have to do
    assert (error.node, error.sent) == ("h:1", True)
    assert classify(error.cause, sent=True).retry


@pytest.mark.parametrize("status", [Status.CONFLICT, Status.UNSURE, Status.LOG_MISMATCH])
@pytest.mark.parametrize("answer", [0, redis_errors.ResponseError("unknown command 'WAITAOF'")])
async def test_where_nothing_was_changed_nothing_has_to_be_confirmed(status: Status, answer: Any) -> None:
    reply = await fake_node(FakePool([status, 5], answer)).execute(request(command(confirmation=TWO_REPLICAS)))
    assert reply.value == [status, 5]


async def test_a_server_that_cannot_confirm_has_the_change() -> None:
    refusal = redis_errors.ResponseError("unknown command 'WAITAOF', with args beginning with: '1'")
    asked = command(confirmation=Confirmation(1, True, 500))
    error = await failure(fake_node(FakePool([Status.APPLIED, 5], refusal)), asked)
    assert (error.cause, error.sent) == (refusal, True)
    assert error.reply is not None
    assert error.reply.value == [Status.APPLIED, 5]
    found = classify(error.cause, sent=True)
    assert (found.retry, found.error) == (False, ServerRefusedError)


async def test_a_primary_that_is_replaced_while_replicas_are_waited_for_may_have_lost_the_change() -> None:
    error = await failure(fake_node(FakePool([Status.APPLIED, 5], UNBLOCKED)), command(confirmation=TWO_REPLICAS))
    assert (error.cause, error.sent, error.reply) == (UNBLOCKED, True, None)
    found = classify(error.cause, sent=True)
    assert (found.retry, found.may_have_applied, found.refresh_topology) == (True, True, True)


async def test_a_refused_change_is_not_confirmed() -> None:
    refusal = redis_errors.ReadOnlyError("no")
    error = await failure(fake_node(FakePool(refusal, 2)), command(confirmation=TWO_REPLICAS))
    assert (error.cause, error.reply) == (refusal, None)


async def test_an_error_among_the_trailing_replies_is_raised_unless_it_is_allowed() -> None:
    refusal = redis_errors.NoPermissionError("no LLEN for you")
    strict, allowing = (command(trailing=(("LLEN", "x"),), allow_trailing_errors=it) for it in (False, True))
    assert (await failure(fake_node(FakePool("value", refusal)), strict)).cause is refusal
    reply = await fake_node(FakePool("value", refusal)).execute(request(allowing))
    assert (reply.value, reply.trailing) == ("value", [refusal])
    first = redis_errors.ResponseError("BUSY Redis is busy")
    assert (await failure(fake_node(FakePool(first, 7)), allowing)).cause is first


@pytest.mark.parametrize("confirmation", [None, TWO_REPLICAS])
async def test_the_reply_of_a_node_that_was_replaced_meanwhile_does_not_count(confirmation: Any) -> None:
    class Pool(FakePool):
        def replies_to(self, commands: list[Written]) -> list[Any]:
            used.retired = True
            return super().replies_to(commands)

    used = fake_node(Pool([Status.APPLIED, 5], 2))
    error = await failure(used, command(confirmation=confirmation))
    assert (error.node, error.sent, error.reply) == ("h:1", True, None)
    assert classify(error.cause, sent=True).retry


async def test_a_trailing_info_teaches_the_replication_id_that_the_reply_is_from() -> None:
    pool = FakePool(b"OK", 7, b"role:master\r\nmaster_replid:2e\r\n", redis_errors.NoPermissionError("no"))
    used = fake_node(pool)
    await used.call(("PING",))
    assert used.replication_id == "1f" * 20
    asked = command(trailing=(REPLICATION_INFO,), allow_trailing_errors=True)
    reply = await used.execute(request(asked))
    assert (reply.history, used.replication_id) == (("h:1", "2e"), "2e")
    pool.replies[:] = [7, redis_errors.NoPermissionError("no INFO for you")]
    assert (await used.execute(request(asked))).history == ("h:1", None)


async def test_replies_come_in_order_and_the_connection_goes_back() -> None:
    error = redis_errors.AskError("7 h:1")
    pool = FakePool(1, error, 3)
    assert await fake_node(pool).call(("A",), ("B", 1), ("C",)) == [1, error, 3]
    assert pool.written == [[(b"A",), (b"B", b"1"), (b"C",)]]
    assert (pool.in_use, pool.connection.closed) == (0, 0)


@pytest.mark.parametrize(("error", "closed"), [(redis_errors.ResponseError("no"), False), (LOST, True)])
async def test_an_error_reply_keeps_the_connection_and_a_lost_one_closes_it(error: Exception, closed: bool) -> None:
    pool = FakePool(error)
    found = await failure(fake_node(pool))
    assert (found.cause, found.sent, found.node) == (error, True, "h:1")
    assert (pool.in_use, pool.connection.closed > 0) == (0, closed)


async def test_an_unread_reply_never_stays_on_a_connection() -> None:
    pool = FakePool(1, redis_errors.BusyLoadingError("loading"), 3)
    with pytest.raises(AttemptError):
        await fake_node(pool).call(("A",), ("B",), ("C",))
    assert pool.connection.closed


async def test_a_request_without_a_connection_was_not_sent() -> None:
    class Exhausted(FakePool):
        async def get_connection(self) -> Any:
            raise redis_errors.ConnectionError("No connection available.")

    asked = Request(command(), NO_POSITION, (left := list[str]()).append)
    with pytest.raises(AttemptError) as caught:
        await fake_node(Exhausted()).execute(asked)
    assert (caught.value.sent, asked.sent, left) == (False, False, [])


async def test_a_cancelled_request_closes_its_connection_and_gives_it_back() -> None:
    pool = FakePool(asyncio.get_running_loop().create_future())
    used = fake_node(pool)
    task = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    assert used.use == PoolUse("h:1", 1, 0, 32, 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (pool.in_use, pool.connection.closed) == (0, 1)


@in_virtual_time
async def test_a_request_that_finds_no_free_connection_in_time_was_not_sent() -> None:
    pool = FakePool()
    pool.may_connect.clear()
    used = fake_node(pool, pool=PoolConfig(max_connections=1, wait_timeout_seconds=0.7))
    first = asyncio.ensure_future(used.call(("A",)))
    second = asyncio.ensure_future(used.call(("B",)))
    await asyncio.sleep(0.5)
    assert (used.use.most, used.use.waiting) == (1, 1)
    with pytest.raises(AttemptError, match=r"within 0\.7 s") as caught:
        await second
    assert (caught.value.sent, classify(caught.value.cause, sent=False).reason) == (False, "pool_exhausted")
    pool.may_connect.set()
    await first
    assert await used.call(("C",)) == [b"OK"]
    assert used.use.waiting == 0


async def test_a_connection_is_asked_once_who_is_there_and_again_when_it_was_made_anew() -> None:
    used = fake_node(pool := FakePool())
    assert used.replication_id is None
    for _ in range(3):
        assert await used.call(("A",)) == [b"OK"]
    assert (pool.introductions, used.replication_id) == (1, "1f" * 20)
    pool.identity = b"master_replid:2e\r\n"
    await pool.connection.connect()
    await used.call(("A",))
    assert (pool.introductions, used.replication_id) == (2, "2e")


@pytest.mark.parametrize("identity", [b"role:master\r\n", redis_errors.NoPermissionError("no INFO for you")])
async def test_a_server_that_does_not_say_who_it_is_serves_all_the_same(identity: Any) -> None:
    used = fake_node(pool := FakePool())
    pool.identity = identity
    assert await used.call(("A",)) == [b"OK"]
    assert used.replication_id is None


async def test_an_error_reply_to_the_first_request_of_a_connection_is_raised_like_any_other() -> None:
    await failure(fake_node(pool := FakePool(redis_errors.ResponseError("no"))))
    assert (pool.introductions, pool.in_use, pool.connection.closed) == (1, 0, 0)


async def test_after_a_failure_the_next_request_uses_a_new_pool() -> None:
    first, second = FakePool(LOST), FakePool()
    used = fake_node(first, second)
    await failure(used)
    await used.call(("B",))
    await asyncio.sleep(0)  # the old pool is closed in the background
    assert (first.in_use_too, second.written, second.introductions) == ([False], [[(b"B",)]], 1)


async def test_a_connection_of_a_pool_that_was_replaced_is_closed_when_its_reply_is_there() -> None:
    first, reply = FakePool(), asyncio.get_running_loop().create_future()
    first.replies = [reply]
    used = fake_node(first)
    task = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    assert used.start_afresh()
    reply.set_result(7)
    assert await task == [7]
    assert (first.connection.closed, first.in_use) == (1, 0)


async def test_a_pool_is_replaced_once_however_many_of_its_connections_fail() -> None:
    used = fake_node(old := FakePool(), new := FakePool())
    assert used.start_afresh(old)  # type: ignore[arg-type]
    assert not used.start_afresh(old)  # type: ignore[arg-type]
    assert used.client.connection_pool is new


async def test_a_certificate_that_was_rotated_is_read_by_a_new_pool_at_once() -> None:
    class Outdated(FakePool):
        async def get_connection(self) -> Any:
            raise ssl.SSLCertVerificationError("certificate has expired")

    assert await fake_node(Outdated(), FakePool()).call(("A",)) == [b"OK"]
    assert not (await failure(fake_node(Outdated(), Outdated()))).sent


async def test_a_users_own_client_is_never_replaced_or_closed() -> None:
    pool = FakePool(LOST)
    used = fake_node(pool, owned=False)
    await failure(used)
    await used.call(("B",))
    await used.aclose()
    assert pool.disconnected == 0


async def test_nothing_is_sent_to_a_retired_node() -> None:
    used = fake_node(pool := FakePool())
    used.retire()
    error = await failure(used)
    assert (error.sent, pool.written, used.start_afresh()) == (False, [], False)


async def test_nothing_is_sent_to_a_node_that_was_retired_while_it_was_connected_to() -> None:
    used = fake_node(pool := FakePool())
    pool.may_connect.clear()
    task = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    used.retire()
    pool.may_connect.set()
    await asyncio.wait([task])
    assert (pool.written, pool.in_use, pool.connection.closed) == ([], 0, 1)
    assert isinstance(task.exception(), AttemptError)


async def test_however_a_cut_connection_fails_under_its_reader_it_is_a_lost_connection() -> None:
    reply = asyncio.get_running_loop().create_future()
    used = fake_node(pool := FakePool(reply))
    task = asyncio.ensure_future(used.call(("A",)))
    await asyncio.sleep(0)
    used.retire()
    reply.set_exception(AttributeError("'NoneType' object has no attribute 'read'"))
    with pytest.raises(AttemptError, match="another node took over") as caught:
        await task
    assert isinstance(caught.value.cause, redis_errors.ConnectionError)
    assert pool.in_use_too == [True]


async def test_a_close_that_fails_does_not_take_the_place_of_the_attempts_error() -> None:
    with pytest.raises(AttemptError, match="lost"):
        await fake_node(FakePool(LOST, cannot_close=CANNOT_CLOSE)).call(("A",))


async def test_a_node_can_be_retired_although_its_connections_cannot_be_closed() -> None:
    used = fake_node(pool := FakePool(cannot_close=CANNOT_CLOSE))
    used.retire()
    await used.aclose()
    assert pool.disconnected
