"""Traces over OTLP and metrics for Prometheus, switched on by OpenTelemetry's own environment variables.

Traces go out if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; ``OTEL_METRICS_EXPORTER=prometheus`` serves ``/metrics`` on
``OTEL_EXPORTER_PROMETHEUS_PORT`` (9464). ``OTEL_SDK_DISABLED=true`` switches all off. ``OTEL_SERVICE_NAME``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER`` and the like are read by the SDK itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from agents import set_tracing_disabled
from fastapi import FastAPI
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import start_http_server

__all__ = ["instrument", "telemetry"]


@contextmanager
def telemetry() -> Iterator[None]:
    """Export as the environment says; what is still to be sent goes out at the end.

    The runs of agents become OpenTelemetry spans, and what the session does within them their children.
    """
    with ExitStack() as at_the_end:
        traced = _switched_on("OTEL_TRACES_EXPORTER", "otlp") and _has_endpoint()
        if traced:
            tracers = TracerProvider()
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(tracers)
            OpenAIAgentsInstrumentor().instrument(tracer_provider=tracers)
            at_the_end.callback(tracers.shutdown)
        if _switched_on("OTEL_METRICS_EXPORTER", "none", "prometheus"):
            meters = MeterProvider([PrometheusMetricReader()])
            metrics.set_meter_provider(meters)
            server, thread = start_http_server(int(os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT") or 9464))
            at_the_end.callback(thread.join)
            at_the_end.callback(server.shutdown)
            at_the_end.callback(meters.shutdown)
        if not traced and not os.environ.get("OPENAI_API_KEY"):
            set_tracing_disabled(True)  # the SDK would offer its traces to OpenAI, and complain that it has no key
        yield


def instrument(app: FastAPI) -> None:
    """Make a span of each request but the probes; it records nothing unless `telemetry` exports."""
    FastAPIInstrumentor.instrument_app(app, excluded_urls="health,ready", exclude_spans=["send", "receive"])


def _has_endpoint() -> bool:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def _switched_on(variable: str, default: str, value: str | None = None) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return (value or default) in (os.environ.get(variable) or default).split(",")
