"""What the keeper does about lost history, step by step, and what it tells. The servers' side is scripted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents_redis_ha._commands.request import APPLIED, BEHIND, CONFLICT, Subject
from tests.unit._recovery.conftest import FakeLocator, described

from agents_redis_ha import HAConfig, RepairConfig, RetryConfig, operations
from agents_redis_ha._recovery.coordinator import Keeper
from agents_redis_ha._recovery.journal import Effect, Sight, Unit
from agents_redis_ha._recovery.replay import pack
from agents_redis_ha._retry import Executor
from agents_redis_ha._storage.keys import session_keys
from agents_redis_ha._telemetry import Observation, counters
from agents_redis_ha.errors import DeadlineExceededError, HistoryLostError, Outcome, lost_in_words

QUICK = RetryConfig(deadline_seconds=0.3, initial_backoff_seconds=0.001, max_backoff_seconds=0.002)
SUBJECT = Subject(session_keys("p", "u"), "u")


def an_id(number: int) -> bytes:
    return b"%016d" % number


def found(version: int, *ids: bytes, claim: int = 0, age_ms: int = 0, length: int = 1, parked: Any = ()) -> list[Any]:
    """Return a survey's reply: the ids are those of the newest changes, the newest first."""
    members = [field for at, id_ in enumerate(ids) for field in (id_, b"%d" % (version - at))]
    fields = [field for part in parked for field in (b"name", pack(part))]
    return [[version, 0, length, b"%d" % claim if claim else b"", age_ms, members, fields], b"master_replid:1f"]


class Server(FakeLocator):
    """Replies to each script with the next of the replies for it; the last one is repeated."""

    def __init__(self, **replies: list[Any]) -> None:
        super().__init__(None)
        self.scripts = replies
        self.asked: list[str] = []

    async def attempt(self, request: Any) -> tuple[Any, str]:
        self.attempts += 1
        self.requests.append(request)
        self.asked.append(request.script.name)
        request.node, request.knew = self.node, request.knows()
        replies = self.scripts[request.script.name]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        await asyncio.sleep(0)
        return (await reply(request) if callable(reply) else reply), "h:1"

    def becomes_another(self) -> None:
        """Let the server be started again: what is missing on it is a loss then, no deletion."""
        self.node.replication_id = "2e"


class Process:
    """One process that uses the session: its keeper, and an operation each."""

    def __init__(self, server: Server, retry: RetryConfig = QUICK, **repair: Any) -> None:
        config = HAConfig(nodes=["h"], retry=retry, repair=RepairConfig(**repair))
        self.keeper = Keeper(config, Executor(config, server))

    def begin(self, name: str, *, changes: bool) -> Any:
        return self.keeper.executor.begin(Observation(name, "sentinel", "u", "hashed"), changes=changes)

    async def append(self, *items: bytes, id_: bytes = b"own-change-------") -> operations.Change:
        return await self.keeper.change(
            self.begin("append", changes=True),
            SUBJECT,
            lambda run, knows: operations.append(run, SUBJECT, id_, knows, items),
        )

    async def info(self) -> operations.Description:
        return await self.keeper.look(
            self.begin("info", changes=False),
            SUBJECT,
            lambda run, knows: operations.info(run, SUBJECT, knows),
        )

    async def read(self) -> operations.Reading:
        return await self.keeper.look(
            self.begin("read", changes=False),
            SUBJECT,
            lambda run, knows: operations.read(run, SUBJECT, knows, 0),
        )

    @property
    def record(self) -> Any:
        return self.keeper._journal.record(SUBJECT)


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ((4,), "versions 4"),
        ((4, 5, 6), "versions 4-6"),
        ((1, 3, 4, 9), "versions 1, 3-4, 9"),
        (tuple(range(1, 17, 2)), "versions 1, 3, 5, 7, 9, 11, 13, 15"),
        (tuple(range(1, 99, 2)), "versions 1, 3, 5, 7, 9, 11, 13, 15, …"),
    ],
)
def test_versions_are_named_as_ranges_and_only_the_first_few(versions: tuple[int, ...], text: str) -> None:
    assert lost_in_words(versions).endswith(f"({text})")


