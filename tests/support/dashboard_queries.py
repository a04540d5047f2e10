"""The queries of the Grafana dashboard and of docs/observability.md, as Prometheus takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "compose" / "observability" / "grafana" / "dashboards" / "sessions.json"
PAGE = ROOT / "docs" / "observability.md"

SHORTEST_RATE_SECONDS = 20
"""What $__rate_interval is in Grafana at least: four scrapes."""

FALLBACK = re.compile(r" or (?:on \(\) )?vector\(0\)$")
"""What follows a query where no series means none."""


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        title: The title of its panel, or where it stands in the page.
        text: The query as it stands there.
        instant: Whether it asks for one moment only.
    """

    title: str
    text: str
    instant: bool = False

    def __str__(self) -> str:
        return self.title.replace(" ", "_")

    @property
    def has_fallback(self) -> bool:
        """Whether it returns 0 where there is no series."""
        return FALLBACK.search(self.text) is not None

    def expression(self, range_seconds: int = 600, *, fallback: bool = True) -> str:
        """What Grafana sends: everything is selected, and the panel shows so many seconds."""
        text = self.text if fallback else FALLBACK.sub("", self.text)
        for name, allowed in every_value().items():
            text = text.replace(f"${name}", allowed)
        return text.replace("$__rate_interval", f"{SHORTEST_RATE_SECONDS}s").replace("$__range", f"{range_seconds}s")


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def every_value() -> dict[str, str]:
    """The expression that stands for all values of a variable, by the variable's name."""
    return {one["name"]: one["allValue"] for one in dashboard()["templating"]["list"] if one.get("allValue")}


def label_queries() -> Iterator[tuple[str, str, str]]:
    """The variables that are taken from labels: name, label and selector."""
    for one in dashboard()["templating"]["list"]:
        if one["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"])
            assert found, one["query"]
            yield one["name"], found[2], Query(one["name"], found[1]).expression()


def panel_queries() -> list[Query]:
    """The queries that the panels send to Prometheus."""
    return [
        Query(f"{panel['title']} {target['refId']}", target["expr"], target.get("instant", False))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
        if "expr" in target
    ]


def documented_queries() -> list[Query]:
    """The PromQL of docs/observability.md; a block may hold several queries, with an empty line between them."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```promql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Query(f"line {text.count(chr(10), 0, block.start()) + 2} no {number}", " ".join(part.split()), instant=True)
        for block in blocks
        for number, part in enumerate(block[1].split("\n\n"), 1)
    ]
