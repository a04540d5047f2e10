"""The five lines of docs/observability.md, in a service that has a tracer provider: prints each span and its parent.

It runs in a container of the fleet. Arguments: the lines, and what the user says.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agents import Runner
from fastapi import FastAPI
from fleet.chat import agent
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agents_redis_ha import HAConfig, SessionStore

LINES, SAID = sys.argv[1:]
ended = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ended))
trace.set_tracer_provider(provider)
app = FastAPI()


@app.post("/turns")
async def answer() -> None:
    """Answer the user."""
    async with SessionStore(HAConfig.from_env()) as store:
        await Runner.run(agent(), SAID, session=store.session("documented"))


async def receive() -> dict[str, Any]:
    """What the client sends: nothing."""
    return {"type": "http.request", "body": b""}


async def send(message: dict[str, Any]) -> None:
    """What the client is sent."""
    assert message.get("status", 200) == 200, message


exec(LINES)
request = {
    "type": "http",
    "method": "POST",
    "path": "/turns",
    "raw_path": b"/turns",
    "query_string": b"",
    "headers": [],
}
run: Any = app
asyncio.run(run({**request, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}, receive, send))
names = {span.context.span_id: span.name for span in ended.get_finished_spans()}
for span in ended.get_finished_spans():
    print(f"{names.get(span.parent.span_id) if span.parent else None} > {span.name}")
