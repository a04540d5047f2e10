"""What a cluster locator makes of what the nodes tell, where it sends, and what has to wait."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import Address, HAConfig
from agents_redis_ha._commands import Reply
from agents_redis_ha._connections import cluster as cluster_module
from agents_redis_ha._connections.cluster import ClusterLocator, _Map
from agents_redis_ha._connections.failures import AttemptError, NoPrimaryError, TakenOverError, classify
from agents_redis_ha.errors import AuthenticationFailedError, TLSError, WrongTopologyError
from tests.support.fake_nodes import LOST, FakeClient, FakePool, Written, command
from tests.support.fakes import SPEC, failed, request
from tests.support.virtual_time import in_virtual_time

LONG = 30.0
HALF = 8192
SLOT = SPEC.keys.slot
# The node that holds the command's slot, and the one with the other half.
MINE, OTHER = ("h:1", "h:2") if SLOT < HALF else ("h:2", "h:1")


class View:
    """What one node tells: who owns the two halves of the slots, and its epochs; `error` instead, if there is one."""

    def __init__(self, *owners: int, epoch: int = 3, own_epoch: int = 1, state: str = "ok") -> None:
        self.epoch, self.own_epoch, self.state = epoch, own_epoch, state
        self.error: Exception | None = None
        halves = ((0, HALF - 1), (HALF, 2 * HALF - 1))
        self.ranges: Any = [[*half, [b"h", port]] for half, port in zip(halves, owners, strict=True)]

    def slots(self) -> Any:
        return self.error or self.ranges

    def info(self) -> Any:
        fields = (f"cluster_state:{self.state}", f"cluster_current_epoch:{self.epoch}")
        return self.error or "\r\n".join([*fields, f"cluster_my_epoch:{self.own_epoch}"]).encode()


class Pool(FakePool):
    """A node: tells its view, and answers a script with the next of its replies, then with its name."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__()
        self.cluster, self.name = cluster, name

    def replies_to(self, commands: list[Written]) -> list[Any]:
        return [self._reply_to(command) for command in commands]

    def _reply_to(self, command: Written) -> Any:
        self.cluster.sent.append((self.name, command[0]))
        if command[0] == b"CLUSTER":
            view = self.cluster.views[self.name]
            return view.slots() if command[1] == b"SLOTS" else view.info()
        if command[0] == b"ASKING":
            return b"OK"
        if command[0] == b"EVALSHA":
            self.cluster.key_counts.append(int(command[2]))
        replies = self.cluster.replies.get(self.name)
        return replies.pop(0) if replies else self.name


class Cluster:
    """Nodes h:1, h:2 … that tell what their views say; `replies` is what they answer else, `sent` what they got."""

    def __init__(self, *views: View, seeds: tuple[str, ...] = ()) -> None:
        self.views = {f"h:{port}": view for port, view in enumerate(views, 1)}
        self.replies: dict[str, list[Any]] = {}
        self.sent: list[tuple[str, bytes]] = []
        self.key_counts: list[int] = []
        config = HAConfig(topology="cluster", nodes=list(seeds or self.views))
        self.locator = ClusterLocator(config, lambda address: FakeClient(Pool(self, str(address))))  # type: ignore[arg-type,return-value]

    @property
    def asked(self) -> Counter[str]:
        """How often each node was asked for the map."""
        return Counter(name for name, verb in self.sent if verb == b"CLUSTER")

    async def attempt(self) -> Reply:
        return await self.locator.attempt(request(command()))

    async def failure(self) -> AttemptError:
        with pytest.raises(AttemptError) as caught:
            await self.attempt()
        return caught.value


@pytest.fixture
async def cluster() -> Any:
    """Return two primaries that agree, and a third node that is to take over from the command's."""
    found = Cluster(View(1, 2, own_epoch=1), View(1, 2, own_epoch=2), View(1, 2, own_epoch=1))
    assert (await found.attempt()).value == MINE
    found.sent.clear()
    found.key_counts.clear()
    yield found
    await found.locator.aclose()


def take_over(cluster: Cluster) -> None:
    """Let h:3 take over from the command's node; the others have heard of the new epoch only."""
    cluster.views[MINE].error = LOST
    cluster.views[OTHER].epoch = 4
    owners = (3, 2) if SLOT < HALF else (1, 3)
    cluster.views["h:3"] = View(*owners, epoch=4, own_epoch=4)


def moved(to: str) -> redis_errors.MovedError:
    return redis_errors.MovedError(f"{SLOT} {to}")


