"""What the span of an operation says, and what it never holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from redis import exceptions as redis_errors

from agents_redis_ha import OperationError, Outcome, PermissionDeniedError, RetryConfig
from agents_redis_ha._telemetry import FailedAttempt, counters, hash_session_id, operation_span
from tests.support.fakes import described, failed
from tests.support.observed_sessions import (
    APPLIED,
    HASHED,
    ID,
    REPEAT,
    SERVER,
    SHORTFALL,
    operation,
    session,
    unconfirmed,
)
from tests.support.recording import Telemetry
from tests.support.virtual_time import in_virtual_time


async def test_a_span_says_what_was_done_where_and_how_often(telemetry: Telemetry) -> None:
    await session(APPLIED).add_items([{"a": 1}, {"a": 2}])
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
    await session(APPLIED, trace_session_id=show).add_items([{"a": 1}])
    span = telemetry.span()
    assert (span.attributes or {}).get("gen_ai.conversation.id") == expected
    assert (ID in span.to_json()) is (show == "plain")


def test_any_id_can_be_hashed_and_equal_ids_hash_alike() -> None:
    assert hash_session_id("\ud800") != hash_session_id("\ud801")
    assert hash_session_id(ID) == HASHED
    assert len(hash_session_id("")) == 16


async def test_each_attempt_of_a_disturbed_operation_is_a_span_with_node_reason_and_wait(telemetry: Telemetry) -> None:
    failures = [
        failed(redis_errors.BusyLoadingError("loading the dataset"), node="a:1"),
        failed(redis_errors.TimeoutError("x"), node=None),
    ]
    await session(*failures, APPLIED).add_items([{"a": 1}])
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
    await session(*[failed(redis_errors.BusyLoadingError("x"))] * 3, APPLIED).add_items([{"a": 1}])
    whole, spans = telemetry.span(), telemetry.attempts()
    times = [time for span in spans for time in (span.start_time or 0, span.end_time or 0)]
    assert len(times) == 8
    assert times == sorted(times)
    assert (whole.start_time or 0) <= times[0]
    assert times[-1] <= (whole.end_time or 0)


async def test_an_undisturbed_operation_has_no_attempts(telemetry: Telemetry) -> None:
    await session(APPLIED).add_items([{"a": 1}])
    assert telemetry.attempts() == []


async def test_the_attempt_that_fails_for_good_is_shown_too(telemetry: Telemetry) -> None:
    with pytest.raises(PermissionDeniedError):
        await session(failed(redis_errors.NoPermissionError("not you"))).get_items()
    (span,) = telemetry.attempts()
    assert span.status.description == "NoPermissionError: not you"
    assert "agents_redis_ha.retry.wait" not in (span.attributes or {})
    assert (telemetry.span().attributes or {})["agents_redis_ha.attempts"] == 1


@in_virtual_time
async def test_an_attempt_that_the_deadline_cut_off_says_so(telemetry: Telemetry) -> None:
    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    retry = RetryConfig(deadline_seconds=0.1, initial_backoff_seconds=0.0001, max_backoff_seconds=0.0002)
    with pytest.raises(OperationError, match="loading"):
        await session(failed(redis_errors.BusyLoadingError("loading")), hang, retry=retry).get_items()
    assert [span.status.description for span in telemetry.attempts()] == [
        "BusyLoadingError: loading",
        "cut off by the deadline",
    ]


async def test_a_failed_span_says_so_with_the_outcome_and_without_a_secret(telemetry: Telemetry) -> None:
    echo = "unknown command, with args beginning with: 's3cr3t-session-id' 's3cr3t-item'"
    with pytest.raises(OperationError):
        await session(failed(redis_errors.ResponseError(echo), sent=True)).add_items([{"a": "s3cr3t-item"}])
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
        await session(KeyError("s3cr3t")).get_items()
    span = telemetry.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert "s3cr3t" not in span.to_json()
    assert "agents_redis_ha.outcome" not in (span.attributes or {})


def test_a_socket_path_with_a_colon_does_not_break_a_finished_operation(telemetry: Telemetry) -> None:
    append = operation("append", topology="standalone", show="off")
    append.request_sent("/run/redis:main.sock")
    append.finish()
    assert (telemetry.span().attributes or {})["server.address"] == "/run/redis:main.sock"


async def test_the_callers_span_is_the_parent_and_stays_the_current_one(telemetry: Telemetry) -> None:
    current = []

    async def attempt(request: Any) -> Any:
        current.append(trace.get_current_span())
        return [described(0, 7), 0, []]

    with telemetry.tracers.get_tracer("caller").start_as_current_span("turn") as turn:
        before = context.get_current()
        await session(attempt).get_items()
        with pytest.raises(PermissionDeniedError):
            await session(failed(redis_errors.NoPermissionError("x"))).get_items()
        assert context.get_current() == before
    assert current == [turn]
    reads = [span for span in telemetry.spans() if span.name == "read"]
    assert [span.parent for span in reads] == [turn.get_span_context()] * 2


async def test_what_runs_in_the_background_has_a_trace_of_its_own_and_says_why(telemetry: Telemetry) -> None:
    with telemetry.tracers.get_tracer("caller").start_as_current_span("turn") as turn:
        read = operation("read")
        check = operation("check", cause=read)
        check.request_sent("h:1")
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
    append = operation("append")
    append.unconfirmed(SHORTFALL, degraded=True)
    append.restored(1)
    append.lost((1,))
    append.finish()
    span = telemetry.span().context
    assert written == [("unconfirmed", span), ("restored", span), ("lost", span)]


async def test_a_suppressed_repeat_is_noted(telemetry: Telemetry) -> None:
    await session(REPEAT).add_items([{"a": 1}])
    assert (telemetry.span().attributes or {})["agents_redis_ha.repeat_suppressed"] is True
    what = {"db.operation.name": "append", "agents_redis_ha.topology": "sentinel"}
    assert telemetry.points("agents_redis_ha.repeats_suppressed") == [({**what, **SERVER}, 1)]
    assert counters()["repeats_suppressed"] == 1


@in_virtual_time
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
    append = operation("append")
    append.unconfirmed(SHORTFALL, degraded=False)
    append.finish()
    assert counters()["unconfirmed"] == 1
    assert caplog.records == []


@pytest.mark.parametrize(("show", "expected"), [("hashed", HASHED), ("plain", ID), ("off", "not shown")])
def test_what_was_put_back_or_lost_is_an_event_and_a_line_of_the_log(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture, show: str, expected: str
) -> None:
    read = operation("read", show=show)
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


async def test_nothing_is_computed_for_a_span_that_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, record: Callable[..., Telemetry]
) -> None:
    telemetry = record(sampler=ALWAYS_OFF)

    def never(*args: Any) -> Any:
        raise AssertionError("computed in vain")

    monkeypatch.setattr(operation_span, "describe", never)
    before = counters()["retries"]
    await session(failed(redis_errors.BusyLoadingError("x")), REPEAT).add_items([{"a": 1}])
    with pytest.raises(PermissionDeniedError):
        await session(failed(redis_errors.NoPermissionError("x"))).get_items()
    assert telemetry.spans() == []
    assert counters()["retries"] == before + 1


async def test_without_an_sdk_operations_work_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = counters()["retries"]
    await session(failed(redis_errors.BusyLoadingError("x")), APPLIED).add_items([{"a": 1}])
    assert counters()["retries"] == before + 1


def test_outcomes_are_written_as_in_the_errors() -> None:
    assert {outcome.value for outcome in Outcome} == {"not_applied", "applied", "unknown"}


def test_an_attempt_that_none_follows_is_no_retry(telemetry: Telemetry) -> None:
    append = operation("append")
    append.failed(FailedAttempt("TimeoutError", "x", "timeout", "h:1", wait_seconds=None))
    append.finish()
    assert append.attempts == 1
    assert counters()["retries"] == 0


def test_an_operation_that_was_led_elsewhere_names_the_node_that_answered(telemetry: Telemetry) -> None:
    read = operation("read")
    read.request_sent("a:1")
    read.answered("b:2")
    read.finish()
    assert (telemetry.span().attributes or {})["server.address"] == "b"


def test_of_an_operations_several_commands_only_the_disturbed_one_shows_its_attempts(telemetry: Telemetry) -> None:
    read = operation("read")
    read.failed(FailedAttempt("TimeoutError", "x", "timeout", "h:1", wait_seconds=0.1))
    for _ in range(3):
        read.answered("h:1")
    read.finish()
    assert len(telemetry.attempts()) == 2
