"""What metrics say and when they are recorded, and the same totals without OpenTelemetry."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions as redis_errors

from agents_redis_ha import HAConfig, PermissionDeniedError, ha_turn
from agents_redis_ha._config import Topology
from agents_redis_ha._retry import Executor
from agents_redis_ha._telemetry import PoolUse, counters, instruments, note_corrupt, note_failovers, watch_pools
from tests.support.fakes import FakeLocator, described, failed
from tests.support.observed_sessions import (
    APPLIED,
    HASHED,
    ID,
    REPEAT,
    RETRY,
    SERVER,
    operation,
    session,
    taking_turns,
    unconfirmed,
)
from tests.support.recording import Telemetry
from tests.support.virtual_time import in_virtual_time


async def test_an_exemplar_of_the_latency_leads_to_the_operations_span(telemetry: Telemetry) -> None:
    await session(APPLIED).add_items([{"a": 1}])
    (point,) = telemetry.metrics()["db.client.operation.duration"].data.data_points
    (exemplar,) = point.exemplars
    span = telemetry.span().context
    assert (exemplar.trace_id, exemplar.span_id) == (span.trace_id, span.span_id)


def durations(telemetry: Telemetry) -> int:
    """Return how many durations a collection finds."""
    return sum(p.count for p in telemetry.metrics()["db.client.operation.duration"].data.data_points)


@pytest.mark.parametrize("number", [1, 7, 8, 9, 100])
def test_a_collection_finds_every_duration_once(telemetry: Telemetry, number: int) -> None:
    for _ in range(number):
        operation("read", topology="standalone", show="off").finish()
    assert durations(telemetry) == number
    assert durations(telemetry) == number


def test_durations_are_recorded_by_eight(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[float] = []
    histogram = SimpleNamespace(record=lambda seconds, *_: recorded.append(seconds))
    monkeypatch.setattr(instruments.INSTRUMENTS, "duration", histogram)
    counts = []
    for _ in range(17):
        operation("read", topology="standalone", show="off").finish()
        counts.append(len(recorded))
    assert counts == [0] * 7 + [8] * 8 + [16] * 2  # those that are never collected do not pile up


def test_durations_of_threads_are_recorded_once_while_metrics_are_collected(telemetry: Telemetry) -> None:
    def read() -> None:
        for _ in range(500):
            operation("read", topology="standalone", show="off").finish()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        telemetry.metrics()
    assert durations(telemetry) == 2000


async def everything(telemetry: Telemetry) -> None:
    """Make every instrument record."""
    locator = FakeLocator(failed(redis_errors.BusyLoadingError("x")), REPEAT)
    locator.failovers = ["h:1", None]
    await session(locator=locator).add_items([{"a": 1}])
    await session([described(2, 5), 2, [b"{},1,x"]]).get_items()
    with pytest.raises(PermissionDeniedError):
        await session(failed(redis_errors.NoPermissionError("x"))).clear_session()
    await unconfirmed()
    check = operation("check")
    check.restored(3)
    check.lost((4, 6))
    check.finish()
    async with ha_turn(taking_turns(), "t1", "hello") as turn:
        turn.answer()


@in_virtual_time
async def test_metrics_have_the_documented_names_units_and_descriptions(telemetry: Telemetry) -> None:
    await everything(telemetry)
    owner = Owner(PoolUse("h:1", 0, 1, 32, 0))
    watch_pools(owner)
    found = telemetry.metrics()
    assert {name: metric.unit for name, metric in found.items()} == {
        "db.client.operation.duration": "s",
        "agents_redis_ha.retries": "{retry}",
        "agents_redis_ha.repeats_suppressed": "{operation}",
        "agents_redis_ha.failovers": "{failover}",
        "agents_redis_ha.corrupt_items": "{item}",
        "agents_redis_ha.unconfirmed": "{operation}",
        "agents_redis_ha.changes_restored": "{change}",
        "agents_redis_ha.changes_lost": "{change}",
        "agents_redis_ha.turns_ended": "{turn}",
        "agents_redis_ha.turn.count": "{turn}",
        "agents_redis_ha.turn.duration": "s",
        "agents_redis_ha.turn.wait_time": "s",
        "db.client.connection.count": "{connection}",
        "db.client.connection.max": "{connection}",
        "db.client.connection.pending_requests": "{request}",
    }
    assert all(metric.description for metric in found.values())


@in_virtual_time
async def test_metrics_count_by_operation_topology_and_reason(telemetry: Telemetry) -> None:
    await everything(telemetry)
    topology = {"agents_redis_ha.topology": "sentinel"}
    assert telemetry.points("agents_redis_ha.retries") == [
        ({"db.operation.name": "append", "agents_redis_ha.retry.reason": "loading", **topology, **SERVER}, 1)
    ]
    assert telemetry.points("agents_redis_ha.failovers") == [({**topology, **SERVER}, 1), (topology, 1)]
    (corrupt,) = telemetry.points("agents_redis_ha.corrupt_items")
    assert corrupt[0] == topology
    assert telemetry.points("agents_redis_ha.unconfirmed") == [
        ({"db.operation.name": "append", **topology, **SERVER}, 1)
    ]
    assert telemetry.points("agents_redis_ha.changes_restored") == [(topology, 3)]
    assert telemetry.points("agents_redis_ha.changes_lost") == [(topology, 2)]
    durations = [attributes for attributes, _ in telemetry.points("db.client.operation.duration")]
    by_operation = {a["db.operation.name"]: a for a in durations}
    assert set(by_operation) == {"append", "read", "clear", "check", "turn_begin", "turn_finish"}
    assert all(a["db.system.name"] == "redis" and a["agents_redis_ha.topology"] == "sentinel" for a in durations)
    assert by_operation["clear"]["error.type"] == "PermissionDeniedError"
    assert "error.type" not in by_operation["append"]
    assert by_operation["append"].items() >= SERVER.items()


@in_virtual_time
async def test_no_metric_attribute_holds_a_session_id_or_anything_unbounded(telemetry: Telemetry) -> None:
    await everything(telemetry)
    for name in telemetry.metrics():
        for attributes, _ in telemetry.points(name):
            assert set(attributes) <= {
                "db.system.name",
                "db.operation.name",
                "agents_redis_ha.topology",
                "agents_redis_ha.retry.reason",
                "agents_redis_ha.turn.status",
                "agents_redis_ha.turn.state",
                "error.type",
                "server.address",
                "server.port",
                "db.client.connection.pool.name",
                "db.client.connection.state",
            }
            assert not {ID, HASHED} & set(attributes.values())


@in_virtual_time
async def test_counters_are_totals_since_the_start_and_a_copy(telemetry: Telemetry) -> None:
    assert counters() == {
        "retries": 0,
        "repeats_suppressed": 0,
        "failovers": 0,
        "corrupt_items": 0,
        "unconfirmed": 0,
        "changes_restored": 0,
        "changes_lost": 0,
    }
    await everything(telemetry)
    found = counters()
    assert (found["retries"], found["repeats_suppressed"], found["failovers"]) == (1, 1, 2)
    assert found["corrupt_items"] >= 1
    assert (found["unconfirmed"], found["changes_restored"], found["changes_lost"]) == (1, 3, 2)
    found["retries"] = 99
    assert counters()["retries"] == 1


def test_nothing_is_noted_where_nothing_happened(telemetry: Telemetry) -> None:
    note_failovers("cluster", [])
    note_corrupt("cluster", 0)
    assert telemetry.metrics() == {}


class Owner:
    def __init__(self, *uses: PoolUse) -> None:
        self.uses = uses

    def pools(self) -> dict[Topology, tuple[PoolUse, ...]]:
        return {"cluster": self.uses}


def test_the_connections_to_a_node_are_summed_over_all_that_have_some(telemetry: Telemetry) -> None:
    owners = [Owner(PoolUse("a:1", 1, 2, 32, 3), PoolUse("b:2", 0, 1, 32, 0)), Owner(PoolUse("a:1", 4, 0, 8, 1))]
    for owner in owners:
        watch_pools(owner)
    a, b = (
        {
            "agents_redis_ha.topology": "cluster",
            "db.client.connection.pool.name": f"{host}:{port}",
            "server.address": host,
            "server.port": port,
        }
        for host, port in (("a", 1), ("b", 2))
    )
    used, idle = ({"db.client.connection.state": state} for state in ("used", "idle"))
    expected = [({**a, **used}, 5), ({**a, **idle}, 2), ({**b, **used}, 0), ({**b, **idle}, 1)]
    assert in_order(telemetry.points("db.client.connection.count")) == in_order(expected)
    assert in_order(telemetry.points("db.client.connection.max")) == in_order([(a, 40), (b, 32)])
    assert in_order(telemetry.points("db.client.connection.pending_requests")) == in_order([(a, 4), (b, 0)])
    owners.clear()
    del owner
    gc.collect()
    assert telemetry.points("db.client.connection.max") == []


def in_order(points: list[tuple[dict[str, Any], Any]]) -> list[Any]:
    return sorted((sorted(attributes.items()), value) for attributes, value in points)


async def test_a_closed_executor_has_no_connections(telemetry: Telemetry) -> None:
    config = HAConfig(nodes=["h"], retry=RETRY)
    locator = FakeLocator(APPLIED)
    locator.nodes = lambda: [SimpleNamespace(use=PoolUse("h:1", 0, 1, 32, 0))]  # type: ignore[method-assign]
    running = Executor(config, locator)
    assert [value for _, value in telemetry.points("db.client.connection.max")] == [32]
    await running.aclose()
    assert telemetry.points("db.client.connection.max") == []