def ask(to: str) -> redis_errors.AskError:
    return redis_errors.AskError(f"{SLOT} {to}")


async def test_of_equal_epochs_the_map_of_the_one_that_was_just_elected_counts(cluster: Cluster) -> None:
    take_over(cluster)
    await cluster.locator.primaries()
    # The id is the one that the old primary had, a constant of some proxy: it is as good as unknown.
    assert (await cluster.attempt()).history == ("h:3", None)
    assert cluster.locator.failovers == ["h:3"]


def test_the_epoch_counts_before_the_shards_own_and_that_before_the_slots_that_are_covered() -> None:
    half, whole = [[0, HALF - 1]], [[0, 2 * HALF - 1]]
    ascending = [_Map(3, 9, True, whole), _Map(4, 1, True, half), _Map(4, 1, True, whole), _Map(4, 2, True, half)]
    assert sorted(ascending, key=lambda each: each.authority) == ascending


async def test_of_equal_epochs_the_map_that_covers_more_slots_counts() -> None:
    joined = View(1, 2)
    joined.ranges = []
    found = Cluster(joined, View(1, 2))
    assert (await found.attempt()).value == MINE
    await found.locator.aclose()


@in_virtual_time
async def test_a_request_that_hangs_is_cut_when_another_node_takes_over() -> None:
    cluster = Cluster(View(1, 2), View(1, 2, own_epoch=2), View(1, 2))
    await cluster.locator.primaries()
    cluster.replies[MINE] = [asyncio.get_running_loop().create_future()]
    monitor, since = cluster.locator.monitor, asyncio.get_running_loop().time()
    task = asyncio.ensure_future(cluster.attempt())
    waiter = asyncio.ensure_future(monitor.wait_for_topology_change(LONG, monitor.topology_epoch))
    await asyncio.sleep(0)
    take_over(cluster)  # no operation calls `suspect`: the silence is enough
    await asyncio.wait([task, waiter])
    assert asyncio.get_running_loop().time() - since < 1
    error = task.exception()
    assert isinstance(error, AttemptError)
    assert isinstance(error.cause, TakenOverError)
    assert error.sent
    cluster.locator.suspect(error)
    asked = cluster.asked
    assert (await cluster.attempt()).value == "h:3"
    assert cluster.asked == asked  # the map is as new as can be
    await cluster.locator.aclose()


async def test_a_failed_node_holds_up_no_request_to_another_one(cluster: Cluster) -> None:
    cluster.locator.suspect(failed(LOST, node=OTHER))
    assert (await cluster.attempt()).value == MINE
    assert not cluster.asked
    cluster.locator.suspect(failed(LOST, node=MINE))
    assert (await cluster.attempt()).value == MINE
    asked = cluster.asked
    assert asked
    assert (await cluster.attempt()).value == MINE
    assert cluster.asked == asked  # one look is enough


async def test_a_failure_without_a_node_makes_the_map_be_learned_anew(cluster: Cluster) -> None:
    cluster.locator.suspect(failed(LOST, node=None))
    assert (await cluster.attempt()).value == MINE
    assert cluster.asked


async def test_hundreds_of_failures_at_once_cause_one_round_of_questions(cluster: Cluster) -> None:
    for _ in range(300):
        cluster.locator.suspect(failed(LOST, node=MINE))
    await asyncio.gather(*(cluster.attempt() for _ in range(300)))
    assert cluster.asked == {"h:1": 2, "h:2": 2, "h:3": 2}  # SLOTS and INFO


@pytest.mark.parametrize("fault", ["lost", "fail"])
async def test_what_waits_is_woken_when_its_node_serves_again(cluster: Cluster, fault: str) -> None:
    mine, monitor = cluster.views[MINE], cluster.locator.monitor
    mine.error, mine.state = (LOST, "ok") if fault == "lost" else (None, "fail")
    await cluster.locator.primaries()
    waiter = asyncio.ensure_future(monitor.wait_for_topology_change(LONG, monitor.topology_epoch))
    await cluster.locator.primaries()
    await asyncio.sleep(0)
    assert not waiter.done()
    mine.error, mine.state = None, "ok"
    await cluster.locator.primaries()
    await asyncio.wait_for(waiter, 5)


async def test_a_replica_that_answers_again_wakes_nothing(cluster: Cluster) -> None:
    monitor = cluster.locator.monitor
    cluster.views["h:3"].error = LOST
    await cluster.locator.primaries()
    cluster.views["h:3"].error = None
    await cluster.locator.primaries()
    assert monitor.topology_epoch == 0


