"""What the trace of an operation tells of what it met, without a log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from agents_redis_ha import RetryConfig, TurnLostError, ha_session, ha_turn, lab
from tests.support.history import Workers
from tests.support.recording import Telemetry
from tests.support.waiting import eventually

ITEM: Any = {"role": "user", "content": "hello"}


def node_of(span: ReadableSpan) -> str | None:
    attributes = span.attributes or {}
    return f"{attributes['server.address']!s}:{attributes['server.port']!s}" if "server.address" in attributes else None


def said(span: ReadableSpan) -> Any:
    return (span.attributes or {}).get("agents_redis_ha.retry.reason")


async def test_a_lost_reply_is_two_attempts_at_one_node(
    proxied: lab.Lab, session_id: str, telemetry: Telemetry
) -> None:
    session = ha_session(proxied.config(), session_id)
    await session.add_items([ITEM])
    node = proxied.primary(session._operations.spec.keys.items)
    assert node.proxy is not None
    telemetry.exporter.clear()
    node.proxy.cut_next_reply()
    await session.add_items([ITEM])
    lost, repeated = telemetry.attempts()
    assert node_of(lost) == node_of(repeated) is not None
    assert (said(lost), said(repeated)) == ("connection", None)
    assert (telemetry.span().attributes or {})["agents_redis_ha.repeat_suppressed"] is True
    assert len(await session.get_items()) == 2


async def test_the_trace_of_a_failover_names_both_nodes_the_reasons_and_the_waits(
    session_id: str, telemetry: Telemetry
) -> None:
    with lab.start("sentinel") as servers:
        session = ha_session(servers.config(retry=RetryConfig(deadline_seconds=30)), session_id)
        await session.add_items([ITEM])
        old = servers.primary()
        telemetry.exporter.clear()
        await asyncio.to_thread(servers.kill, old)
        with TracerProvider().get_tracer("caller").start_as_current_span("turn") as turn:
            await session.add_items([ITEM])
        assert trace.get_current_span() is trace.INVALID_SPAN
        whole, attempts = telemetry.span(), telemetry.attempts()
        assert whole.parent == turn.get_span_context()
        assert all(attempt.parent == whole.context for attempt in attempts)
        *failed, last = attempts
        assert node_of(failed[0]) == old.address
        assert node_of(last) == node_of(whole) != old.address
        assert all(said(attempt) and (attempt.attributes or {})["agents_redis_ha.retry.wait"] for attempt in failed)
        assert all(attempt.status.description for attempt in failed)
        assert said(last) is None
        ((taken_over, count),) = telemetry.points("agents_redis_ha.failovers")
        assert (f"{taken_over['server.address']}:{taken_over['server.port']}", count) == (node_of(last), 1)


def named(telemetry: Telemetry, name: str) -> list[ReadableSpan]:
    return [span for span in telemetry.spans() if span.name == name]


def became(span: ReadableSpan) -> tuple[Any, list[tuple[str, Any]]]:
    """Return what became of a turn, and its events with their first attribute."""
    events = [(event.name, next(iter((event.attributes or {}).values()))) for event in span.events]
    return (span.attributes or {})["agents_redis_ha.turn.status"], events


async def test_the_span_of_a_turn_through_a_failover_tells_its_story(session_id: str, telemetry: Telemetry) -> None:
    with lab.start("sentinel") as servers:
        patient = servers.config(retry=RetryConfig(deadline_seconds=30))
        session = ha_session(patient, session_id)
        for _ in range(2):
            async with ha_turn(session, "t1", "hello") as turn:
                if not turn.is_answered:
                    old = servers.primary()
                    await asyncio.to_thread(servers.kill, old)
                    await turn.session.add_items([ITEM])
                    turn.answer("yes")
        answered, repeated = named(telemetry, "ha_turn")
        assert became(answered) == ("computed", [("agents_redis_ha.turn_published", 1)])
        assert became(repeated) == ("repeated", [])
        (published,) = named(telemetry, "turn_finish")
        assert published.parent == answered.context
        first, *_, last = telemetry.attempts()
        assert (first.parent, last.parent) == (published.context, published.context)
        assert node_of(first) == old.address
        assert node_of(last) == node_of(published) != old.address


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
async def test_the_spans_of_a_turn_that_was_taken_over_tell_from_which_and_to_which(
    workers: Workers, telemetry: Telemetry
) -> None:
    ours, theirs = [await workers.make(retry={"deadline_seconds": 1.0}) for _ in range(2)]
    first = ha_turn(ours, "t1", "hello", lease_seconds=1.0)

    async def hang() -> None:
        await first.__aenter__()
        first._renewal.cancel()

    await asyncio.create_task(hang())
    async with ha_turn(theirs, "t1", "hello") as turn:
        turn.answer("theirs")
    with pytest.raises(TurnLostError):
        await answer_late(first)
    taker, loser = named(telemetry, "ha_turn")
    taken = ("agents_redis_ha.turn_taken_over", "attempt")
    assert became(taker) == (
        "computed",
        [("agents_redis_ha.turn_waiting", 1), taken, ("agents_redis_ha.turn_published", 0)],
    )
    assert became(loser) == ("lost", [("agents_redis_ha.turn_lost", "attempt")])


async def answer_late(block: Any) -> None:
    block._turn.answer("ours")
    await block.__aexit__(None, None, None)


async def test_connections_are_counted_by_node(servers: lab.Lab, session_id: str, telemetry: Telemetry) -> None:
    session = ha_session(servers.config(), session_id)
    await asyncio.gather(*(session.add_items([ITEM]) for _ in range(4)))
    node = servers.primary(session._operations.spec.keys.items).dial_address

    def shown(state: str) -> int:
        counts: dict[tuple[Any, Any], int] = {
            (attributes["db.client.connection.pool.name"], attributes["db.client.connection.state"]): value
            for attributes, value in telemetry.points("db.client.connection.count")
        }
        return counts[node, state]

    await eventually(lambda: shown("used") == 0, "what is done in the background has ended, too")
    assert 1 <= shown("idle") <= 4
    most = {a["db.client.connection.pool.name"]: value for a, value in telemetry.points("db.client.connection.max")}
    assert most[node] == 32
