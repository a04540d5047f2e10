"""Asking a Phoenix for the spans that it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.compose.web import ask


@dataclass(frozen=True)
class Span:
    """A span as it was received.

    Attributes:
        name: Its name.
        trace: Its trace's id.
        id: Its own id.
        parent: Its parent's id, None for the root.
        start: When it began, in seconds since 1970.
        end: When it ended.
        failed: Whether its status is ERROR.
        description: What its status says.
        attributes: Its attributes.
    """

    name: str
    trace: str
    id: str
    parent: str | None
    start: float
    end: float
    failed: bool
    description: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, sent: dict[str, Any]) -> Span:
        """A span as Phoenix shows it."""
        return cls(
            name=sent["name"],
            trace=sent["context"]["trace_id"],
            id=sent["context"]["span_id"],
            parent=sent["parent_id"],
            start=datetime.fromisoformat(sent["start_time"]).timestamp(),
            end=datetime.fromisoformat(sent["end_time"]).timestamp(),
            failed=sent["status_code"] == "ERROR",
            description=sent["status_message"],
            attributes=sent["attributes"],
        )


@dataclass(frozen=True)
class Trace:
    """All spans of a trace, in the order of their beginnings."""

    spans: tuple[Span, ...]

    @property
    def root(self) -> Span:
        """The span that has no parent, or none that was sent."""
        ids = {span.id for span in self.spans}
        (root,) = (span for span in self.spans if span.parent not in ids)
        return root

    def children(self, of: Span) -> list[Span]:
        """The spans whose parent is this one."""
        return [span for span in self.spans if span.parent == of.id]

    def ancestors(self, of: Span) -> Iterator[Span]:
        """A span's parent, the parent's parent, and so on up to the root."""
        by_id = {span.id: span for span in self.spans}
        while (above := by_id.get(of.parent or "")) is not None:
            yield above
            of = above

    def as_text(self, shown: Mapping[str, str]) -> str:
        """The tree: milliseconds since the root's beginning, duration, name, and attributes by their formats."""
        return "\n".join(self._lines(self.root, 0, shown))

    def _lines(self, span: Span, depth: int, shown: Mapping[str, str]) -> Iterator[str]:
        words = [form.format(span.attributes[name]) for name, form in shown.items() if name in span.attributes]
        words += [f"– {span.description}"] * span.failed
        begun, took = (1000 * (span.start - self.root.start), 1000 * (span.end - span.start))
        yield f"{begun:8.1f} {took:8.1f}  {'  ' * depth}{' '.join([span.name, *words])}"
        for child in self.children(span):
            yield from self._lines(child, depth + 1, shown)


@dataclass(frozen=True)
class Phoenix:
    """A Phoenix.

    Attributes:
        url: Where it is.
    """

    url: str

    def named(self, name: str) -> list[Span]:
        """The spans with a name."""
        return list(self._spans(name=name))

    def trace(self, trace: str) -> Trace:
        """The trace with an id."""
        return Trace(tuple(sorted(self._spans(trace_id=trace), key=lambda span: span.start)))

    def _spans(self, **wanted: str) -> Iterator[Span]:
        cursor: str | None = ""
        while cursor is not None:
            parameters = {"limit": 1000, **wanted, **({"cursor": cursor} if cursor else {})}
            page = ask(f"{self.url}/v1/projects/default/spans", **parameters)
            yield from map(Span.of, page["data"])
            cursor = page["next_cursor"]