async def test_a_moved_slot_is_followed_at_once_and_the_map_learned_before_the_next_request(cluster: Cluster) -> None:
    cluster.replies[MINE] = [moved("h:3")]
    assert (await cluster.attempt()).value == "h:3"
    assert not cluster.asked
    assert (await cluster.attempt()).value == MINE  # all of them still say so
    assert cluster.asked


@pytest.mark.parametrize("host", ["", "?"])
async def test_a_redirect_without_a_host_leads_to_the_one_that_answered(cluster: Cluster, host: str) -> None:
    cluster.replies[MINE] = [moved(f"{host}:3")]
    assert (await cluster.attempt()).value == "h:3"
    cluster.views["h:3"].ranges = [[0, 2 * HALF - 1, [host.encode(), 3]]]
    cluster.views["h:3"].epoch = 9
    assert [node.name for node in await cluster.locator.primaries()] == ["h:3"]


async def test_a_circle_of_redirects_ends_and_nothing_was_applied(cluster: Cluster) -> None:
    cluster.replies = {MINE: [moved(OTHER)] * 9, OTHER: [moved(MINE)] * 9}
    error = await cluster.failure()
    assert "redirect in a circle" in str(error)
    assert (error.sent, error.permanent) == (False, None)
    assert [name for name, verb in cluster.sent] == [MINE, OTHER] * 3


async def test_ask_leads_one_request_elsewhere_with_asking_before_it(cluster: Cluster) -> None:
    cluster.replies[MINE] = [ask("h:3")]
    assert (await cluster.attempt()).value == "h:3"
    assert cluster.sent == [(MINE, b"EVALSHA"), ("h:3", b"ASKING"), ("h:3", b"EVALSHA")]
    assert (await cluster.attempt()).value == MINE


async def test_a_session_that_begins_in_a_slot_that_is_moving_begins_at_the_target(cluster: Cluster) -> None:
    cluster.replies = {MINE: [ask("h:3")] * 5, "h:3": [redis_errors.TryAgainError("x")]}
    assert (await cluster.attempt()).value == "h:3"
    assert cluster.sent[3:] == [(MINE, b"EXISTS")] * 4 + [("h:3", b"ASKING"), ("h:3", b"EVALSHA")]
    assert cluster.key_counts == [3, 3, 1]


@pytest.mark.parametrize("exists", [[0, *[ask("h:3")] * 3], [1, 1, 1, 1], [*[ask("h:3")] * 3, 1]])
async def test_a_session_that_is_still_at_the_source_waits_for_its_migration(
    cluster: Cluster, exists: list[Any]
) -> None:
    cluster.replies = {MINE: [ask("h:3"), *exists], "h:3": [redis_errors.TryAgainError("x")]}
    error = await cluster.failure()
    assert isinstance(error.cause, redis_errors.TryAgainError)
    assert (error.node, error.sent) == ("h:3", False)
    assert cluster.key_counts == [3, 3]


async def test_a_source_that_fails_while_it_is_asked_for_the_session_has_not_applied_the_change(
    cluster: Cluster,
) -> None:
    cluster.replies = {MINE: [ask("h:3"), LOST], "h:3": [redis_errors.TryAgainError("x")]}
    error = await cluster.failure()
    assert (error.cause, error.node, error.sent) == (LOST, MINE, False)


async def test_a_request_that_is_cut_off_while_its_session_is_searched_for_has_not_been_sent(cluster: Cluster) -> None:
    asked = asyncio.Event()
    never = asyncio.get_running_loop().create_future()

    async def silence() -> Any:
        asked.set()
        return await never

    cluster.replies = {MINE: [ask("h:3"), silence()], "h:3": [redis_errors.TryAgainError("x")]}
    sent = request(command())
    attempt = asyncio.ensure_future(cluster.locator.attempt(sent))
    await asked.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not sent.sent


async def test_a_tls_connection_that_breaks_while_the_session_is_searched_for_is_tried_again(cluster: Cluster) -> None:
    broken = redis_errors.ConnectionError("broken")
    broken.__cause__ = ssl.SSLError("decryption failed")
    cluster.replies = {MINE: [ask("h:3"), broken], "h:3": [redis_errors.TryAgainError("x")]}
    error = await cluster.failure()
    assert classify(error.cause, sent=error.sent).retry
    assert not classify(error.cause, sent=error.sent).may_have_applied


async def test_a_node_that_cannot_run_several_keys_without_asking_is_an_ordinary_failure(cluster: Cluster) -> None:
    cluster.replies[MINE] = [refusal := redis_errors.TryAgainError("x")]
    assert (await cluster.failure()).cause is refusal
    assert cluster.sent == [(MINE, b"EVALSHA")]


