"""What cannot work says so at once, in a typed error that holds no secret."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from agents_redis_ha import (
    AgentsRedisError,
    AuthenticationFailedError,
    ConfigurationError,
    DeadlineExceededError,
    HAConfig,
    NotPrimaryError,
    OperationError,
    Outcome,
    PermissionDeniedError,
    PoolConfig,
    PrimaryNotFoundError,
    RedisHASession,
    RetryConfig,
    SentinelConfig,
    SessionStore,
    TLSConfig,
    TLSError,
    WrongKeyTypeError,
    WrongTopologyError,
    ha_session,
    lab,
    session_keys,
)
from tests.support.fake_nodes import listening
from tests.support.recording import Telemetry

SECRET = "s3cr3t-passw0rd"
ITEM: Any = {"role": "user", "content": "s3cr3t-item"}
PRIVATE_ID = "s3cr3t-session-id"


BEFORE_THE_DEADLINE_SECONDS = 15.0  # the default
NEVER = PoolConfig(connect_timeout_seconds=60, response_timeout_seconds=60, wait_timeout_seconds=60)


async def failure(config: HAConfig | str, kind: type[OperationError]) -> OperationError:
    """Return the error that reading and writing raise, checked for kind, time and what it must not hold."""
    error: OperationError | None = None
    for method in ("get_items", "add_items"):
        session = ha_session(config, PRIVATE_ID)
        since = time.monotonic()
        with pytest.raises(kind) as caught:
            await (session.add_items([ITEM]) if method == "add_items" else session.get_items())
        assert time.monotonic() - since < BEFORE_THE_DEADLINE_SECONDS
        error = caught.value
        assert_no_secret(error)
        assert error.outcome is Outcome.NOT_APPLIED
    assert error is not None
    return error


def assert_no_secret(error: BaseException | None) -> None:
    while error is not None:
        text = f"{error} {error!r} {error.__dict__}"
        assert "s3cr3t" not in text
        assert "redis://" not in text
        error = error.__cause__


@pytest.fixture(scope="module")
def protected(labs: Any) -> Iterator[lab.Lab]:
    with lab.start("standalone", password="right") as servers:
        yield servers


def old_server(request: bytes) -> bytes:
    """Answer each command as a server before 6.0 answers HELLO: with all that it was sent."""
    parts = request.split(b"\r\n")[2::2]
    echo = b" ".join(b"`%b`" % part for part in parts[1:])
    return b"-ERR unknown command `%b`, with args beginning with: %b, \r\n" % (parts[0], echo)


@pytest.mark.parametrize("which", ["standalone", "sentinel", "cluster"])
async def test_what_an_old_server_repeats_is_shown_nowhere(
    which: Any, telemetry: Telemetry, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    extra: dict[str, Any] = {}
    if which == "sentinel":
        extra = {"service_name": "m", "sentinel": SentinelConfig(username="u", password=SECRET)}
    async with listening(old_server) as address:
        retry = RetryConfig(deadline_seconds=1)
        config = HAConfig(topology=which, nodes=[address], username="u", password=SECRET, retry=retry, **extra)
        shown = [repr(config)]
        async with SessionStore(config) as store:
            session = store.session(PRIVATE_ID)
            for call in (session.add_items([ITEM]), session.get_items()):
                with pytest.raises(OperationError) as caught:
                    await call
                assert_no_secret(caught.value)
                shown += [*traceback.format_exception(caught.value), repr(caught.value.__dict__), repr(session)]
            health = await store.health()
            assert not health.ok
            shown += [repr(health), *health.problems, repr(store)]
    shown += [caplog.text, *capsys.readouterr(), repr(telemetry.spans())]
    shown += [f"{span.to_json()}" for span in telemetry.spans()]
    assert "unknown command" in "".join(shown)
    assert "s3cr3t" not in "".join(shown)


async def test_a_wrong_password_is_an_authentication_error(protected: lab.Lab) -> None:
    for config in (protected.config(password=SECRET), protected.config(username="nobody", password=SECRET)):
        await failure(config, AuthenticationFailedError)


async def test_no_password_is_an_authentication_error(protected: lab.Lab) -> None:
    await failure(HAConfig(nodes=protected.config().nodes), AuthenticationFailedError)


@pytest.mark.parametrize("topology", ["sentinel", "cluster"], indirect=True)
async def test_a_wrong_password_is_said_on_every_topology(topology: str) -> None:
    with lab.start(topology, password="right") as servers:  # type: ignore[arg-type]
        await ha_session(servers.config(), "x").add_items([ITEM])
        await failure(servers.config(password=SECRET), AuthenticationFailedError)


async def test_a_wrong_sentinel_password_is_an_authentication_error() -> None:
    with lab.start("sentinel", sentinel_password="right", password="data") as servers:
        await ha_session(servers.config(), "x").add_items([ITEM])
        wrong = servers.config(sentinel=SentinelConfig(password=SECRET))
        error = await failure(wrong, AuthenticationFailedError)
        assert "sentinel.password" in str(error)


async def test_an_unknown_service_is_said(labs: Any) -> None:
    error = await failure(labs.get("sentinel").config(service_name="nosuch"), PrimaryNotFoundError)
    assert "nosuch" in str(error)


async def test_unreachable_servers_are_said_within_the_deadline(labs: Any) -> None:
    retry = RetryConfig(deadline_seconds=0.6)
    with lab.Proxy("127.0.0.1", 1) as proxy:
        proxy.refuse()
        for topology, extra in (("standalone", {}), ("sentinel", {"service_name": "mymaster"}), ("cluster", {})):
            config = HAConfig(topology=topology, nodes=[proxy.address], retry=retry, **extra)
            error = await failure(config, DeadlineExceededError)
            assert error.attempts > 1
            assert error.topology == topology
            assert proxy.address in str(error)


async def test_silent_servers_are_said_within_the_deadline(labs: Any) -> None:
    retry = RetryConfig(deadline_seconds=1)
    with lab.Proxy("127.0.0.1", labs.get("standalone").nodes[0].port) as proxy:
        session = ha_session(HAConfig(nodes=[proxy.address], retry=retry), "x")
        await session.add_items([ITEM])
        proxy.blackhole()
        for topology, extra in (("sentinel", {"service_name": "mymaster"}), ("cluster", {})):
            config = HAConfig(topology=topology, nodes=[proxy.address], retry=retry, pool=NEVER, **extra)
            await failure(config, DeadlineExceededError)
        with pytest.raises(DeadlineExceededError) as caught:
            await session.add_items([ITEM])
        assert caught.value.outcome is Outcome.UNKNOWN
        with pytest.raises(DeadlineExceededError) as caught:
            await session.add_items([ITEM])  # no connection is made any more: this one never left
        assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_an_append_without_any_reply_is_unknown_and_is_there_once(labs: Any, session_id: str) -> None:
    servers = labs.get("standalone", proxies=True)
    config = servers.config(retry=RetryConfig(deadline_seconds=1))
    session = ha_session(config, session_id)
    await session.add_items([ITEM])
    await session.clear_session()
    proxy = servers.nodes[0].proxy
    proxy.cut_replies()
    with pytest.raises(DeadlineExceededError) as caught:
        await session.add_items([ITEM])
    proxy.heal()
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.attempts > 1
    assert await session.get_items() == [ITEM]


async def test_an_untrusted_certificate_is_said_at_once(labs: Any) -> None:
    servers = labs.get("tls")
    for tls in (TLSConfig(), TLSConfig(ca_file=servers.certificates.other_ca_file)):
        await failure(servers.config(tls=tls), TLSError)


async def test_a_certificate_for_another_host_is_said_at_once(labs: Any) -> None:
    servers = labs.get("tls")
    # "127.1" leads to 127.0.0.1 and is a name that the certificate does not hold.
    address = ("127.1", servers.config().nodes[0].port)
    tls = servers.config().tls
    assert tls is not None
    await failure(HAConfig(nodes=[address], tls=tls), TLSError)
    lax = HAConfig(nodes=[address], tls=tls.replace(check_hostname=False))
    await ha_session(lax, "x").get_items()


async def test_plain_text_to_a_tls_port_is_said_at_once(labs: Any) -> None:
    node = labs.get("tls").config().nodes[0]
    await failure(HAConfig(nodes=[node]), TLSError)
    await failure(HAConfig(topology="cluster", nodes=[node]), TLSError)
    await failure(HAConfig(topology="sentinel", nodes=[node], service_name="mymaster"), TLSError)


async def test_tls_to_a_plain_port_is_said_at_once(labs: Any) -> None:
    node = labs.get("standalone").config().nodes[0]
    await failure(HAConfig(nodes=[node], tls=TLSConfig(verify=False, check_hostname=False)), TLSError)


async def test_a_missing_certificate_file_is_said_at_once(labs: Any) -> None:
    servers = labs.get("tls")
    error = await failure(servers.config(tls=TLSConfig(ca_file="/nowhere/ca.pem")), TLSError)
    assert "ca_file" in str(error)


async def test_a_replica_given_as_standalone_is_said_at_once(labs: Any) -> None:
    servers = labs.get("sentinel")
    replica = servers.replicas_of(servers.primary())[0]
    await failure(HAConfig(nodes=[replica.address]), NotPrimaryError)


@pytest.mark.parametrize(
    "ask",
    [lambda session: session.pop_item(), lambda session: session.add_items([ITEM], expected_version=3)],
    ids=["nothing", "conflict"],
)
async def test_a_demoted_primary_that_is_behind_says_neither_that_there_is_nothing_nor_that_another_one_wrote(
    ask: Callable[[RedisHASession], Awaitable[Any]], session_id: str
) -> None:
    with lab.start("standalone") as servers:
        (node,) = servers.nodes
        async with SessionStore(servers.config(retry=RetryConfig(deadline_seconds=2))) as store:
            session = store.session(session_id)
            assert await session.pop_item() is None
            node.ask("REPLICAOF", node.host, 1)  # none answers there: so it is behind
            with pytest.raises(OperationError, match=r"ReadOnlyError|cut off by the deadline") as caught:
                await ask(session)
            was_cut_off = "cut off" in str(caught.value)  # the last attempt, on a busy machine
            assert caught.value.outcome is (Outcome.UNKNOWN if was_cut_off else Outcome.NOT_APPLIED)


async def test_servers_of_another_topology_are_said_at_once(labs: Any) -> None:
    plain, cluster, sentinel = labs.get("standalone"), labs.get("cluster"), labs.get("sentinel")
    address = plain.nodes[0].address
    await failure(HAConfig(topology="cluster", nodes=[address]), WrongTopologyError)
    await failure(HAConfig(topology="sentinel", nodes=[address], service_name="mymaster"), WrongTopologyError)
    key = session_keys("agents:ha", PRIVATE_ID).items
    other = next(node for node in cluster.primaries() if node != cluster.primary(key))
    await failure(HAConfig(nodes=[other.address]), WrongTopologyError)
    await failure(HAConfig(nodes=[sentinel.sentinels[0].address]), OperationError)


def test_a_database_number_on_a_cluster_cannot_be_configured() -> None:
    for make in (
        lambda: HAConfig(topology="cluster", nodes=["a:1"], db=3),
        lambda: HAConfig.from_url("redis+cluster://:s3cr3t@a:1/3"),
        lambda: ha_session("redis+cluster://:s3cr3t@a:1/3", "x"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.field == "db"
        assert_no_secret(caught.value)


async def test_a_missing_permission_is_said_at_once(topology: str, labs: Any) -> None:
    servers = labs.get(topology)
    for node in servers.nodes:
        servers.client(node).execute_command(
            "ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-evalsha", "-eval"
        )
    await failure(servers.config(username="limited", password="pw"), PermissionDeniedError)
    for node in servers.nodes:
        servers.client(node).execute_command("ACL", "SETUSER", "limited", "resetkeys", "~other:*", "+@all")
    await failure(servers.config(username="limited", password="pw"), PermissionDeniedError)


async def test_the_documented_acl_rule_is_enough(topology: str, labs: Any, session_id: str) -> None:
    from agents_redis_ha import acl_rule

    servers = labs.get(topology)
    for node in servers.nodes:
        servers.client(node).execute_command("ACL", "SETUSER", "least", "on", ">pw", *acl_rule("agents:ha"))
    session = ha_session(servers.config(username="least", password="pw"), session_id, ttl=600)
    await session.add_items([ITEM, ITEM, ITEM])
    assert await session.pop_item() == ITEM
    assert len(await session.get_items()) == 2
    assert await session._atomic_replace_items([ITEM])
    assert (await session.info()).item_count == 1
    await session.clear_session()


@pytest.mark.parametrize("part", ["items", "meta", "ops"])
async def test_a_key_of_another_type_is_said_and_left_alone(
    topology: str, labs: Any, session_id: str, part: str
) -> None:
    servers = labs.get(topology)
    keys = session_keys("agents:ha", session_id)
    client = servers.client(servers.primary(keys.items))
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([ITEM])
    key = getattr(keys, part)
    client.delete(key)
    client.set(key, "mine")
    rest = {k: client.dump(k) for k in (keys.items, keys.meta, keys.ops) if k != key}
    changes = (
        session.add_items([ITEM]),
        session.pop_item(),
        session.clear_session(),
        session._atomic_replace_items([]),
    )
    for change in changes:
        with pytest.raises(WrongKeyTypeError) as caught:
            await change
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert session_id not in str(caught.value)
    assert client.get(key) == b"mine"
    assert {k: client.dump(k) for k in rest} == rest


async def test_refusals_that_pass_are_waited_for(labs: Any, session_id: str) -> None:
    servers = labs.get("standalone")
    client = servers.client(servers.nodes[0])
    session = ha_session(servers.config(), session_id)
    await session.add_items([ITEM])
    client.config_set("min-replicas-to-write", 1)
    task = asyncio.create_task(session.add_items([ITEM]))
    await asyncio.sleep(0.1)
    assert not task.done()
    assert len(await session.get_items()) == 1  # reading goes on
    client.config_set("min-replicas-to-write", 0)
    await task
    assert len(await session.get_items()) == 2


async def test_a_full_server_refuses_without_a_trace(session_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents_redis_ha._retry._SHORTEST_ATTEMPT_SECONDS", 0.5)  # none is cut off by the deadline
    with lab.start("standalone", config={"maxmemory-policy": "noeviction"}) as servers:
        client = servers.client(servers.nodes[0])
        session = ha_session(servers.config(retry=RetryConfig(deadline_seconds=1)), session_id, ttl=600)
        await session.add_items([ITEM])
        client.config_set("maxmemory", 1)
        with pytest.raises(DeadlineExceededError, match="used memory") as caught:
            await session.add_items([ITEM])
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert_no_secret(caught.value)
        assert len(await session.get_items()) == 1
        assert await session.pop_item() == ITEM  # what frees memory goes on
        client.config_set("maxmemory", 0)
        await session.add_items([ITEM])


async def test_errors_survive_pickling(labs: Any) -> None:
    error = await failure(labs.get("sentinel").config(service_name="nosuch"), PrimaryNotFoundError)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.outcome, copy.attempts) == (
        type(error),
        str(error),
        error.outcome,
        error.attempts,
    )
    again = pickle.loads(pickle.dumps(ConfigurationError("db", "no")))
    assert (again.field, str(again)) == ("db", "db: no")


async def test_no_secret_reaches_a_log(protected: lab.Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AgentsRedisError):
        await ha_session(protected.config(password=SECRET), PRIVATE_ID).add_items([ITEM])
    assert "s3cr3t" not in caplog.text
    assert SECRET not in repr(protected.config(password=SECRET))
