"""One endpoint: a replica behind it is a mistake at first, and a failover later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import Address, HAConfig, TLSConfig
from agents_redis_ha._commands import Reply, append
from agents_redis_ha._connections import standalone
from agents_redis_ha._connections.failures import AttemptError, NoPrimaryError
from agents_redis_ha._connections.standalone import StandaloneLocator
from agents_redis_ha.errors import NotPrimaryError, TLSError, WrongTopologyError
from tests.support.fake_nodes import LOST, FakePool, command, fake_node
from tests.support.fakes import SPEC, failed, request
from tests.support.virtual_time import in_virtual_time

APPLIED = [1, 5, b""]
CHANGE = append(SPEC, [b"{}"])
READ_ONLY = redis_errors.ReadOnlyError("You can't write against a read only replica.")


class Diagnosis:
    """What a look at the handshake finds, and with what it was asked."""

    def __init__(self) -> None:
        self.found: Any = None
        self.asked: list[tuple[Any, ...]] = []

    async def __call__(self, *what: Any) -> Any:
        self.asked.append(what)
        return self.found


@pytest.fixture(autouse=True)
def diagnosis(monkeypatch: pytest.MonkeyPatch) -> Diagnosis:
    diagnosis = Diagnosis()
    monkeypatch.setattr(standalone, "permanent_cause", diagnosis)
    return diagnosis


def locator(*pools: FakePool, **fields: Any) -> StandaloneLocator:
    return StandaloneLocator(HAConfig(**{"nodes": ["h:1"], **fields}), fake_node(*pools))


async def attempt(found: StandaloneLocator, asked: Any = CHANGE) -> Reply:
    return await found.attempt(request(asked))


async def failure(found: StandaloneLocator, asked: Any = CHANGE) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await attempt(found, asked)
    return caught.value


async def test_a_command_goes_to_the_one_endpoint() -> None:
    found = locator(pool := FakePool(APPLIED))
    assert (await attempt(found)).history.node == "h:1"
    assert [commands[0][0] for commands in pool.written] == [b"EVALSHA"]
    assert found.failovers == []
    assert (await found.primaries(), await found.problems()) == (found.nodes(), [])


async def test_a_replica_at_the_first_contact_is_said_at_once() -> None:
    error = await failure(locator(FakePool(READ_ONLY)))
    assert (error.cause, error.permanent) == (READ_ONLY, NotPrimaryError)


async def test_an_endpoint_that_becomes_a_replica_is_waited_for_on_new_connections() -> None:
    found = locator(FakePool(APPLIED, READ_ONLY), second := FakePool(APPLIED))
    await attempt(found)
    assert (await failure(found)).permanent is None
    assert found.failovers == []  # there is none before a primary takes a change
    await attempt(found)
    assert len(second.written) == 1
    await attempt(found)
    assert found.failovers == ["h:1"]


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize(
    "error", [READ_ONLY, redis_errors.ResponseError("Error running script: @user_script: 7: -READONLY You can't write")]
)
async def test_a_connection_to_a_replica_is_closed_also_that_of_a_users_client(error: Exception, owned: bool) -> None:
    found = StandaloneLocator(HAConfig(nodes=["h:1"]), fake_node(pool := FakePool(APPLIED, error), owned=owned))
    await attempt(found)
    assert pool.connection.closed == 0
    await failure(found)
    assert (pool.connection.closed > 0, pool.in_use) == (True, 0)


async def test_a_read_that_is_answered_after_read_only_shows_the_failover_too() -> None:
    found = locator(FakePool(APPLIED, READ_ONLY), FakePool(b"read"))
    await attempt(found)
    await failure(found)
    await attempt(found, command())
    assert found.failovers == ["h:1"]


async def test_a_replication_id_that_a_failover_does_not_change_says_nothing() -> None:
    found = locator(FakePool(APPLIED, READ_ONLY), FakePool(APPLIED))
    assert (await attempt(found)).history.replication_id is not None
    await failure(found)
    assert (await attempt(found)).history == ("h:1", None)


async def test_each_failover_is_counted() -> None:
    found = locator(FakePool(APPLIED, READ_ONLY), FakePool(APPLIED, READ_ONLY), FakePool(APPLIED))
    for _ in range(2):
        await attempt(found)
        await failure(found)
    await attempt(found)
    assert found.failovers == ["h:1", "h:1"]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_node_of_a_cluster_is_said_at_once_whenever_it_shows(answered: bool) -> None:
    found = locator(FakePool(*([APPLIED] if answered else []), redis_errors.MovedError("7 h:2")))
    if answered:
        await attempt(found)
    assert (await failure(found)).permanent is WrongTopologyError


async def test_a_first_contact_that_failed_is_looked_into_where_it_was_dialled(diagnosis: Diagnosis) -> None:
    tls, diagnosis.found = TLSConfig(ca_file="ca"), TLSError
    found = locator(FakePool(LOST), tls=tls, address_map={"h:1": "there:7"})
    error = await failure(found)
    assert error.permanent is TLSError
    assert diagnosis.asked == [(error, Address("there", 7), tls)]


async def test_a_unix_socket_has_no_address_to_look_into(diagnosis: Diagnosis) -> None:
    await failure(locator(FakePool(LOST), nodes=(), unix_socket_path="/s"))
    assert diagnosis.asked[0][1:] == (None, None)


async def test_an_endpoint_that_answered_before_is_not_looked_into(diagnosis: Diagnosis) -> None:
    diagnosis.found = TLSError
    found = locator(FakePool(b"read", LOST))
    await attempt(found, command())
    assert (await failure(found)).permanent is None
    assert diagnosis.asked == []


@pytest.mark.parametrize(
    ("reply", "is_back"),
    [
        (b"PONG", True),
        (redis_errors.AuthenticationError("NOAUTH"), False),  # redis-py raises it as a lost connection
        (redis_errors.NoPermissionError("no PING for you"), True),
        (redis_errors.ResponseError("ERR unknown command 'PING'"), True),
        (redis_errors.ResponseError("LOADING Redis is loading the dataset in memory"), False),
        (redis_errors.MasterDownError("x"), False),
        (LOST, False),
    ],
)
async def test_an_endpoint_is_back_when_it_answers_unless_it_says_that_it_is_not_ready(
    reply: Any, is_back: bool
) -> None:
    found = locator(FakePool(reply))
    if is_back:
        await found._look()
    else:
        with pytest.raises(AttemptError):
            await found._look()


@in_virtual_time
async def test_what_waits_is_woken_when_the_endpoint_answers_again() -> None:
    found = locator(down := FakePool())
    down.may_connect.clear()
    since, monitor = asyncio.get_running_loop().time(), found.monitor
    waiter = asyncio.ensure_future(monitor.wait_for_topology_change(60, monitor.topology_epoch))
    found.suspect(failed(NoPrimaryError("x")))
    await asyncio.sleep(5)
    assert not waiter.done()
    down.may_connect.set()
    await waiter
    assert asyncio.get_running_loop().time() - since < 7
    await found.aclose()


async def test_closing_closes_the_endpoints_connections() -> None:
    found = locator(pool := FakePool(APPLIED))
    await attempt(found)
    await found.aclose()
    assert pool.in_use_too == [True]
    assert (await failure(found)).sent is False


def test_an_endpoint_is_named_by_its_address_or_its_path() -> None:
    assert [node.name for node in StandaloneLocator(HAConfig(nodes=["h:1"])).nodes()] == ["h:1"]
    by_path = StandaloneLocator(HAConfig(nodes=(), unix_socket_path="/run/redis.sock"))
    assert [node.name for node in by_path.nodes()] == ["/run/redis.sock"]


@in_virtual_time
async def test_a_server_that_may_be_far_is_looked_at_for_longer_each_time() -> None:
    loop = asyncio.get_running_loop()
    found = locator(*(FakePool(loop.create_future()) for _ in range(4)))
    took = []
    for _ in range(4):
        began = loop.time()
        with pytest.raises(asyncio.TimeoutError):
            await found._look()
        found._node.start_afresh()
        took.append(round(loop.time() - began, 3))
    assert took == [0.5, 1.0, 2.0, 4.0]