async def test_nodes_that_slept_through_a_failover_do_not_lead_back() -> None:
    cluster = Cluster(View(1, 2), View(1, 2), View(1, 2), seeds=("h:1", "h:2", "h:3"))
    await cluster.locator.primaries()
    take_over(cluster)
    await cluster.locator.primaries()
    cluster.views[MINE].error = None
    for name in (OTHER, "h:3"):
        cluster.views[name].error = LOST
    with pytest.raises(AttemptError, match=f"only nodes that slept through a failover answer .{MINE}"):
        await cluster.locator.primaries()
    for name in cluster.views:  # a majority of them counts: the cluster was built anew
        cluster.views[name] = View(1, 2, epoch=1)
    assert [node.name for node in await cluster.locator.primaries()] == ["h:1", "h:2"]
    await cluster.locator.aclose()


async def test_the_members_are_asked_when_the_only_seed_has_died() -> None:
    cluster = Cluster(View(1, 2), View(1, 2), seeds=(MINE,))
    await cluster.locator.primaries()
    cluster.sent.clear()
    cluster.views[MINE].error = LOST
    assert [node.name for node in await cluster.locator.primaries()] == ["h:1", "h:2"]
    assert set(cluster.asked) == {"h:1", "h:2"}
    await cluster.locator.aclose()


async def test_in_a_large_cluster_some_members_are_asked_besides_the_seeds() -> None:
    cluster = Cluster(*(View(1, 2) for _ in range(60)), seeds=("h:1",))
    for view in cluster.views.values():
        view.ranges[0] += [[b"h", port] for port in range(3, 61)]
    await cluster.locator.primaries()
    cluster.sent.clear()
    await cluster.locator.primaries()
    assert 12 <= len(cluster.asked) <= 13
    assert "h:1" in cluster.asked
    await cluster.locator.aclose()


async def test_a_node_that_left_the_cluster_is_retired(cluster: Cluster) -> None:
    cluster.replies[MINE] = [moved("h:9")]
    assert (await cluster.attempt()).value == "h:9"
    (left,) = [node for node in cluster.locator.nodes() if node.name == "h:9"]
    await cluster.locator.primaries()
    assert left.retired
    assert "h:9" not in [node.name for node in cluster.locator.nodes()]


async def test_a_slot_without_an_owner_is_said_and_waited_for(cluster: Cluster) -> None:
    for view in cluster.views.values():
        view.ranges = [each for each in view.ranges if not each[0] <= SLOT <= each[1]]
    await cluster.locator.primaries()
    assert await cluster.locator.problems() == ["8192 of 16384 slots have no owner"]
    error = await cluster.failure()
    assert isinstance(error.cause, NoPrimaryError)
    assert (error.node, error.sent, error.permanent) == (None, False, None)
    assert cluster.locator.failovers == [None]


async def test_a_whole_cluster_has_no_problems(cluster: Cluster) -> None:
    assert await cluster.locator.problems() == []


NO_CLUSTER = redis_errors.ResponseError("ERR This instance has cluster support disabled")


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (NO_CLUSTER, WrongTopologyError),
        (redis_errors.ResponseError("ERR unknown command 'CLUSTER'"), WrongTopologyError),
        (redis_errors.AuthenticationError("WRONGPASS"), AuthenticationFailedError),
        (LOST, TLSError),  # as the look at the handshake says
        (redis_errors.BusyLoadingError("x"), TLSError),
    ],
)
async def test_what_cannot_succeed_later_either_is_said_at_the_first_contact(
    error: Exception, permanent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Address] = []

    async def diagnosed(failure: Any, address: Address, tls: Any) -> Any:
        looked.append(address)
        return TLSError

    monkeypatch.setattr(cluster_module, "permanent_cause", diagnosed)
    cluster = Cluster(View(1, 2))
    cluster.views["h:1"].error = error
    found = await cluster.failure()
    assert (found.permanent, found.sent) == (permanent, False)
    assert "no node tells the slot map (h:1: " in str(found)
    assert looked == ([Address("h", 1)] if permanent is TLSError else [])
    await cluster.locator.aclose()


async def test_a_cluster_that_was_met_before_is_waited_for(cluster: Cluster) -> None:
    for view in cluster.views.values():
        view.error = NO_CLUSTER
    with pytest.raises(AttemptError) as caught:
        await cluster.locator.primaries()
    assert caught.value.permanent is None
