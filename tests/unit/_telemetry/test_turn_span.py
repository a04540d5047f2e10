"""What the span of a turn and the metrics of turns say, in every way out of its block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from redis import exceptions as redis_errors

from agents_redis_ha import TurnBusyError, TurnLostError, TurnNotFoundError, claim_turn, ha_turn
from agents_redis_ha._sessions.session import RedisHASession
from agents_redis_ha._telemetry import hash_session_id
from tests.support.fakes import failed
from tests.support.observed_sessions import HASHED, granted, published, taking_turns
from tests.support.recording import Telemetry
from tests.support.virtual_time import in_virtual_time

TURN = "s3cr3t-turn-id"
TOPOLOGY = {"agents_redis_ha.topology": "sentinel"}
HELD = [8, 0, b"", 500, 3, 0, b"other"]
CONFLICT = [2, 0, b"", b"cancelled"]
CALL: Any = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT: Any = {"type": "function_call_output", "call_id": "c1", "output": "o"}
STATE: Any = SimpleNamespace(to_json=dict)


def spans(telemetry: Telemetry, name: str) -> list[ReadableSpan]:
    return [span for span in telemetry.spans() if span.name == name]


def the_turn(telemetry: Telemetry, name: str = "ha_turn") -> ReadableSpan:
    (span,) = spans(telemetry, name)
    return span


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name.removeprefix("agents_redis_ha."), dict(event.attributes or {})) for event in span.events]


def now(telemetry: Telemetry) -> dict[str, int]:
    """Return how many turns wait and run."""
    found = telemetry.points("agents_redis_ha.turn.count")
    return {attributes["agents_redis_ha.turn.state"]: value for attributes, value in found}


async def answer(on: RedisHASession, **options: Any) -> None:
    async with ha_turn(on, TURN, "hello", **options) as turn:
        if not turn.is_answered and not turn.is_suspended:
            await turn.session.add_items([{"role": "user", "content": "hello"}])
            turn.answer("yes")


async def test_a_turn_is_the_current_span_of_its_block_and_above_its_operations(telemetry: Telemetry) -> None:
    with telemetry.tracers.get_tracer("caller").start_as_current_span("request") as request:
        async with ha_turn(taking_turns(), TURN, "hello") as turn:
            within = trace.get_current_span().get_span_context()
            turn.answer()
        assert trace.get_current_span() is request
    whole = the_turn(telemetry)
    assert (whole.kind, whole.parent, whole.context) == (SpanKind.INTERNAL, request.get_span_context(), within)
    operations = [span for span in telemetry.spans() if span.name.startswith("turn_")]
    assert {span.name: span.parent for span in operations} == {"turn_begin": within, "turn_finish": within}


async def test_a_turn_says_how_long_it_waited_and_what_became_of_it(telemetry: Telemetry) -> None:
    await answer(taking_turns(turn_begin=[granted(2, b"{}", taken_from=b"attempt")]))
    whole = the_turn(telemetry)
    attributes = said(whole)
    assert attributes.pop("agents_redis_ha.turn.wait") >= 0
    assert attributes.pop("agents_redis_ha.turn.hold") >= 0
    assert attributes == {
        **TOPOLOGY,
        "gen_ai.conversation.id": HASHED,
        "agents_redis_ha.turn.id": hash_session_id(TURN),
        "agents_redis_ha.turn.attempt": 2,
        "agents_redis_ha.turn.resumed": True,
        "agents_redis_ha.turn.status": "computed",
    }
    assert whole.status.status_code is StatusCode.UNSET
    assert events(whole) == [
        ("turn_taken_over", {"agents_redis_ha.turn.taken_from": "attempt"}),
        ("turn_published", {"db.operation.batch.size": 2}),
    ]
    collected = telemetry.metrics()
    for name in ("agents_redis_ha.turn.duration", "agents_redis_ha.turn.wait_time"):
        (point,) = collected[name].data.data_points
        (exemplar,) = point.exemplars
        assert exemplar.span_id == whole.context.span_id


@pytest.mark.parametrize(("show", "shown"), [("hashed", hash_session_id(TURN)), ("plain", TURN), ("off", None)])
async def test_a_turns_id_is_in_its_span_only_as_asked_for(telemetry: Telemetry, show: str, shown: str | None) -> None:
    await answer(taking_turns(trace_session_id=show))
    assert said(the_turn(telemetry)).get("agents_redis_ha.turn.id") == shown
    assert (TURN in "".join(span.to_json() for span in telemetry.spans())) is (show == "plain")


async def fail(on: RedisHASession) -> None:
    async with ha_turn(on, TURN, "hello"):
        raise ValueError("my s3cr3t")


async def fail_and_roll_back(on: RedisHASession) -> None:
    async with ha_turn(on, TURN, "hello", on_error="rollback"):
        raise ValueError("my s3cr3t")


async def leave(on: RedisHASession) -> None:
    async with ha_turn(on, TURN, "hello"):
        pass


async def suspend(on: RedisHASession) -> None:
    async with ha_turn(on, TURN, "hello") as turn:
        await turn.suspend(STATE)


async def reject(on: RedisHASession) -> None:
    await answer(on, if_busy="reject")


async def be_cancelled(on: RedisHASession) -> None:
    """Be cancelled while the turn waits."""
    waiting = asyncio.ensure_future(answer(on))
    await asyncio.sleep(5)
    waiting.cancel()
    await waiting


async def be_cancelled_while_it_publishes(on: RedisHASession) -> None:
    publishing = asyncio.ensure_future(answer(on))
    await asyncio.sleep(1)
    publishing.cancel()
    await publishing


async def be_told_late(on: RedisHASession) -> None:
    """Swallow the cancellation of a block whose turn was lost."""
    async with ha_turn(on, TURN, "hello"):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


def in_two_seconds(reply: Any) -> Any:
    async def wait(request: Any) -> Any:
        await asyncio.sleep(2)
        return await reply(request) if callable(reply) else reply

    return wait


NO_RIGHT = failed(redis_errors.NoPermissionError("x"))
WAYS_OUT: list[tuple[Callable[[RedisHASession], Any], dict[str, Any], str, str | None]] = [
    (answer, {}, "computed", None),
    (answer, {"turn_begin": [[9, 1, b"", 1, b'"yes"']]}, "repeated", None),
    (answer, {"turn_begin": [[13, 1, b"", 1]]}, "suspended", None),
    (suspend, {}, "suspended", None),
    (leave, {}, "kept", None),
    (fail, {}, "kept", "ValueError"),
    (fail_and_roll_back, {}, "rolled_back", "ValueError"),
    (answer, {"turn_finish": [CONFLICT]}, "lost", "TurnLostError"),
    (be_told_late, {"turn_save": [CONFLICT]}, "lost", "TurnLostError"),
    (suspend, {"turn_end": [CONFLICT]}, "lost", "TurnLostError"),
    (answer, {"turn_begin": [[10, 1, b""]]}, "cancelled", "TurnCancelledError"),
    (answer, {"turn_begin": [[11, 1, b""]]}, "refused", "TurnMismatchError"),
    (reject, {"turn_begin": [HELD]}, "refused", "TurnBusyError"),
    (answer, {"turn_begin": [HELD]}, "refused", "TurnBusyError"),
    (be_cancelled, {"turn_begin": [HELD]}, "withdrawn", "CancelledError"),
    (answer, {"turn_begin": [NO_RIGHT]}, "failed", "PermissionDeniedError"),
    (answer, {"turn_finish": [NO_RIGHT]}, "failed", "PermissionDeniedError"),
    (be_cancelled_while_it_publishes, {"turn_finish": [in_two_seconds(published)]}, "computed", "CancelledError"),
    (be_cancelled_while_it_publishes, {"turn_finish": [in_two_seconds(CONFLICT)]}, "lost", "CancelledError"),
    (be_cancelled_while_it_publishes, {"turn_finish": [in_two_seconds(NO_RIGHT)]}, "failed", "CancelledError"),
]


@pytest.mark.parametrize(("way", "replies", "status", "error"), WAYS_OUT)
@in_virtual_time
async def test_every_way_out_ends_the_span_and_is_counted_once(
    telemetry: Telemetry, way: Any, replies: dict[str, Any], status: str, error: str | None
) -> None:
    before = trace.get_current_span()
    with pytest.raises(BaseException) if error else contextlib.nullcontext() as raised:  # noqa: PT011
        await way(taking_turns(**replies))
    assert trace.get_current_span() is before
    assert set(now(telemetry).values()) <= {0}
    assert (raised.type.__name__ if raised else None) == error
    whole = the_turn(telemetry)
    assert (said(whole)["agents_redis_ha.turn.status"], said(whole).get("error.type")) == (status, error)
    assert whole.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    assert "my s3cr3t" not in whole.to_json()
    ended = {**TOPOLOGY, "agents_redis_ha.turn.status": status}
    assert telemetry.points("agents_redis_ha.turns_ended") == [(ended, 1)]
    assert telemetry.points("agents_redis_ha.turn.duration") == [(ended, None)]


async def test_a_claim_has_a_span_of_its_own_name(telemetry: Telemetry) -> None:
    with pytest.raises(TurnNotFoundError):
        await claim(taking_turns(turn_begin=[[14, 1, b""]]))
    assert said(the_turn(telemetry, "claim_turn"))["agents_redis_ha.turn.status"] == "refused"


async def claim(on: RedisHASession) -> None:
    async with claim_turn(on, TURN, SimpleNamespace()):  # type: ignore[arg-type]
        pass


@in_virtual_time
async def test_turns_that_wait_and_that_run_are_counted(telemetry: Telemetry) -> None:
    replies = [HELD, HELD, granted()]
    seen = []

    async def hold(on: RedisHASession) -> None:
        async with ha_turn(on, TURN, "hello") as turn:
            seen.append(now(telemetry))
            turn.answer()

    async def look(request: Any) -> Any:
        seen.append(now(telemetry))
        return replies.pop(0)

    await hold(taking_turns(turn_begin=[look]))
    assert seen == [{}, {"waiting": 1}, {"waiting": 1}, {"waiting": 0, "running": 1}]
    assert now(telemetry) == {"waiting": 0, "running": 0}
    assert events(the_turn(telemetry))[0] == ("turn_waiting", {"agents_redis_ha.turn.place": 3})
    assert [name for name, _ in events(the_turn(telemetry))] == ["turn_waiting", "turn_published"]


async def go_on_all_the_same(on: RedisHASession) -> None:
    async with ha_turn(on, TURN, "hello") as turn:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await turn.session.add_items([CALL, OUTPUT])


@in_virtual_time
async def test_a_lost_turn_says_once_to_what(telemetry: Telemetry) -> None:
    with pytest.raises(TurnLostError):
        await go_on_all_the_same(taking_turns(turn_save=[CONFLICT]))
    lost = ("turn_lost", {"agents_redis_ha.turn.lost_to": "cancelled"})
    assert events(the_turn(telemetry)) == [lost]


async def test_a_block_that_is_left_in_another_context_leaves_that_one_as_it_is(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    block = ha_turn(taking_turns(), TURN, "hello")
    await asyncio.create_task(block.__aenter__())

    async def leave_elsewhere() -> None:
        with telemetry.tracers.get_tracer("caller").start_as_current_span("another") as another:
            await block.__aexit__(None, None, None)
            assert trace.get_current_span() is another

    await Context().run(asyncio.create_task, leave_elsewhere())
    assert said(the_turn(telemetry))["agents_redis_ha.turn.status"] == "kept"
    assert caplog.records == []


async def test_what_a_sampler_leaves_out_it_leaves_out_as_a_whole(
    record: Callable[..., Telemetry], telemetry: Telemetry
) -> None:
    telemetry = record(sampler=ALWAYS_OFF)
    await answer(taking_turns())
    assert telemetry.spans() == []
    assert len(telemetry.points("agents_redis_ha.turns_ended")) == 1


async def test_without_an_sdk_turns_run_and_no_span_is_the_current_one() -> None:
    async with ha_turn(taking_turns(), TURN, "hello") as turn:
        assert not trace.get_current_span().get_span_context().is_valid
        turn.answer()
    assert trace.get_current_span() is trace.INVALID_SPAN


@in_virtual_time
async def test_no_attribute_of_the_metrics_names_a_session_or_a_turn(telemetry: Telemetry) -> None:
    await answer(taking_turns(turn_begin=[HELD, granted(taken_from=b"expired")]))
    with pytest.raises(TurnBusyError):
        await reject(taking_turns(turn_begin=[HELD]))
    about_turns = [name for name in telemetry.metrics() if ".turn" in name]
    assert len(about_turns) == 4
    for name in about_turns:
        for attributes, _ in telemetry.points(name):
            assert set(attributes) <= {*TOPOLOGY, "agents_redis_ha.turn.status", "agents_redis_ha.turn.state"}
            assert not {TURN, hash_session_id(TURN), HASHED} & set(attributes.values())
