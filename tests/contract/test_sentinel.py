"""What is particular to Sentinel: the elected primary, and nothing to the deposed one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

import pytest
import redis

from agents_redis_ha import (
    DeadlineExceededError,
    HAConfig,
    RedisHASession,
    RetryConfig,
    SentinelConfig,
    SessionStore,
    UnconfirmedError,
    counters,
    ha_session,
    lab,
)
from agents_redis_ha._connections.sentinel_group import lease_seconds
from tests.support.waiting import eventually

ITEM: Any = {"role": "user", "content": "hello"}


def evals_seen(admin: redis.Redis) -> int:
    stats: Any = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "polled"])
async def test_a_deposed_primary_that_still_answers_is_asked_nothing_once_another_is_elected(
    session_id: str, announced: bool
) -> None:
    with lab.start("sentinel") as servers:
        for node in servers.nodes:
            servers.client(node).execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
        sentinel = SentinelConfig(poll_interval_seconds=30.0 if announced else 0.1)
        session = ha_session(servers.config(username="app", password="pw", sentinel=sentinel), session_id)
        await session.add_items([ITEM])
        old = servers.primary()
        app = redis.Redis(host=old.host, port=old.port, username="app", password="pw")
        seen_failovers = counters()["failovers"]
        # The Sentinels come as the default user: to them the primary is down, to the session it answers as ever.
        app.execute_command("ACL", "SETUSER", "default", "-@all")
        await asyncio.to_thread(lab.wait_until, lambda: servers.primary() is not old, "another is elected", 20)
        await asyncio.sleep(0.1 if announced else 0.5)  # for the announcement, or the next poll, to arrive
        role: Any = app.role()
        assert role[0] == b"master"
        asked = evals_seen(app)
        for _ in range(20):
            await session.add_items([ITEM])
            assert await session.get_items()
        assert evals_seen(app) == asked
        assert len(await session.get_items()) == 21
        assert counters()["failovers"] == seen_failovers + 1
        app.close()


async def test_one_reachable_sentinel_is_enough(session_id: str) -> None:
    with lab.start("sentinel") as servers:
        for node in servers.sentinels[:2]:
            servers.kill(node)
        session = ha_session(servers.config(), session_id)
        await session.add_items([ITEM])
        assert await session.get_items() == [ITEM]
        async with SessionStore(servers.config()) as store:
            health = await store.health()
            assert not health.ok
            assert len([p for p in health.problems if "Sentinel" in p]) == 2


async def test_a_failover_under_load_loses_and_doubles_nothing(session_id: str) -> None:
    with lab.start("sentinel") as servers:
        config = servers.config(retry=RetryConfig(deadline_seconds=30))
        written: list[list[str]] = [[] for _ in range(4)]
        stop = asyncio.Event()

        async def write(writer: int) -> None:
            session = ha_session(config, f"{session_id}-{writer % 2}")
            while not stop.is_set():
                text = f"{writer}/{len(written[writer])}"
                await session.add_items([{"role": "user", "content": text}])
                written[writer].append(text)
                await asyncio.sleep(0.005)

        writers = [asyncio.create_task(write(w)) for w in range(4)]
        old = servers.primary()
        await asyncio.to_thread(lab.wait_until, lambda: all(map(len, written)), "everybody wrote", 10)
        await asyncio.to_thread(servers.kill, old)
        await asyncio.to_thread(servers.wait_for_new_primary, old)
        counts = [len(w) for w in written]
        await asyncio.to_thread(
            lab.wait_until, lambda: all(len(w) > n for w, n in zip(written, counts, strict=True)), "writing goes on", 20
        )
        stop.set()
        await asyncio.gather(*writers)
        for half in range(2):
            items: Any = await ha_session(config, f"{session_id}-{half}").get_items()
            texts = [item["content"] for item in items]
            for writer in (half, half + 2):
                assert [t for t in texts if t.startswith(f"{writer}/")] == written[writer]
            assert len(texts) == len(written[half]) + len(written[half + 2])


def test_the_sentinels_have_their_own_credentials() -> None:
    config = HAConfig.from_url("redis+sentinel://u:data@s1/mymaster?sentinel_password=other")
    assert config.sentinel is not None
    assert config.sentinel.password is not None
    assert config.sentinel.password.get_secret_value() == "other"


@pytest.mark.skipif(
    sys.version_info < (3, 11) and redis.__version__.startswith("7."),
    reason="there redis-py takes one cancellation in thousands for its timeout, and the loop's end waits for that task",
)
def test_a_loop_can_end_at_any_moment_of_a_round_of_questions(labs: Any, session_id: str) -> None:
    # The watchers ask every millisecond, so that the loop's end meets them in the middle of it.
    config = labs.get("sentinel").config(sentinel=SentinelConfig(poll_interval_seconds=0.001))

    async def job(n: int) -> None:
        await ha_session(config, session_id, ttl=600).add_items([ITEM])
        await asyncio.sleep(n % 10 * 0.003)

    for n in range(60):
        asyncio.run(job(n))
    assert len(asyncio.run(ha_session(config, session_id).get_items())) == 60


async def test_a_primary_that_the_majority_replaced_confirms_nothing_though_a_replica_is_beside_it(
    session_id: str,
) -> None:
    if lab.find_server().version < (7, 0, 0):
        pytest.skip("a partition in the lab needs Redis 7.0")
    durability = {"replicas": 1, "timeout_seconds": 0.2}
    with lab.start("sentinel", links=True) as servers:
        old = servers.primary()
        beside, _ = servers.replicas_of(old)
        inside = servers.links.config_inside(old, durability=durability, retry={"deadline_seconds": 1.5})
        async with SessionStore(inside) as store:
            session = store.session(session_id)
            await session.add_items([ITEM])
            await asyncio.to_thread(servers.links.partition, old, beside, servers.sentinels[0])
            await asyncio.to_thread(servers.wait_for_new_primary, old)
            with pytest.raises(UnconfirmedError, match="majority"):
                await session.add_items([ITEM])
            await asyncio.to_thread(servers.links.heal)
            await asyncio.to_thread(servers.wait_ready)
            assert await session.get_items() == [ITEM, ITEM]  # put back: this process knows it


@pytest.mark.parametrize("poll_seconds", [1.0, 60.0])
@pytest.mark.parametrize(("configured", "beside_count"), [(3, 1), (3, 0), (1, 1)])
async def test_a_minority_confirms_nothing_once_the_majoritys_last_answer_is_too_old(
    session_id: str, configured: int, beside_count: int, poll_seconds: float
) -> None:
    if lab.find_server().version < (7, 0, 0):
        pytest.skip("a partition in the lab needs Redis 7.0")
    durability = {"replicas": 1, "timeout_seconds": 0.2}
    with lab.start("sentinel", links=True, down_after_ms=60_000) as servers:  # nothing is elected meanwhile
        old = servers.primary()
        beside, _ = servers.replicas_of(old)
        nodes = [sentinel.announced_address for sentinel in servers.sentinels[:configured]]
        polling = SentinelConfig(poll_interval_seconds=poll_seconds)
        how: Any = {"durability": durability, "retry": {"deadline_seconds": 1.5}, "sentinel": polling}
        async with SessionStore(servers.links.config_inside(old, nodes=nodes, **how)) as store:
            session = store.session(session_id)
            await eventually_confirmed(session)  # by the word of all three, of which one or all are configured
            await asyncio.to_thread(servers.links.partition, old, beside, *servers.sentinels[:beside_count])
            over = time.monotonic() + lease_seconds(polling)
            await eventually(lambda: time.monotonic() > over, "the last answer from the other side is too old")
            for _ in range(2):
                with pytest.raises((UnconfirmedError, DeadlineExceededError), match=r"majority|no Sentinel"):
                    await session.add_items([ITEM])
            await asyncio.to_thread(servers.links.heal)
            await eventually_confirmed(session)


async def test_a_client_that_reaches_both_sides_confirms_nothing_that_the_sentinels_cannot_see(
    session_id: str,
) -> None:
    if lab.find_server().version < (7, 0, 0):
        pytest.skip("a partition in the lab needs Redis 7.0")
    durability = {"replicas": 1, "timeout_seconds": 0.2}
    with lab.start("sentinel", links=True, down_after_ms=60_000) as servers:
        old = servers.primary()
        beside, _ = servers.replicas_of(old)
        async with SessionStore(servers.config(durability=durability, retry={"deadline_seconds": 1.5})) as store:
            session = store.session(session_id)
            await eventually_confirmed(session)
            await asyncio.to_thread(servers.links.partition, old, beside)
            over = time.monotonic() + lease_seconds(SentinelConfig()) + 1.2  # 1.2 s: the period of their PINGs
            await eventually(lambda: time.monotonic() > over, "the Sentinels miss the primary's answers")
            with pytest.raises(UnconfirmedError, match="majority"):
                await session.add_items([ITEM])
            await asyncio.to_thread(servers.links.heal)
            await eventually_confirmed(session)


async def eventually_confirmed(session: RedisHASession) -> None:
    for _ in range(20):
        with contextlib.suppress(UnconfirmedError, DeadlineExceededError):
            await session.add_items([ITEM])
            return
    raise AssertionError("nothing is confirmed any more")


async def test_a_sentinel_that_tells_host_names_beside_others_causes_no_failovers(session_id: str) -> None:
    with lab.start("sentinel") as servers:
        primary, speller = servers.primary(), servers.sentinels[0]
        service = str(servers.config().service_name)
        for option in ("resolve-hostnames", "announce-hostnames"):
            speller.ask("SENTINEL", "CONFIG", "SET", option, "yes")
        speller.ask("SENTINEL", "REMOVE", service)
        speller.ask("SENTINEL", "MONITOR", service, "localhost", primary.port, 2)
        spelled = ["localhost", str(primary.port)]
        assert speller.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service) == spelled
        seen_failovers = counters()["failovers"]
        polling = SentinelConfig(poll_interval_seconds=0.01)
        async with SessionStore(servers.config(sentinel=polling, durability={"replicas": 1})) as store:
            named = set()
            for _ in range(200):  # each look asks the Sentinels, whose answers come in any order
                named |= {primary.address for primary in (await store.health()).primaries}
                await store.session(session_id).add_items([ITEM])
            assert len(named) == 1
        assert counters()["failovers"] == seen_failovers