def test_changes_are_counted_in_words() -> None:
    assert "lost 1 change that" in lost_in_words((7,))
    assert "lost 2 changes that" in lost_in_words((7, 9))


async def test_what_is_missing_and_known_is_put_back_before_the_operation_goes_on() -> None:
    server = Server(
        append=[[APPLIED, 1, b""], [APPLIED, 2, b""], [BEHIND, 1], [APPLIED, 3, b""]],
        survey=[found(1, an_id(1), claim=2)],
        restore=[[APPLIED, 2]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    before = counters()["changes_restored"]
    change = await process.append(b"three", id_=an_id(3))
    assert server.asked == ["append"] * 3 + ["survey", "restore", "append"]
    assert (change.version, counters()["changes_restored"]) == (3, before + 1)
    restored = server.requests[4]
    assert (restored.knows(), restored.arguments) == ((1, an_id(1)), (2, 2, 0, 0, 1, 0, 1, 2, an_id(2), b"two"))
    assert process.record.knows() == (3, an_id(3))


async def test_what_others_may_know_is_waited_for_and_what_is_known_here_is_handed_over() -> None:
    other = Unit(2, an_id(2), an_id(1), Effect(push=(b"two",)))
    server = Server(
        append=[[APPLIED, 1, b""], [APPLIED, 3, an_id(2)], [APPLIED, 4, b""]],
        info=[described(1, 1), described(3, 3)],
        survey=[found(1, an_id(1)), found(1, an_id(1), claim=3), found(1, an_id(1), claim=3, parked=(other,))],
        restore=[[APPLIED, 3]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    await process.info()
    first, second, third = [request for request in server.requests if request.script.name == "survey"]
    assert (first.knows(), first.arguments[2:]) == ((0, b""), ())
    assert second.knows() == third.knows() == (3, an_id(3))
    assert second.arguments[2:] == third.arguments[2:] == ("3:change", pack(process.record.units[3]))
    (restored,) = [request for request in server.requests if request.script.name == "restore"]
    assert restored.arguments[-2:] == (b"two", b"three")
    assert server.asked[-1] == "info"


def loss() -> Server:
    """Return a server that lost version 2, which nobody knows, and 3."""
    return Server(
        append=[[APPLIED, 1, b""], [APPLIED, 3, an_id(2)], [BEHIND, 1], [APPLIED, 4, b""]],
        survey=[found(1, an_id(1), claim=3, age_ms=1000), found(1, an_id(1), claim=3, age_ms=2001)],
        restore=[[APPLIED, 3]],
    )


async def test_what_nobody_knows_is_given_up_after_the_patience_and_told_once() -> None:
    server = loss()
    process = Process(server, patience_seconds=2)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    before = counters()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert (caught.value.versions, caught.value.outcome) == ((2,), Outcome.NOT_APPLIED)
    assert "the servers lost 1 change that had been confirmed (versions 2)" in str(caught.value)
    assert server.asked == ["append"] * 3 + ["survey", "survey", "restore"]
    assert counters()["changes_lost"] == before["changes_lost"] + 1
    assert counters()["changes_restored"] == before["changes_restored"] + 1
    assert (await process.append(b"four", id_=an_id(4))).version == 4


async def test_a_loss_is_only_noted_where_that_is_wanted() -> None:
    server = loss()
    process = Process(server, patience_seconds=2, on_loss="warn")
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    before = counters()["changes_lost"]
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert counters()["changes_lost"] == before + 1


def fork(append: list[Any]) -> Server:
    """Return a server that lost versions 2 and 3 of this process, and on which another made the second anew."""
    return Server(
        append=[[APPLIED, 1, b""], [APPLIED, 2, b""], [APPLIED, 3, b""], [BEHIND, 2], *append],
        survey=[found(2, b"another-changes2", an_id(1), claim=3)],
        restore=[[APPLIED, 2]],
    )


async def test_late_appends_are_put_at_the_end_once_others_may_write_again() -> None:
    server = fork([[APPLIED, 3, b"another-changes2"], [APPLIED, 4, b""], [APPLIED, 5, b""]])
    process = Process(server, written_on="append")
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    before = counters()
    assert (await process.append(b"4", id_=an_id(4))).version == 5
    assert server.asked[4:] == ["survey", "restore", "append", "append", "append"]
    assert [request.head[0] for request in server.requests[6:]] == [an_id(2), an_id(3), an_id(4)]
    assert counters()["changes_restored"] == before["changes_restored"] + 2
    assert counters()["changes_lost"] == before["changes_lost"]


async def test_late_appends_that_are_not_taken_are_lost_and_not_said_to_be_there() -> None:
    server = fork([[APPLIED, 3, b"another-changes2"], [BEHIND, 3]])
    process = Process(server, written_on="append")
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    before = counters()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (3,)
    assert counters()["changes_restored"] == before["changes_restored"] + 1
    assert counters()["changes_lost"] == before["changes_lost"] + 1


async def test_where_others_wrote_on_all_of_ones_own_is_lost() -> None:
    server = fork([[APPLIED, 3, b"another-changes2"]])
    process = Process(server)
    for version in (1, 2, 3):
        await process.append(b"%d" % version, id_=an_id(version))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"4", id_=an_id(4))
    assert caught.value.versions == (2, 3)
    assert (await process.append(b"4", id_=an_id(4))).version == 3
    assert process.record.ids[2] == b"another-changes2"


def after_two_failovers(*parked: Any) -> Server:
    """Return a server that lost version 2 of this process, and on which another parked what it knew as 2 and 3."""
    return Server(
        append=[[APPLIED, 1, b""], [APPLIED, 2, b""], [BEHIND, 1], [APPLIED, 4, b""]],
        survey=[found(1, an_id(1), claim=3, parked=parked)],
        restore=[[APPLIED, 3]],
    )


THIRD = Unit(3, b"another-changes3", b"another-changes2", Effect(push=(b"another 3",)))


async def test_ones_own_change_is_put_back_rather_than_anothers_of_the_same_version() -> None:
    other = Unit(2, b"another-changes2", an_id(1), Effect(push=(b"another 2",)))
    server = after_two_failovers(other, THIRD)
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    await process.append(b"four", id_=an_id(4))
    (restored,) = [request for request in server.requests if request.script.name == "restore"]
    assert restored.arguments[-2:] == (b"two", b"another 3")


async def test_ones_own_change_that_anothers_reading_takes_the_place_of_is_lost() -> None:
    there = ((1, an_id(1)), (2, b"another-changes2"))
    reading = Sight(2, 0, 2, 2, b"one,1,another 2", b",1,", there)
    server = after_two_failovers(reading, THIRD)
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    with pytest.raises(HistoryLostError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert caught.value.versions == (2,)
    assert (await process.append(b"four", id_=an_id(4))).version == 4
    assert 2 not in process.record.units


async def test_what_is_missing_on_the_server_that_had_it_was_deleted() -> None:
    server = Server(
        append=[[APPLIED, 1, b""], [APPLIED, 2, b""], [BEHIND, 0], [APPLIED, 1, b""]],
        survey=[found(0, claim=2, length=0)],
        restore=[[APPLIED, 0]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    before = counters()
    assert (await process.append(b"three", id_=an_id(3))).version == 1
    assert server.asked[3:] == ["survey", "restore", "append"]
    assert server.requests[4].arguments == (2, 0, 0, 0, 0, 0, 0)  # nothing is put back; others may write again
    assert counters() == before


async def test_a_restoration_that_comes_second_looks_again() -> None:
    server = Server(
        append=[[APPLIED, 1, b""], [APPLIED, 2, b""], [BEHIND, 1], [APPLIED, 3, b""]],
        survey=[found(1, an_id(1), claim=2), found(2, an_id(2), an_id(1))],
        restore=[[CONFLICT, 2]],
    )
    process = Process(server)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"two", id_=an_id(2))
    server.becomes_another()
    before = counters()["changes_restored"]
    assert (await process.append(b"three", id_=an_id(3))).version == 3
    assert server.asked[3:] == ["survey", "restore", "survey", "append"]
    assert counters()["changes_restored"] == before


async def test_waiting_for_others_ends_at_the_deadline() -> None:
    server = Server(
        append=[[APPLIED, 1, b""], [APPLIED, 3, an_id(2)], [BEHIND, 1]],
        survey=[found(1, an_id(1), claim=3, age_ms=1)],
    )
    process = Process(server, patience_seconds=60)
    await process.append(b"one", id_=an_id(1))
    await process.append(b"three", id_=an_id(3))
    server.becomes_another()
    with pytest.raises(DeadlineExceededError) as caught:
        await process.append(b"four", id_=an_id(4))
    assert "others are still putting back" in str(caught.value)
    assert caught.value.outcome is Outcome.NOT_APPLIED


async def test_one_task_a_session_settles_and_the_others_wait() -> None:
    at_once: list[int] = []
    under_way = 0

    async def survey(request: Any) -> Any:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        for _ in range(3):
            await asyncio.sleep(0)
        under_way -= 1
        return found(1, an_id(1))

    server = Server(survey=[survey])
    process = Process(server, RetryConfig(deadline_seconds=30))

    async def settle(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await process.keeper._settle(process.begin("info", changes=False), SUBJECT)

    await asyncio.gather(*(settle(turns) for turns in range(40)))
    assert (len(at_once), set(at_once)) == (40, {1})
    assert len(process.keeper._locks) == 0


async def test_the_changes_that_a_reading_names_stay_few() -> None:
    # Each reading takes the ids of the last one along: a session that lives long must not grow in memory.
    async def read(request: Any) -> Any:
        version = len(server.requests)
        return [[*described(1, version)[:7], [an_id(version), b"%d" % version]], 1, [b"{}"]]

    server = Server(read=[read])
    process = Process(server)
    for _ in range(1500):
        await process.read()
    members = process.record.whole.members
    assert {version for version, _ in members} == set(range(1500 - 1023, 1501))


async def test_nothing_is_kept_where_nothing_may_be_kept() -> None:
    server = Server(append=[[APPLIED, 1, b""]], read=[[described(1, 1), 1, [b"{}"]]], info=[described(0, 0)])
    process = Process(server, max_changes=0)
    await process.append(b"one", id_=an_id(1))
    await process.read()
    assert (await process.info()).version == 0  # a loss that is not noticed
    assert len(process.keeper._journal) == 0
    assert {request.knew for request in server.requests} == {(0, b"")}


async def test_after_a_restart_the_other_sessions_are_looked_at_in_the_background() -> None:
    server = Server(
        append=[[APPLIED, 1, b""]],
        info=[described(1, 1)],
        survey=[found(1, an_id(1))],
    )
    process = Process(server)
    others = [Subject(session_keys("p", name), name) for name in ("a", "b", "c")]
    for other in others:
        process.keeper._journal.record(other).see(1, an_id(1), (server.node.name, "1f"), None)
    await process.append(b"one", id_=an_id(1))
    assert process.keeper._sweep is None
    server.becomes_another()
    await process.info()
    assert process.keeper._sweep is not None
    await asyncio.wait_for(asyncio.shield(process.keeper._sweep), 5)
    looked_at = [request.keys for request in server.requests if request.script.name == "survey"]
    assert looked_at == [other.keys for other in reversed(others)]  # those used last first
    assert {process.keeper._journal.record(other).tenure[1] for other in others} == {"2e"}  # type: ignore[index]
    await process.info()
    assert server.asked.count("survey") == 3
    await process.keeper.aclose()


async def test_closing_ends_the_look_at_the_other_sessions() -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    server = Server(info=[described(1, 1)], survey=[hang])
    process = Process(server, RetryConfig(deadline_seconds=50))
    other = Subject(session_keys("p", "other"), "other")
    process.keeper._journal.record(other).see(1, an_id(1), (server.node.name, "0d"), None)
    process.record.see(1, an_id(1), (server.node.name, "0d"), None)
    await process.info()
    await asyncio.sleep(0.01)
    await asyncio.wait_for(process.keeper.aclose(), 5)
    assert (server.closed, server.asked) == (1, ["info", "survey"])
    assert asyncio.all_tasks() == {asyncio.current_task()}
