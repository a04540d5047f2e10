"""Asking a Prometheus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.compose.web import ask


@dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: Its labels; the metric's name is ``__name__``.
        values: Its values, oldest first.
    """

    labels: dict[str, str]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus.

    Attributes:
        url: Where it is.
    """

    url: str

    def now(self, query: str) -> list[Series]:
        """The series of an expression at this moment; those that are no number are left out."""
        found = self._ask("query", query=query)["result"]
        return _numbers(Series(one["metric"], (float(one["value"][1]),)) for one in found)

    def since(self, start: float, end: float, query: str, step_seconds: int = 5) -> list[Series]:
        """The series of an expression between two times (seconds since 1970); without values that are no number."""
        found = self._ask("query_range", query=query, start=start, end=end, step=step_seconds)["result"]
        return _numbers(Series(one["metric"], tuple(float(value) for _, value in one["values"])) for one in found)

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series that a selector selects."""
        values: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return values

    def _ask(self, path: str, **parameters: Any) -> Any:
        return ask(f"{self.url}/api/v1/{path}", **parameters)["data"]


def _numbers(found: Any) -> list[Series]:
    kept = (Series(one.labels, tuple(value for value in one.values if not math.isnan(value))) for one in found)
    return [one for one in kept if one.values]
