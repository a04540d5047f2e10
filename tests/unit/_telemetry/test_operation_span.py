"""What spans and metrics say, and what they never hold."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from redis import exceptions as redis_errors
from tests.unit._telemetry.conftest import FakeLocator, described, failed

from agents_redis_ha import DurabilityConfig, HAConfig, OperationError, Outcome, PermissionDeniedError, RetryConfig
from agents_redis_ha._config.model import Topology
from agents_redis_ha._connections.failures import ShortfallError
from agents_redis_ha._connections.node import PoolUse
from agents_redis_ha._recovery.coordinator import Keeper
from agents_redis_ha._retry import Executor
from agents_redis_ha._sessions.session import RedisHASession
from agents_redis_ha._telemetry import (
    FailedAttempt,
    Observation,
    counters,
    hashed,
    note_corrupt,
    note_failovers,
    observation,
    watch_pools,
)
from tests.support.recording import Telemetry

ID = "s3cr3t-session-id"
SERVER = {"server.address": "h", "server.port": 1}
HASHED = hashlib.sha256(ID.encode()).hexdigest()[:16]
RETRY = RetryConfig(deadline_seconds=5, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)


def session(locator: FakeLocator, **fields: Any) -> RedisHASession:
    config = HAConfig(**{"nodes": ["h"], "retry": RETRY, **fields})
    keeper = Keeper(config, Executor(config, locator))
    return RedisHASession(config, ID, lambda: keeper)


async def test_a_span_says_what_was_done_where_and_how_often(telemetry: Telemetry) -> None:
    await session(FakeLocator([1, 5, b""])).add_items([{"a": 1}, {"a": 2}])
    span = telemetry.span()
    assert (span.name, span.kind, span.status.status_code) == ("append", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "db.system.name": "redis",
        "db.operation.name": "append",
        "db.operation.batch.size": 2,
        "gen_ai.conversation.id": HASHED,
        "server.address": "h",
        "server.port": 1,
        "agents_redis_ha.topology": "sentinel",
        "agents_redis_ha.attempts": 1,
    }
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "agents_redis_ha"


@pytest.mark.parametrize(("show", "expected"), [("hashed", HASHED), ("plain", ID), ("off", None)])
async def test_the_session_id_is_in_a_span_only_as_asked_for(telemetry: Telemetry, show: str, expected: Any) -> None:
    await session(FakeLocator([1, 5, b""]), trace_session_id=show).add_items([{"a": 1}])
    span = telemetry.span()
    assert (span.attributes or {}).get("gen_ai.conversation.id") == expected
    assert (ID in span.to_json()) is (show == "plain")


def test_any_id_can_be_hashed_and_equal_ids_hash_alike() -> None:
    assert hashed("\ud800") != hashed("\ud801")
    assert hashed(ID) == HASHED
    assert len(hashed("")) == 16


async def test_each_attempt_of_a_disturbed_operation_is_a_span_with_node_reason_and_wait(telemetry: Telemetry) -> None:
    failures = [
        failed(redis_errors.BusyLoadingError("loading the dataset"), node="a:1"),
        failed(redis_errors.TimeoutError("x"), node=None),
    ]
    await session(FakeLocator(*failures, [1, 5, b""])).add_items([{"a": 1}])
    whole = telemetry.span()
    assert (whole.attributes or {})["agents_redis_ha.attempts"] == 3
    assert (whole.attributes or {})["server.address"] == "h"
    assert whole.status.status_code is StatusCode.UNSET
    spans = telemetry.attempts()
    assert {span.parent.span_id for span in spans if span.parent} == {whole.context.span_id}
    assert {span.kind for span in spans} == {SpanKind.CLIENT}
    attributes = [dict(span.attributes or {}) for span in spans]
    waits = [found.pop("agents_redis_ha.retry.wait", None) for found in attributes]
    assert [wait is None or 0 <= wait <= 0.0002 for wait in waits] == [True] * 3  # type: ignore[operator]
    assert waits[2] is None
    assert attributes == [
        {
            "db.system.name": "redis",
            "agents_redis_ha.attempt": 1,
            "server.address": "a",
            "server.port": 1,
            "error.type": "BusyLoadingError",
            "agents_redis_ha.retry.reason": "loading",
        },
        {
            "db.system.name": "redis",
            "agents_redis_ha.attempt": 2,
            "error.type": "TimeoutError",
            "agents_redis_ha.retry.reason": "timeout",
        },
        {"db.system.name": "redis", "agents_redis_ha.attempt": 3, "server.address": "h", "server.port": 1},
    ]
    assert [(span.status.status_code, span.status.description) for span in spans] == [
        (StatusCode.ERROR, "BusyLoadingError: loading the dataset"),
        (StatusCode.ERROR, "TimeoutError: x"),
        (StatusCode.UNSET, None),
    ]


async def test_attempts_follow_each_other_within_the_operation(telemetry: Telemetry) -> None:
    await session(FakeLocator(*[failed(redis_errors.BusyLoadingError("x"))] * 3, [1, 5, b""])).add_items([{"a": 1}])
    whole, spans = telemetry.span(), telemetry.attempts()
    times = [time for span in spans for time in (span.start_time or 0, span.end_time or 0)]
    assert len(times) == 8
    assert times == sorted(times)
    assert (whole.start_time or 0) <= times[0]
    assert times[-1] <= (whole.end_time or 0)


async def test_an_undisturbed_operation_has_no_attempts(telemetry: Telemetry) -> None:
    await session(FakeLocator([1, 5, b""])).add_items([{"a": 1}])
    assert telemetry.attempts() == []


async def test_the_attempt_that_fails_for_good_is_shown_too(telemetry: Telemetry) -> None:
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("not you")))).get_items()
    (span,) = telemetry.attempts()
    assert span.status.description == "NoPermissionError: not you"
    assert "agents_redis_ha.retry.wait" not in (span.attributes or {})
    assert (telemetry.span().attributes or {})["agents_redis_ha.attempts"] == 1


async def test_an_attempt_that_the_deadline_cut_off_says_so(telemetry: Telemetry) -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    retry = RetryConfig(deadline_seconds=0.1, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)
    with pytest.raises(OperationError, match="loading"):
        await session(FakeLocator(failed(redis_errors.BusyLoadingError("loading")), hang), retry=retry).get_items()
    assert [span.status.description for span in telemetry.attempts()] == [
        "BusyLoadingError: loading",
        "cut off by the deadline",
    ]


async def test_a_failed_span_says_so_with_the_outcome_and_without_a_secret(telemetry: Telemetry) -> None:
    echo = "unknown command, with args beginning with: 's3cr3t-session-id' 's3cr3t-item'"
    with pytest.raises(OperationError):
        await session(FakeLocator(failed(redis_errors.ResponseError(echo), sent=True))).add_items(
            [{"a": "s3cr3t-item"}]
        )
    span = telemetry.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is not None
    assert "append failed on sentinel node h:1" in span.status.description
    assert (span.attributes or {})["error.type"] == "ServerRefusedError"
    assert (span.attributes or {})["agents_redis_ha.outcome"] == "not_applied"
    assert "s3cr3t" not in span.to_json()
    assert span.end_time is not None


async def test_an_error_that_is_not_ours_shows_its_class_only(telemetry: Telemetry) -> None:
    with pytest.raises(KeyError):
        await session(FakeLocator(KeyError("s3cr3t"))).get_items()
    span = telemetry.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert "s3cr3t" not in span.to_json()
    assert "agents_redis_ha.outcome" not in (span.attributes or {})


@pytest.mark.parametrize(
    ("node", "address", "port"),
    [("h:1", "h", 1), ("[::1]:7", "::1", 7), ("/run/redis.sock", "/run/redis.sock", None), (None, None, None)],
)
def test_a_node_is_an_address_and_a_port(telemetry: Telemetry, node: Any, address: Any, port: Any) -> None:
    read = Observation("read", "standalone", ID, "off")
    read.node = node
    read.finish()
    attributes = telemetry.span().attributes or {}
    assert (attributes.get("server.address"), attributes.get("server.port")) == (address, port)


def test_a_socket_path_with_a_colon_does_not_break_a_finished_operation(telemetry: Telemetry) -> None:
    append = Observation("append", "standalone", ID, "off")
    append.request_left("/run/redis:main.sock")
    append.finish()
    assert (telemetry.span().attributes or {})["server.address"] == "/run/redis:main.sock"


async def test_the_callers_span_is_the_parent_and_stays_the_current_one(telemetry: Telemetry) -> None:
    current = []

    async def attempt(request: Any) -> Any:
        current.append(trace.get_current_span())
        return [described(0, 7), 0, []]

    with telemetry.tracers.get_tracer("caller").start_as_current_span("turn") as turn:
        before = context.get_current()
        await session(FakeLocator(attempt)).get_items()
        with pytest.raises(PermissionDeniedError):
            await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).get_items()
        assert context.get_current() == before
    assert current == [turn]
    reads = [span for span in telemetry.spans() if span.name == "read"]
    assert [span.parent for span in reads] == [turn.get_span_context()] * 2


async def test_what_runs_in_the_background_has_a_trace_of_its_own_and_says_why(telemetry: Telemetry) -> None:
    with telemetry.tracers.get_tracer("caller").start_as_current_span("turn") as turn:
        read = Observation("read", "sentinel", ID, "hashed")
        check = Observation("check", "sentinel", ID, "hashed", cause=read)
        check.request_left("h:1")
        check.finish()
        read.finish()
    spans = {span.name: span for span in telemetry.spans()}
    assert spans["check"].parent is None
    assert spans["check"].context.trace_id != turn.get_span_context().trace_id
    assert [link.context for link in spans["check"].links] == [spans["read"].context]


def test_a_line_of_the_log_belongs_to_the_operations_span(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append((record.funcName, trace.get_current_span().get_span_context()))

    written: list[tuple[str, Any]] = []
    monkeypatch.setattr(logging.getLogger("agents_redis_ha"), "handlers", [Handler()])
    append = Observation("append", "sentinel", ID, "hashed")
    append.unconfirmed(SHORTFALL, degraded=True)
    append.restored(1)
    append.lost((1,))
    append.finish()
    span = telemetry.span().context
    assert written == [("unconfirmed", span), ("restored", span), ("lost", span)]


async def test_an_exemplar_of_the_latency_leads_to_the_operations_span(telemetry: Telemetry) -> None:
    await session(FakeLocator([1, 5, b""])).add_items([{"a": 1}])
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
        Observation("read", "standalone", ID, "off").finish()
    assert durations(telemetry) == number
    assert durations(telemetry) == number


def test_durations_that_nobody_collects_do_not_pile_up(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[float] = []
    histogram = SimpleNamespace(record=lambda seconds, *_: recorded.append(seconds))
    monkeypatch.setattr(observation.INSTRUMENTS, "duration", histogram)
    for _ in range(1000):
        Observation("read", "standalone", ID, "off").finish()
    assert len(recorded) > 990


def test_durations_of_threads_are_recorded_once_while_metrics_are_collected(telemetry: Telemetry) -> None:
    def read() -> None:
        for _ in range(500):
            Observation("read", "standalone", ID, "off").finish()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        telemetry.metrics()
    assert durations(telemetry) == 2000


async def test_a_suppressed_repeat_is_noted(telemetry: Telemetry) -> None:
    await session(FakeLocator([0, 5, b""])).add_items([{"a": 1}])
    assert (telemetry.span().attributes or {})["agents_redis_ha.repeat_suppressed"] is True
    what = {"db.operation.name": "append", "agents_redis_ha.topology": "sentinel"}
    assert telemetry.points("agents_redis_ha.repeats_suppressed") == [({**what, **SERVER}, 1)]
    assert counters()["repeats_suppressed"] == 1


async def test_a_change_that_too_few_replicas_confirmed_is_an_event_and_a_warning(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    await unconfirmed()
    span = telemetry.span()
    assert span.status.status_code is StatusCode.UNSET
    (event,) = [event for event in span.events if event.name == "agents_redis_ha.unconfirmed"]
    assert dict(event.attributes or {}) == {"agents_redis_ha.shortfall": SHORTFALL}
    (warning,) = caplog.records
    assert (warning.levelname, warning.name) == ("WARNING", "agents_redis_ha")
    assert warning.getMessage() == f"append on h:1 goes on unconfirmed: {SHORTFALL}"


def test_a_shortfall_that_is_raised_is_not_logged_too(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    append = Observation("append", "sentinel", ID, "hashed")
    append.unconfirmed(SHORTFALL, degraded=False)
    append.finish()
    assert counters()["unconfirmed"] == 1
    assert caplog.records == []


@pytest.mark.parametrize(("show", "expected"), [("hashed", HASHED), ("plain", ID), ("off", "not shown")])
def test_what_was_put_back_or_lost_is_an_event_and_a_line_of_the_log(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture, show: str, expected: str
) -> None:
    read = Observation("read", "sentinel", ID, show)
    read.node = "h:1"
    read.restored(3)
    read.lost((4, 6))
    read.finish()
    assert [(event.name, dict(event.attributes or {})) for event in telemetry.span().events] == [
        ("agents_redis_ha.history_restored", {"agents_redis_ha.versions": 3}),
        ("agents_redis_ha.history_lost", {"agents_redis_ha.versions": 2}),
    ]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"put 3 changes back that h:1 had lost (session {expected})"),
        ("ERROR", f"h:1 lost 2 changes that cannot be put back (session {expected})"),
    ]
    assert (ID in f"{caplog.text} {telemetry.span().to_json()}") is (show == "plain")


async def everything(telemetry: Telemetry) -> None:
    """Make every instrument record."""
    locator = FakeLocator(failed(redis_errors.BusyLoadingError("x")), [0, 5, b""])
    locator.failovers = ["h:1", None]
    await session(locator).add_items([{"a": 1}])
    await session(FakeLocator([described(2, 5), 2, [b"{},1,x"]])).get_items()
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).clear_session()
    await unconfirmed()
    check = Observation("check", "sentinel", ID, "hashed")
    check.restored(3)
    check.lost((4, 6))
    check.finish()


SHORTFALL = "within 500 ms the change was in memory on 0 of 1 replicas"


async def unconfirmed() -> None:
    """Make a change that no replica confirms and that counts all the same."""
    retry = RetryConfig(deadline_seconds=0.6, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)
    durability = DurabilityConfig(replicas=1, timeout_seconds=0.5, on_shortfall="degrade")

    async def attempt(request: Any) -> Any:
        await asyncio.sleep(0.1)
        return failed(ShortfallError(SHORTFALL, [1, 5, b""], 0.5), sent=True, applied=True)

    await session(FakeLocator(attempt), retry=retry, durability=durability).add_items([{"a": 1}])


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
        "db.client.connection.count": "{connection}",
        "db.client.connection.max": "{connection}",
        "db.client.connection.pending_requests": "{request}",
    }
    assert all(metric.description for metric in found.values())


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
    assert set(by_operation) == {"append", "read", "clear", "check"}
    assert all(a["db.system.name"] == "redis" and a["agents_redis_ha.topology"] == "sentinel" for a in durations)
    assert by_operation["clear"]["error.type"] == "PermissionDeniedError"
    assert "error.type" not in by_operation["append"]
    assert by_operation["append"].items() >= SERVER.items()


async def test_no_metric_attribute_holds_a_session_id_or_anything_unbounded(telemetry: Telemetry) -> None:
    await everything(telemetry)
    for name in telemetry.metrics():
        for attributes, _ in telemetry.points(name):
            assert set(attributes) <= {
                "db.system.name",
                "db.operation.name",
                "agents_redis_ha.topology",
                "agents_redis_ha.retry.reason",
                "error.type",
                "server.address",
                "server.port",
                "db.client.connection.pool.name",
                "db.client.connection.state",
            }
            assert not {ID, HASHED} & set(attributes.values())


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


async def test_nothing_is_computed_for_a_span_that_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, record: Callable[..., Telemetry]
) -> None:
    telemetry = record(sampler=ALWAYS_OFF)

    def never(*args: Any) -> Any:
        raise AssertionError("computed for nobody")

    monkeypatch.setattr(observation, "_describe", never)
    before = counters()["retries"]
    await session(FakeLocator(failed(redis_errors.BusyLoadingError("x")), [0, 5, b""])).add_items([{"a": 1}])
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).get_items()
    assert telemetry.spans() == []
    assert counters()["retries"] == before + 1


async def test_without_an_sdk_operations_work_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = counters()["retries"]
    await session(FakeLocator(failed(redis_errors.BusyLoadingError("x")), [1, 5, b""])).add_items([{"a": 1}])
    assert counters()["retries"] == before + 1


def test_outcomes_are_written_as_in_the_errors() -> None:
    assert {outcome.value for outcome in Outcome} == {"not_applied", "applied", "unknown"}


class Owner:
    def __init__(self, *uses: PoolUse) -> None:
        self.uses = uses

    def pools(self) -> dict[Topology, tuple[PoolUse, ...]]:
        return {"cluster": self.uses}


def test_the_connections_to_a_node_are_those_of_all_who_have_some(telemetry: Telemetry) -> None:
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
    locator = FakeLocator([1, 5, b""])
    locator.nodes = lambda: [SimpleNamespace(use=PoolUse("h:1", 0, 1, 32, 0))]  # type: ignore[method-assign]
    running = Executor(config, locator)
    assert [value for _, value in telemetry.points("db.client.connection.max")] == [32]
    await running.aclose()
    assert telemetry.points("db.client.connection.max") == []


def test_an_attempt_that_none_follows_is_no_retry(telemetry: Telemetry) -> None:
    append = Observation("append", "sentinel", ID, "hashed")
    append.failed(FailedAttempt("TimeoutError", "x", "timeout", "h:1", wait_seconds=None))
    append.finish()
    assert append.attempts == 1
    assert counters()["retries"] == 0
