"""Whether servers can take writes now: what their roles and replicas make of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha._connections.failures import NoPrimaryError
from agents_redis_ha._connections.health import Health, PrimaryHealth, ReplicaHealth, check_health
from agents_redis_ha._connections.node import Node
from tests.support.fake_nodes import LOST, FakePool, Written, fake_node
from tests.support.fakes import FakeLocator, failed
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import assert_cancellable

GUARDED = ("min_slaves_good_slaves:1",)
LINKED = "slave0:ip=r,port=7,state=online,offset=90,lag=1"


class Server(FakePool):
    """Answers ROLE and INFO."""

    def __init__(self, role: Any = b"master", *lines: str, info: Any = None) -> None:
        super().__init__()
        self.role = role
        self.info = info or "\r\n".join(["# Replication", "master_repl_offset:100", *lines]).encode()

    def replies_to(self, commands: list[Written]) -> list[Any]:
        role = [self.role, 100, []] if isinstance(self.role, bytes) else self.role
        return [role if command == (b"ROLE",) else self.info for command in commands]


def node(*server: Any, name: str = "h:1", **how: Any) -> Node:
    return fake_node(Server(*server, **how), name=name)


class Locator(FakeLocator):
    """Names these primaries, or fails."""

    topology: Any = "cluster"

    def __init__(self, *nodes: Any, problems: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.found, self.wrong = nodes, list(problems)

    async def primaries(self) -> list[Node]:
        for each in self.found:
            if isinstance(each, Exception):
                raise each
            if isinstance(each, asyncio.Future):
                await each
        return list(self.found)

    async def problems(self) -> list[str]:
        return self.wrong


async def health(*nodes: Any, problems: tuple[str, ...] = ()) -> Health:
    return await check_health(Locator(*nodes, problems=problems), 2.0)


async def test_a_primary_with_a_linked_replica_is_well() -> None:
    found = await health(node(b"master", LINKED, *GUARDED))
    (primary,) = found.primaries
    assert (found.ok, found.topology, found.problems, found.warnings) == (True, "cluster", (), ())
    assert (primary.address, primary.role) == ("h:1", "master")
    assert primary.round_trip_seconds is not None
    assert primary.round_trip_seconds > 0
    assert primary.replicas == (ReplicaHealth("r:7", True, 10, 1),)


async def test_a_look_at_the_servers_can_be_cancelled_in_any_moment() -> None:
    async def role(answer: asyncio.Future[None]) -> list[Any]:
        await answer
        return [b"master", 0, []]

    await assert_cancellable(health)
    await assert_cancellable(lambda answer: health(node(role(answer))))


async def test_a_primary_without_replicas_is_well_and_not_warned_about() -> None:
    found = await health(node())
    assert (found.ok, found.warnings, found.primaries[0].replicas) == (True, (), ())


async def test_a_replica_in_a_primarys_place_is_a_problem() -> None:
    found = await health(node(b"slave"))
    assert (found.ok, found.problems) == (False, ("h:1 is a replica, not a primary",))
    assert found.primaries[0].role == "slave"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("slave0:ip=r,port=7,state=wait_bgsave,offset=0,lag=0", ReplicaHealth("r:7", False, 100, 0)),
        ("slave12:ip=::1,port=7,state=online,offset=250", ReplicaHealth("::1:7", True, 0, None)),
        ("slave0:ip=r,port=7", ReplicaHealth("r:7", False, 100, None)),
    ],
)
async def test_a_replica_is_as_its_line_says(line: str, expected: ReplicaHealth) -> None:
    found = await health(node(b"master", line, *GUARDED))
    assert found.primaries[0].replicas == (expected,)
    broken = () if expected.online else (f"replica {expected.address} of h:1 is not linked",)
    assert (found.ok, found.problems) == (expected.online, broken)


async def test_other_lines_are_no_replicas() -> None:
    lines = ("slave_repl_offset:100", "slaves:3", "connected_slaves:1")
    assert (await health(node(b"master", *lines))).primaries[0].replicas == ()


async def test_a_primary_that_takes_writes_when_it_is_cut_off_from_its_replicas_is_warned_about() -> None:
    found = await health(node(b"master", LINKED))
    assert found.ok
    (warning,) = found.warnings
    assert warning.startswith("h:1 goes on taking writes when it is cut off from its replicas: min-replicas-to-write")


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl"])
async def test_a_primary_that_would_evict_conversations_is_warned_about(policy: str) -> None:
    found = await health(node(b"master", f"maxmemory_policy:{policy}"))
    evicts = (f"h:1 would evict conversations, or what keeps them whole: maxmemory-policy is {policy}, not noeviction",)
    assert (found.ok, found.warnings) == (True, () if policy == "noeviction" else evicts)


@pytest.mark.parametrize(("info", "lost"), [(redis_errors.NoPermissionError("no INFO for you"), False), (LOST, True)])
async def test_where_info_cannot_be_had_the_role_counts(info: Exception, lost: bool) -> None:
    found = await health(node(info=info))
    assert (found.ok, found.primaries[0].role, found.primaries[0].replicas) == (True, "master", ())


@pytest.mark.parametrize("role", [LOST, redis_errors.NoPermissionError("no ROLE for you")])
async def test_a_node_that_does_not_tell_its_role_is_a_problem(role: Exception) -> None:
    found = await health(node(role), node(b"master", name="h:2"))
    assert (found.ok, found.problems) == (False, (f"h:1 does not answer: {role}",))
    assert found.primaries[0] == PrimaryHealth("h:1", "unknown", None)
    assert found.primaries[1].role == "master"


@in_virtual_time
async def test_a_node_that_hangs_is_a_problem_after_the_time_and_holds_no_other_up() -> None:
    hanging = [asyncio.get_running_loop().create_future() for _ in range(2)]
    since = asyncio.get_running_loop().time()
    found = await health(node(hanging[0]), node(hanging[1], name="h:2"), node(name="h:3"))
    assert asyncio.get_running_loop().time() - since == pytest.approx(2, abs=0.001)
    assert found.problems == tuple(f"h:{port} does not answer: no answer within 2 s" for port in (1, 2))


async def test_without_a_primary_the_reason_is_the_problem() -> None:
    found = await health(failed(NoPrimaryError("no Sentinel names one"), node=None))
    assert found == Health(False, "cluster", (), ("no Sentinel names one",))


@in_virtual_time
async def test_primaries_that_are_not_found_in_time_are_a_problem() -> None:
    found = await health(asyncio.get_running_loop().create_future())
    assert found == Health(False, "cluster", (), ("no primary found within 2 s",))


async def test_what_is_wrong_with_the_topology_is_a_problem_too() -> None:
    found = await health(node(b"slave"), problems=("Sentinel s:2 does not answer",))
    assert found.problems == ("h:1 is a replica, not a primary", "Sentinel s:2 does not answer")
