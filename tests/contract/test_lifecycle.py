"""Connections: bounded, shared, of one event loop and one process; and clients that the user made."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from agents_redis_ha import (
    ClosedError,
    HAConfig,
    PoolConfig,
    SessionStore,
    close_shared_connections,
    create_client,
    ha_session,
    lab,
)
from agents_redis_ha._sessions import shared_connections
from tests.support.waiting import eventually

ITEM: Any = {"role": "user", "content": "hello"}


async def test_a_thousand_sessions_stay_within_the_pool_bound(proxied: lab.Lab, new_id: Callable[[], str]) -> None:
    patient = PoolConfig(
        max_connections=4, connect_timeout_seconds=15, response_timeout_seconds=15, wait_timeout_seconds=60
    )
    config = proxied.config(pool=patient, retry={"deadline_seconds": 60}, ttl=600)
    proxies = [node.proxy for node in proxied.nodes if node.proxy is not None]
    await close_shared_connections()
    before = sum(proxy.connections for proxy in proxies)
    for proxy in proxies:
        proxy.reset_counters()
    base = new_id()
    for n in range(1_000):
        async with ha_session(config, f"{base}-{n}") as session:
            await session.add_items([ITEM])
    assert sum(proxy.connections_total for proxy in proxies) <= 4 * len(proxies)
    await asyncio.gather(*(ha_session(config, f"{base}-{n}").add_items([ITEM]) for n in range(200)))
    assert sum(proxy.connections for proxy in proxies) - before <= 4 * len(proxies)
    for proxy in proxies:
        assert proxy.connections_total <= 4 + 1  # one more may ask for the slot map


async def test_equal_configurations_share_their_connections(labs: Any, new_id: Callable[[], str]) -> None:
    servers = labs.get("standalone", proxies=True)
    await close_shared_connections()
    proxy = servers.nodes[0].proxy
    proxy.reset_counters()
    for make in (servers.config, lambda: servers.config().model_copy(), lambda: servers.url):
        await ha_session(make(), new_id()).add_items([ITEM])
    assert proxy.connections_total == 1


async def test_sessions_that_differ_in_what_is_their_own_share_their_connections(
    proxied: lab.Lab, new_id: Callable[[], str]
) -> None:
    await close_shared_connections()
    proxies = [node.proxy for node in proxied.nodes if node.proxy is not None]
    config, base = proxied.config(ttl=600), new_id()
    await ha_session(config, base).add_items([ITEM])
    before, tasks = sum(proxy.connections for proxy in proxies), len(asyncio.all_tasks())
    sessions = [
        ha_session(
            config,
            f"{base}-{n}",
            key_prefix=f"{base}-{n}",
            op_retention_seconds=200 + n,
            retry={"deadline_seconds": 20 + n},
            repair={"max_changes": 1000 + n},
        )
        for n in range(100)
    ]
    for session in sessions:
        await session.add_items([ITEM])
    # A cluster's sessions are on three nodes; a round of the Sentinels' answers may be under way.
    assert sum(proxy.connections for proxy in proxies) <= before + len(proxies)
    assert len(asyncio.all_tasks()) <= tasks + 10
    await close_shared_connections()


def test_a_worker_that_runs_a_loop_for_each_job_works_and_leaves_nothing_open(
    proxied: lab.Lab, session_id: str
) -> None:
    session = ha_session(proxied.config(), session_id, ttl=600)
    before = sum(node.proxy.connections for node in proxied.nodes if node.proxy)

    async def job(n: int) -> None:
        await session.add_items([{"role": "user", "content": str(n)}])
        await asyncio.gather(*(session.get_items() for _ in range(5)))

    for n in range(5):
        asyncio.run(job(n))
    assert [item["content"] for item in asyncio.run(session.get_items())] == [str(n) for n in range(5)]  # type: ignore[typeddict-item]
    gc.collect()  # an unclosed transport would be a ResourceWarning here, and so an error
    lab.wait_until(
        lambda: sum(node.proxy.connections for node in proxied.nodes if node.proxy) <= before, "all are closed", 10
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_worker_uses_connections_of_its_own(proxied: lab.Lab, session_id: str) -> None:
    script = textwrap.dedent("""
        import asyncio, json, os, sys
        from agents_redis_ha import HAConfig, ha_session

        url, session_id = sys.argv[1:]
        session = ha_session(HAConfig(**json.loads(url)), session_id, ttl=600)

        async def parent():
            await session.add_items([{"n": 0}])
            child = os.fork()
            if child == 0:
                os._exit(0 if in_child() else 1)
            for n in range(20):
                await session.add_items([{"n": f"p{n}"}])
            assert os.waitpid(child, 0)[1] == 0
            assert len(await session.get_items()) == 41, len(await session.get_items())

        def in_child():
            import threading
            def work():
                async def write():
                    for n in range(20):
                        await session.add_items([{"n": f"c{n}"}])
                asyncio.run(write())
                done.append(True)
            done = []
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            return bool(done)

        asyncio.run(parent())

        before = session
        pid = os.fork()
        if pid == 0:
            try:
                assert len(asyncio.run(before.get_items())) == 41
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("whole")
    """)
    config = proxied.config().model_dump(mode="json", exclude_defaults=True)
    command = [sys.executable, "-W", "error", "-c", script, json.dumps(config), session_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert (done.stdout.strip(), done.returncode) == ("whole", 0), done.stderr


async def test_a_closed_pool_of_sessions_can_be_used_again(labs: Any, session_id: str) -> None:
    session = ha_session(labs.get("standalone").config(), session_id)
    await session.add_items([ITEM])
    await close_shared_connections()
    assert await session.get_items() == [ITEM]


async def test_a_store_owns_its_connections_and_closes_them(proxied: lab.Lab, session_id: str) -> None:
    before = sum(node.proxy.connections for node in proxied.nodes if node.proxy)
    store = SessionStore(proxied.config(), ttl=600)
    session = store.session(session_id)
    await session.add_items([ITEM])
    assert await store.delete(session_id)
    assert not await store.delete(session_id)
    assert await session.get_items() == []
    await store.close()
    for call in (session.get_items, store.health):
        with pytest.raises(ClosedError):
            await call()
    await asyncio.to_thread(
        lab.wait_until,
        lambda: sum(node.proxy.connections for node in proxied.nodes if node.proxy) <= before,
        "all are closed",
        10,
    )


async def test_health_names_primaries_replicas_and_round_trip(topology: str, labs: Any) -> None:
    servers = labs.get(topology)
    await asyncio.to_thread(servers.wait_ready)
    async with SessionStore(servers.config()) as store:
        health = await store.health()
    assert health.ok, health.problems
    assert health.topology == ("standalone" if topology == "tls" else topology)
    expected = {str(servers.config().nodes[0])} if topology == "tls" else {n.address for n in servers.primaries()}
    assert {p.address for p in health.primaries} == expected
    for primary in health.primaries:
        assert primary.role == "master"
        assert primary.round_trip_seconds is not None
        assert 0 < primary.round_trip_seconds < 1
    replicas = {replica.address: replica for primary in health.primaries for replica in primary.replicas}
    assert len(replicas) == {"standalone": 0, "tls": 0, "sentinel": 2, "cluster": 3}[topology]
    assert all(replica.online and replica.lag_bytes >= 0 for replica in replicas.values())


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_health_warns_of_a_primary_that_would_go_on_alone(labs: Any, kind: str) -> None:
    servers = labs.get(kind)
    await asyncio.to_thread(servers.wait_ready)
    async with SessionStore(servers.config()) as store:
        health = await store.health()
        assert health.ok
        assert len(health.warnings) == len(health.primaries)
        assert all("min-replicas-to-write" in warning for warning in health.warnings)
        with lab.configure(servers.primary(), min_replicas_to_write=1, min_replicas_max_lag=5):
            guarded = await store.health()
        assert guarded.ok
        assert len(guarded.warnings) == len(health.warnings) - 1


async def test_a_demoted_primary_is_not_healthy_however_well_it_answers(labs: Any) -> None:
    servers = labs.get("sentinel")
    replica = servers.replicas_of(servers.primary())[0]
    async with SessionStore(HAConfig(nodes=[replica.address])) as store:
        health = await store.health()
        assert not health.ok
        assert health.primaries[0].role == "slave"
        assert "replica" in health.problems[0]
        assert not await store.session("x").ping()
    assert await ha_session(servers.config(), "x").ping()


async def test_health_of_servers_that_are_gone_is_a_report_not_an_error() -> None:
    with lab.Proxy("127.0.0.1", 1) as proxy:
        proxy.refuse()
        for extra in (
            {"topology": "standalone"},
            {"topology": "sentinel", "service_name": "m"},
            {"topology": "cluster"},
        ):
            async with SessionStore(HAConfig(nodes=[proxy.address], **extra)) as store:
                health = await store.health(timeout_seconds=0.5)
                assert not health.ok
                assert health.problems


async def test_the_created_client_serves_the_users_own_commands(topology: str, labs: Any, new_id: Any) -> None:
    client = create_client(labs.get(topology).config())
    key = new_id()
    assert await client.set(key, "mine", ex=60)
    assert await client.get(key) == b"mine"
    await client.aclose()


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "decoded"])
async def test_a_users_client_is_used_and_stays_open(topology: str, labs: Any, session_id: str, decode: bool) -> None:
    servers = labs.get(topology)
    client = users_client(topology, servers, decode)
    session = ha_session(client=client, session_id=session_id, ttl=600)
    await session.add_items([ITEM, {"content": "ü\ud800"}])
    assert await session.pop_item() == {"content": "ü\ud800"}
    assert await session.get_items() == [ITEM]
    await session.close()
    assert await ha_session(servers.config(), session_id).get_items() == [ITEM]
    assert await client.ping()
    await client.aclose()
    if topology == "sentinel":
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_requests_with_a_client_of_their_own_leave_no_connections(
    labs: Any, new_id: Callable[[], str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_connections, "_LOOK_SECONDS", 0.1)
    servers = labs.get(kind)

    def open_now() -> int:
        return sum(isinstance(found, AbstractConnection) and found.is_connected for found in gc.get_objects())

    async def request() -> None:
        client = users_client(kind, servers, False)
        await ha_session(client=client, session_id=new_id(), ttl=600).add_items([ITEM])
        await client.aclose()
        if kind == "sentinel":
            for sentinel in client.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def job() -> None:
        for _ in range(20):
            await request()
        assert open_now() > 0  # of those that were used last
        await eventually(lambda: len(asyncio.all_tasks()) == 1 and not open_now(), "all connections are closed", 60)

    asyncio.run(job())


def users_client(topology: str, servers: lab.Lab, decode: bool) -> Any:
    if topology == "sentinel":
        addresses = [(node.host, node.port) for node in servers.sentinels]
        return redis.asyncio.Sentinel(addresses).master_for("mymaster", decode_responses=decode)
    if topology == "cluster":
        return redis.asyncio.RedisCluster.from_url(f"redis://{servers.nodes[0].address}", decode_responses=decode)
    if topology == "tls":
        ca = servers.certificates.ca_file
        return redis.asyncio.Redis.from_url(
            f"rediss://{servers.config().nodes[0]}", ssl_ca_certs=ca, decode_responses=decode
        )
    return redis.asyncio.Redis.from_url(f"redis://{servers.nodes[0].address}", decode_responses=decode)


async def test_a_unix_socket_is_an_endpoint_too(session_id: str) -> None:
    folder = tempfile.TemporaryDirectory()  # pytest's own may be too deep for a socket's path
    path = f"{folder.name}/server.sock"
    with folder, lab.start("standalone", config={"unixsocket": path}):
        session = ha_session(f"unix://{path}?db=2", session_id)
        await session.add_items([ITEM])
        assert await session.get_items() == [ITEM]
        client = redis.asyncio.Redis(unix_socket_path=path, db=2)
        await ha_session(client=client, session_id=session_id).add_items([ITEM])
        await client.aclose()
        assert len(await session.get_items()) == 2
        await close_shared_connections()
