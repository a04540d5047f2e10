"""What the trace of an operation tells of what it met, without a log."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from agents_redis_ha import RetryConfig, ha_session, lab
from tests.support.recording import Telemetry
from tests.support.turns import eventually

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
