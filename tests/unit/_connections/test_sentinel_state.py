"""What is made of one Sentinel's replies."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import Address
from agents_redis_ha import _ambient as ambient
from agents_redis_ha._connections.sentinel_state import SentinelState, ask

NOW = 5000.0
LONG = 100.0
OLD, NEW = ("old", 1), ("new", 2)


class Sentinel:
    """Answers as redis-py parses it: `fields` of its primary, whom it names, and the flags of its replicas."""

    def __init__(self, **fields: Any) -> None:
        self.fields = {
            "ip": "old",
            "port": 1,
            "config-epoch": 7,
            "is_sdown": False,
            "is_odown": False,
            "down-after-milliseconds": 3000,
            "last-ping-sent": 0,
            "quorum": 2,
            **{name.replace("_", "-") if name[:3] != "is_" else name: value for name, value in fields.items()},
        }
        self.named: tuple[str | bytes, int | str] | None = OLD
        self.others: Any = [("id-2", "s", 2), ("id-3", "s", 3)]
        self.replicas: Any = [("new", 2, "slave,promoted"), ("third", 3, "slave")]
        self.asked: list[str] = []

    async def sentinel_master(self, service: str) -> dict[str, Any]:
        self.asked.append(service)
        return self.fields

    async def sentinel_get_master_addr_by_name(self, service: str) -> Any:
        self.asked.append(service)
        return self.named

    async def sentinel_slaves(self, service: str) -> list[dict[str, Any]]:
        self.asked.append(f"replicas of {service}")
        if isinstance(self.replicas, Exception):
            raise self.replicas
        return [{"ip": ip, "port": port, "flags": flags} for ip, port, flags in self.replicas]

    async def sentinel_sentinels(self, service: str) -> list[dict[str, Any]]:
        self.asked.append(f"others of {service}")
        if isinstance(self.others, Exception):
            raise self.others
        return [{"runid": each, "ip": ip, "port": port} for each, ip, port in self.others]


@pytest.fixture(autouse=True)
def _at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ambient, "monotonic", lambda: NOW)


async def state(sentinel: Sentinel, lease_seconds: float = LONG, *, list_others: bool = False) -> SentinelState:
    return await ask(sentinel, "m", lease_seconds, list_others=list_others)  # type: ignore[arg-type]


async def test_a_sentinel_at_rest_tells_primary_epoch_and_quorum() -> None:
    sentinel = Sentinel()
    assert await state(sentinel) == SentinelState(Address("old", 1), 7, False, NOW + 3, 2, None)
    assert sentinel.asked == ["m", "m"]


@pytest.mark.parametrize(("lease_seconds", "until"), [(1.5, 1.5), (3.0, 3.0), (9.0, 3.0)])
async def test_a_word_holds_no_longer_than_it_was_asked_for(lease_seconds: float, until: float) -> None:
    assert (await state(Sentinel(), lease_seconds)).lease_until == NOW + until


@pytest.mark.parametrize(("silent_ms", "until"), [(0, 1.5), (1200, 1.5), (2200, 0.5), (9000, -6.3)])
async def test_a_word_counts_from_the_time_when_the_primarys_answer_to_the_sentinel_was_due(
    silent_ms: int, until: float
) -> None:
    found = await state(Sentinel(last_ok_ping_reply=silent_ms, down_after_milliseconds=30_000), 1.5)
    assert found.lease_until == pytest.approx(NOW + until)


@pytest.mark.parametrize(("disconnected", "until"), [(False, 3.0), (True, 2.2)])
async def test_without_a_connection_a_sentinels_patience_counts_from_the_last_answer(
    disconnected: bool, until: float
) -> None:
    found = await state(Sentinel(last_ok_ping_reply=800, is_disconnected=disconnected))
    assert found.lease_until == pytest.approx(NOW + until)


async def test_a_sentinel_tells_how_many_there_are_and_where_the_others_are() -> None:
    sentinel = Sentinel(num_other_sentinels=4)
    assert ((await state(sentinel)).sentinels, (await state(sentinel)).others) == (5, None)
    assert "others of m" not in sentinel.asked
    found = await state(sentinel, list_others=True)
    assert (found.sentinels, found.others) == (5, {"id-2": Address("s", 2), "id-3": Address("s", 3)})


async def test_a_sentinel_that_may_not_list_the_others_tells_the_rest() -> None:
    sentinel = Sentinel(num_other_sentinels=2)
    sentinel.others = redis_errors.NoPermissionError("no")
    found = await state(sentinel, list_others=True)
    assert (found.address, found.sentinels, found.others) == (Address("old", 1), 3, None)


@pytest.mark.parametrize(("run_id", "other", "same"), [("r", "r", True), ("r", "q", False), ("", "", False)])
async def test_two_spellings_name_the_same_primary_if_they_name_the_same_process(
    run_id: str, other: str, same: bool
) -> None:
    spelled, respelled = Sentinel(runid=run_id), Sentinel(runid=other, ip="10.0.0.1")
    respelled.named = ("10.0.0.1", 1)
    assert (await state(spelled)).names(await state(spelled))
    assert (await state(spelled)).names(await state(respelled)) is same


async def test_the_run_id_of_the_old_primary_is_not_that_of_the_promoted_one() -> None:
    sentinel = Sentinel(runid="r", failover_state="reconf_slaves")
    sentinel.named = NEW
    assert (await state(sentinel)).run_id is None


@pytest.mark.parametrize(
    ("down_after_ms", "ping_sent_ms", "seconds"),
    [(3000, 0, 3.0), (3000, 1200, 1.8), (3000, 3000, 0.0), (3000, 4500, -1.5)],
)
async def test_the_lease_lasts_until_the_open_ping_is_too_old(
    down_after_ms: int, ping_sent_ms: int, seconds: float
) -> None:
    sentinel = Sentinel(**{"down-after-milliseconds": down_after_ms, "last-ping-sent": ping_sent_ms})
    assert (await state(sentinel)).lease_until == NOW + seconds


async def test_the_lease_counts_from_before_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([NOW, NOW + 1, NOW + 2])
    monkeypatch.setattr(ambient, "monotonic", lambda: next(times))
    assert (await state(Sentinel())).lease_until == NOW + 3


async def test_a_sentinel_that_does_not_tell_its_patience_grants_no_lease() -> None:
    sentinel = Sentinel()
    del sentinel.fields["down-after-milliseconds"], sentinel.fields["last-ping-sent"], sentinel.fields["quorum"]
    found = await state(sentinel)
    assert (found.lease_until, found.quorum) == (NOW, 1)


@pytest.mark.parametrize(("sdown", "odown", "down"), [(False, False, False), (True, False, True), (False, True, True)])
async def test_a_primary_is_down_by_this_sentinels_view_or_by_the_majoritys(
    sdown: bool, odown: bool, down: bool
) -> None:
    assert (await state(Sentinel(is_sdown=sdown, is_odown=odown))).down is down


async def test_the_flags_of_the_old_primary_say_nothing_of_the_promoted_one() -> None:
    sentinel = Sentinel(is_sdown=True, is_odown=True, failover_state="reconf_slaves")
    sentinel.named = NEW
    found = await state(sentinel)
    assert (found.address, found.down, found.promoted_replica) == (Address("new", 2), False, None)


@pytest.mark.parametrize(("named", "address"), [((b"new", b"2"), ("new", 2)), (("new", "2"), ("new", 2)), (None, OLD)])
async def test_an_address_may_come_as_text_or_as_bytes_or_not_at_all(named: Any, address: Any) -> None:
    sentinel = Sentinel()
    sentinel.named = named
    assert (await state(sentinel)).address == address


@pytest.mark.parametrize("failover_state", ["send_slaveof_noone", "wait_promotion"])
async def test_a_replica_that_is_chosen_and_not_yet_promoted_is_told(failover_state: str) -> None:
    assert (await state(Sentinel(failover_state=failover_state))).promoted_replica == Address("new", 2)


@pytest.mark.parametrize("failover_state", ["none", "wait_start", "select_slave", "reconf_slaves", "update_config"])
async def test_in_no_other_state_replicas_are_asked_for(failover_state: str) -> None:
    sentinel = Sentinel(failover_state=failover_state)
    assert (await state(sentinel)).promoted_replica is None
    assert sentinel.asked == ["m", "m"]


@pytest.mark.parametrize(
    "replicas",
    [
        [("third", 3, "slave")],
        [],
        redis_errors.NoPermissionError("no"),
        redis_errors.ResponseError("ERR No such master with that name"),
    ],
)
async def test_without_a_chosen_replica_in_the_list_or_the_right_to_it_none_is_told(replicas: Any) -> None:
    sentinel = Sentinel(failover_state="wait_promotion")
    sentinel.replicas = replicas
    assert (await state(sentinel)).promoted_replica is None


async def test_a_sentinel_that_breaks_off_while_it_lists_replicas_has_not_answered() -> None:
    sentinel = Sentinel(failover_state="wait_promotion")
    sentinel.replicas = redis_errors.ConnectionError("lost")
    with pytest.raises(redis_errors.ConnectionError):
        await state(sentinel)
