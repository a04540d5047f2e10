"""What spans and metrics say, and what they never hold."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from redis import exceptions as redis_errors

from agents_redis_ha import DurabilityConfig, HAConfig, OperationError, Outcome, PermissionDeniedError, RetryConfig
from agents_redis_ha import session as session_module
from agents_redis_ha import telemetry as installed
from agents_redis_ha.keeper import Keeper
from agents_redis_ha.retry import Executor
from agents_redis_ha.session import RedisHASession
from agents_redis_ha.verdicts import ShortfallError

from .conftest import FakeLocator, described, failed

ID = "s3cr3t-session-id"
HASHED = hashlib.sha256(ID.encode()).hexdigest()[:16]
RETRY = RetryConfig(deadline_seconds=5, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)


class Telemetry:
    """A copy of the module with an SDK behind it: OpenTelemetry's global providers can be set only once a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **tracing: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(**tracing)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider(metric_readers=[self.reader])
        with monkeypatch.context() as patch:
            patch.setattr(trace, "get_tracer", self.tracers.get_tracer)
            patch.setattr(metrics, "get_meter", self.meters.get_meter)
            spec = importlib.util.find_spec(installed.__name__)
            assert spec is not None
            assert spec.loader is not None
            self.module: Any = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.module)
        monkeypatch.setattr(session_module, "Observation", self.module.Observation)
        monkeypatch.setattr(session_module, "note_corrupt", self.module.note_corrupt)
        monkeypatch.setattr("agents_redis_ha.retry.note_failovers", self.module.note_failovers)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        found = self.metrics().get(name)
        return [(dict(p.attributes), getattr(p, "value", None)) for p in found.data.data_points] if found else []


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    made = Telemetry(monkeypatch)
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


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
    assert installed.hashed("\ud800") != installed.hashed("\ud801")
    assert installed.hashed(ID) == HASHED
    assert len(installed.hashed("")) == 16


async def test_each_retry_is_an_event_with_reason_wait_and_node(telemetry: Telemetry) -> None:
    failures = [
        failed(redis_errors.BusyLoadingError("x"), node="a:1"),
        failed(redis_errors.TimeoutError("x"), node=None),
    ]
    await session(FakeLocator(*failures, [1, 5, b""])).add_items([{"a": 1}])
    span = telemetry.span()
    assert (span.attributes or {})["agents_redis_ha.attempts"] == 3
    first, second = span.events
    assert first.name == second.name == "agents_redis_ha.retry"
    wait = dict(first.attributes or {}).pop("agents_redis_ha.retry.wait")
    assert isinstance(wait, float)
    assert 0 <= wait <= 0.0002
    assert {k: v for k, v in (first.attributes or {}).items() if not k.endswith("wait")} == {
        "agents_redis_ha.retry.reason": "loading",
        "agents_redis_ha.retry.node": "a:1",
    }
    assert (second.attributes or {})["agents_redis_ha.retry.reason"] == "timeout"
    assert "agents_redis_ha.retry.node" not in (second.attributes or {})


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
    observation = telemetry.module.Observation("read", "standalone", ID, "off")
    observation.node = node
    observation.finish()
    attributes = telemetry.span().attributes or {}
    assert (attributes.get("server.address"), attributes.get("server.port")) == (address, port)


def test_a_socket_path_with_a_colon_does_not_break_a_finished_operation(telemetry: Telemetry) -> None:
    observation = telemetry.module.Observation("append", "standalone", ID, "off")
    observation.node = "/run/redis:main.sock"
    observation.finish()
    assert (telemetry.span().attributes or {})["server.address"] == "/run/redis:main.sock"


async def test_a_span_is_the_parent_of_what_happens_within_and_of_nothing_after(telemetry: Telemetry) -> None:
    current = []

    async def attempt(request: Any) -> Any:
        current.append(trace.get_current_span())
        return [described(0, 7), 0, []]

    before = context.get_current()
    await session(FakeLocator(attempt)).get_items()
    assert current[0].get_span_context() == telemetry.span().get_span_context()
    assert context.get_current() == before
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).get_items()
    assert context.get_current() == before


async def test_a_suppressed_repeat_is_noted(telemetry: Telemetry) -> None:
    await session(FakeLocator([0, 5, b""])).add_items([{"a": 1}])
    assert (telemetry.span().attributes or {})["agents_redis_ha.repeat_suppressed"] is True
    assert telemetry.points("agents_redis_ha.repeats_suppressed") == [
        ({"db.operation.name": "append", "agents_redis_ha.topology": "sentinel"}, 1)
    ]
    assert telemetry.module.counters()["repeats_suppressed"] == 1


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
    telemetry.module.Observation("append", "sentinel", ID, "hashed").unconfirmed(SHORTFALL, degraded=False)
    assert telemetry.module.counters()["unconfirmed"] == 1
    assert caplog.records == []


