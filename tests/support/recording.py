"""What the library tells OpenTelemetry, kept in memory."""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakSet

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agents_redis_ha._telemetry import instruments, names, operation_span, turn_span


class Telemetry:
    """An SDK behind the library's tracer and instruments: the global providers can be set only once a process."""

    def __init__(self, patch: pytest.MonkeyPatch, **tracing: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(**tracing)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider(metric_readers=[self.reader])
        made = instruments.Instruments(self.meters.get_meter(names.SCOPE))
        for module in (operation_span, turn_span):
            patch.setattr(module, "_tracer", self.tracers.get_tracer(names.SCOPE))
        for module in (operation_span, turn_span, instruments):
            patch.setattr(module, "INSTRUMENTS", made)
        patch.setattr(instruments, "_totals", dict.fromkeys(instruments.counters(), 0))
        patch.setattr(instruments, "_owners", WeakSet())
        patch.setattr(instruments, "_durations", deque())

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        """The only operation's."""
        (span,) = [span for span in self.spans() if span.name != names.ATTEMPT_SPAN]
        return span

    def attempts(self) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == names.ATTEMPT_SPAN]

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        found = self.metrics().get(name)
        return [(dict(p.attributes), getattr(p, "value", None)) for p in found.data.data_points] if found else []
