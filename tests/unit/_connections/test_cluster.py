"""What a cluster locator makes of what the nodes tell, and who has to wait for it. No servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions as redis_errors
from tests.unit._connections.conftest import FakeRequest, failed, introduction

from agents_redis_ha import HAConfig
from agents_redis_ha._connections.cluster import ClusterLocator
from agents_redis_ha._connections.failures import AttemptError, TakenOverError

LOST = redis_errors.ConnectionError("lost")
LONG = 30.0
HALF = 8192


class View:
    """What one node tells: who owns the two halves of the slots, and its epochs; `error` instead, if there is one."""

    def __init__(self, *owners: int, epoch: int = 3, own_epoch: int = 1, state: str = "ok") -> None:
        self.owners, self.epoch, self.own_epoch, self.state = owners, epoch, own_epoch, state
        self.error: Exception | None = None

    def replies(self) -> list[Any]:
        if self.error is not None:
            raise self.error
        halves = ((0, HALF - 1), (HALF, 2 * HALF - 1))
        ranges = [[*half, [b"h", port]] for half, port in zip(halves, self.owners, strict=True)]
        fields = (f"cluster_state:{self.state}", f"cluster_current_epoch:{self.epoch}")
        return [ranges, "\r\n".join([*fields, f"cluster_my_epoch:{self.own_epoch}"]).encode()]


class Cluster:
    """Nodes h:1, h:2 … that tell what their views say and count how often."""

    def __init__(self, **views: View) -> None:
        self.views = {f"h:{name[1:]}": view for name, view in views.items()}
        self.asked = 0
        config = HAConfig(topology="cluster", nodes=list(self.views))
        self.locator = ClusterLocator(config, lambda address: self._client(str(address)))

    def _client(self, name: str) -> Any:
        cluster = self

        class Connection:
            socket_timeout = 3.0

            async def send_packed_command(self, packed: bytes, check_health: bool) -> None:
                cluster.asked += 1
                self.replies = introduction(packed)[0] + cluster.views[name].replies()

            async def read_response(self, disable_decoding: bool) -> Any:
                return self.replies.pop(0)

            async def disconnect(self, nowait: bool = False) -> None: ...

            def register_connect_callback(self, callback: Any) -> None: ...

        class Pool:
            async def get_connection(self) -> Connection:
                return Connection()

            async def release(self, connection: Connection) -> None: ...

            async def disconnect(self, inuse_connections: bool = True) -> None: ...

        class Client:
            connection_pool = Pool()

        return Client()


class Request(FakeRequest):
    """Answers with the node's name, or hangs there."""

    hangs_at = ""

    async def send(self, node: Any, *, asking: bool = False, only_first_key: bool = False) -> str:
        self.sent = True
        if node.name == self.hangs_at:
            await asyncio.sleep(LONG)
        return str(node.name)


SLOT = FakeRequest.keys.slot
# The node that holds the request's slot, and the one with the other half.
MINE, OTHER = ("h:1", "h:2") if SLOT < HALF else ("h:2", "h:1")


@pytest.fixture
async def cluster() -> Any:
    """Return two primaries that agree, and a third node that is to take over from the request's."""
    found = Cluster(n1=View(1, 2, own_epoch=1), n2=View(1, 2, own_epoch=2), n3=View(1, 2, own_epoch=1))
    assert await found.locator.attempt(Request()) == (MINE, MINE)
    yield found
    await found.locator.aclose()


def take_over(cluster: Cluster) -> None:
    """Let h:3 take over from the request's node; the others have heard of the new epoch only."""
    cluster.views[MINE].error = LOST
    cluster.views[OTHER].epoch = 4
    owners = (3, 2) if SLOT < HALF else (1, 3)
    cluster.views["h:3"] = View(*owners, epoch=4, own_epoch=4)


async def test_of_equal_epochs_the_map_of_the_one_that_was_just_elected_counts(cluster: Cluster) -> None:
    take_over(cluster)
    await cluster.locator.primaries()
    assert await cluster.locator.attempt(Request()) == ("h:3", "h:3")
    assert len(cluster.locator.failovers) == 1


async def test_a_request_that_hangs_is_cut_when_another_node_takes_over(cluster: Cluster) -> None:
    request = Request()
    request.hangs_at = MINE
    task = asyncio.ensure_future(cluster.locator.attempt(request))
    waiter = asyncio.ensure_future(cluster.locator.watch.wait_for_change(LONG, cluster.locator.watch.changes))
    await asyncio.sleep(0)
    take_over(cluster)  # nobody calls `suspect`: the silence is enough
    await asyncio.wait_for(asyncio.wait([task, waiter]), 10)
    error = task.exception()
    assert isinstance(error, AttemptError)
    assert isinstance(error.cause, TakenOverError)
    assert error.sent
    cluster.locator.suspect(error)
    asked = cluster.asked
    assert await cluster.locator.attempt(request) == ("h:3", "h:3")
    assert cluster.asked == asked  # the map is as new as can be


async def test_a_failed_node_holds_up_nobody_elses_requests(cluster: Cluster) -> None:
    asked = cluster.asked
    cluster.locator.suspect(failed(LOST, node=OTHER))
    assert await cluster.locator.attempt(Request()) == (MINE, MINE)
    assert cluster.asked == asked
    cluster.locator.suspect(failed(LOST, node=MINE))
    assert await cluster.locator.attempt(Request()) == (MINE, MINE)
    assert cluster.asked > asked


async def test_hundreds_of_failures_at_once_cause_one_round_of_questions(cluster: Cluster) -> None:
    asked = cluster.asked
    for _ in range(300):
        cluster.locator.suspect(failed(LOST, node=MINE))
    await asyncio.gather(*(cluster.locator.attempt(Request()) for _ in range(300)))
    assert cluster.asked - asked == 3


@pytest.mark.parametrize("fault", ["lost", "fail"])
async def test_those_who_wait_are_woken_when_their_node_serves_again(cluster: Cluster, fault: str) -> None:
    mine = cluster.views[MINE]
    mine.error, mine.state = (LOST, "ok") if fault == "lost" else (None, "fail")
    await cluster.locator.primaries()
    waiter = asyncio.ensure_future(cluster.locator.watch.wait_for_change(LONG, cluster.locator.watch.changes))
    await cluster.locator.primaries()
    await asyncio.sleep(0)
    assert not waiter.done()
    mine.error, mine.state = None, "ok"
    await cluster.locator.primaries()
    await asyncio.wait_for(waiter, 5)