@pytest.mark.parametrize(("show", "expected"), [("hashed", HASHED), ("plain", ID), ("off", "not shown")])
def test_what_was_put_back_or_lost_is_an_event_and_a_line_of_the_log(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture, show: str, expected: str
) -> None:
    observation = telemetry.module.Observation("read", "sentinel", ID, show)
    observation.node = "h:1"
    observation.restored(3)
    observation.lost((4, 6))
    observation.finish()
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
    locator.failovers = 2
    await session(locator).add_items([{"a": 1}])
    await session(FakeLocator([described(2, 5), 2, [b"{},1,x"]])).get_items()
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).clear_session()
    await unconfirmed()
    observation = telemetry.module.Observation("check", "sentinel", ID, "hashed")
    observation.restored(3)
    observation.lost((4, 6))
    observation.finish()


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
    }
    assert all(metric.description for metric in found.values())


async def test_metrics_count_by_operation_topology_and_reason(telemetry: Telemetry) -> None:
    await everything(telemetry)
    topology = {"agents_redis_ha.topology": "sentinel"}
    assert telemetry.points("agents_redis_ha.retries") == [
        ({"db.operation.name": "append", "agents_redis_ha.retry.reason": "loading", **topology}, 1)
    ]
    assert telemetry.points("agents_redis_ha.failovers") == [(topology, 2)]
    (corrupt,) = telemetry.points("agents_redis_ha.corrupt_items")
    assert corrupt[0] == topology
    assert telemetry.points("agents_redis_ha.unconfirmed") == [({"db.operation.name": "append", **topology}, 1)]
    assert telemetry.points("agents_redis_ha.changes_restored") == [(topology, 3)]
    assert telemetry.points("agents_redis_ha.changes_lost") == [(topology, 2)]
    durations = [attributes for attributes, _ in telemetry.points("db.client.operation.duration")]
    by_operation = {a["db.operation.name"]: a for a in durations}
    assert set(by_operation) == {"append", "read", "clear", "check"}
    assert all(a["db.system.name"] == "redis" and a["agents_redis_ha.topology"] == "sentinel" for a in durations)
    assert by_operation["clear"]["error.type"] == "PermissionDeniedError"
    assert "error.type" not in by_operation["append"]


async def test_no_metric_attribute_holds_a_session_id_a_node_or_anything_unbounded(telemetry: Telemetry) -> None:
    await everything(telemetry)
    for name in telemetry.metrics():
        for attributes, _ in telemetry.points(name):
            assert set(attributes) <= {
                "db.system.name",
                "db.operation.name",
                "agents_redis_ha.topology",
                "agents_redis_ha.retry.reason",
                "error.type",
            }
            assert not {ID, HASHED, "h:1"} & set(attributes.values())


async def test_counters_are_totals_since_the_start_and_a_copy(telemetry: Telemetry) -> None:
    counters = telemetry.module.counters
    names = ("retries", "repeats_suppressed", "failovers", "corrupt_items")
    assert counters() == dict.fromkeys((*names, "unconfirmed", "changes_restored", "changes_lost"), 0)
    await everything(telemetry)
    found = counters()
    assert (found["retries"], found["repeats_suppressed"], found["failovers"]) == (1, 1, 2)
    assert found["corrupt_items"] >= 1
    assert (found["unconfirmed"], found["changes_restored"], found["changes_lost"]) == (1, 3, 2)
    found["retries"] = 99
    assert counters()["retries"] == 1


def test_nothing_is_noted_where_nothing_happened(telemetry: Telemetry) -> None:
    telemetry.module.note_failovers("cluster", 0)
    telemetry.module.note_corrupt("cluster", 0)
    assert telemetry.metrics() == {}


async def test_nothing_is_computed_for_a_span_that_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry(monkeypatch, sampler=ALWAYS_OFF)

    def never(*args: Any) -> Any:
        raise AssertionError("computed for nobody")

    monkeypatch.setattr(telemetry.module, "hashed", never)
    monkeypatch.setattr(telemetry.module.Observation, "_describe", never)
    monkeypatch.setattr(telemetry.module.context, "attach", never)
    before = telemetry.module.counters()["retries"]
    await session(FakeLocator(failed(redis_errors.BusyLoadingError("x")), [0, 5, b""])).add_items([{"a": 1}])
    with pytest.raises(PermissionDeniedError):
        await session(FakeLocator(failed(redis_errors.NoPermissionError("x")))).get_items()
    assert telemetry.spans() == []
    assert telemetry.module.counters()["retries"] == before + 1


async def test_without_an_sdk_operations_work_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = installed.counters()["retries"]
    await session(FakeLocator(failed(redis_errors.BusyLoadingError("x")), [1, 5, b""])).add_items([{"a": 1}])
    assert installed.counters()["retries"] == before + 1


def test_outcomes_are_written_as_in_the_errors() -> None:
    assert {outcome.value for outcome in Outcome} == {"not_applied", "applied", "unknown"}
