"""What was measured, as ratios, and how it is shown."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

Unit = Literal["µs", "ms", "/s", "bytes", "round trips", "% of a core"]

NAMES = {
    "ours": "this library",
    "floor": "bare redis-py",
    "sdk": "the SDK's `RedisSession`",
    "other": "openai-agents-session",
    "turn": "in a turn",
    "session": "without a turn",
    "plain": "without OpenTelemetry",
    "unobserved": "without the code that observes",
    "before": "the other checkout",
    "again": "noise: the other checkout by itself",
}
_COLUMNS = ("ours", "floor", "sdk", "other")
_TURN_COLUMNS = ("turn", "session", "sdk")
_WITH_A_DECIMAL = ("ms", "round trips", "% of a core")


@dataclass(frozen=True)
class Ratio:
    """How this library compares with another contender.

    Attributes:
        against: The contender.
        value: This library's figure divided by the other's.
        target: What it is to be, as ``(comparison, bound)``, or None if it is only reported.
    """

    against: str
    value: float
    target: tuple[Literal["<=", ">="], float] | None = None

    @property
    def met(self) -> bool:
        """Whether the target is reached, or there is none."""
        if self.target is None:
            return True
        comparison, bound = self.target
        return self.value <= bound if comparison == "<=" else self.value >= bound

    def __str__(self) -> str:
        text = f"{self.value:.2f}" if self.value < 10 else f"{self.value:.1f}"
        if self.target is None:
            return text
        sign = "≤" if self.target[0] == "<=" else "≥"
        return f"{text} ({sign} {self.target[1]:g}{'' if self.met else ', missed'})"


@dataclass(frozen=True)
class Row:
    """One measurement in one setup.

    Attributes:
        measurement: What was measured.
        setup: Servers and client.
        unit: Of the figures; with ``/s`` more is better.
        figures: The median of each contender.
        ratios: This library against others: the median of the ratios within each round.
        most: What a turn's figure is to be at most, or None if it is only reported.
    """

    measurement: str
    setup: str
    unit: Unit
    figures: dict[str, float]
    ratios: list[Ratio] = field(default_factory=list)
    most: float | None = None

    @property
    def missed(self) -> list[str]:
        """The targets that are not reached, in words."""
        found = [f"{self.measurement} ÷ {ratio.against}: {ratio}" for ratio in self.ratios if not ratio.met]
        return found if self._is_within else [*found, f"{self.measurement}, {self.setup}: {self.figure('turn')}"]

    @property
    def _is_within(self) -> bool:
        return self.most is None or self.figures["turn"] <= self.most

    def figure(self, name: str) -> str:
        """Return a contender's figure with its unit, or a dash."""
        value = self.figures.get(name)
        if value is None:
            return "–"
        text = f"{value:,.{1 if self.unit in _WITH_A_DECIMAL else 0}f} {self.unit}".replace(" /s", "/s")
        if name != "turn" or self.most is None:
            return text
        return f"{text} (≤ {self.most:g}{'' if self._is_within else ', missed'})"

    def ratio(self, against: str) -> str:
        """Return the ratio to a contender, or a dash."""
        return next((str(ratio) for ratio in self.ratios if ratio.against == against), "–")


def versions(server: str) -> str:
    """Return what the figures were measured with."""
    packages = ("redis", "hiredis", "openai-agents", "openai-agents-session", "opentelemetry-sdk")
    try:
        installed = ", ".join(f"{name} {version(name)}" for name in packages)
    except PackageNotFoundError as error:
        raise SystemExit(f"the comparison needs {error.name}: pip install '.[test,speed]'") from None
    return f"Python {platform.python_version()}, Redis {server}, {installed}"


def as_json(rows: Sequence[Row], header: str) -> dict[str, Any]:
    """Return the results as JSON values."""
    return {"versions": header, "rows": [asdict(row) for row in rows]}


def as_markdown(rows: Sequence[Row], header: str) -> str:
    """Return the results as tables of Markdown: of operations, and of turns."""
    operations = [row for row in rows if "floor" in row.figures]
    tables = [_table(operations, _COLUMNS, ("floor", "sdk"))]
    if turns := [row for row in rows if row not in operations]:
        tables.append(_table(turns, _TURN_COLUMNS, ("session", "sdk")))
    return f"{header}.\n\n" + "\n\n".join(tables) + "\n"


def _table(rows: Sequence[Row], columns: Sequence[str], compared: Sequence[str]) -> str:
    titles = ["Measured", "Setup", *(NAMES[name] for name in columns), *(f"÷ {NAMES[name]}" for name in compared)]
    lines = [f"| {' | '.join(titles)} |", "|---|---|" + "---:|" * (len(titles) - 2)]
    for row in rows:
        setup = row.setup
        for name in ("plain", "unobserved"):
            if row.ratio(name) != "–":
                setup += f": {row.ratio(name)} × {NAMES[name]}"
        cells = [row.measurement, setup, *(row.figure(name) for name in columns)]
        cells += [row.ratio(name) for name in compared]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_text(rows: Sequence[Row], header: str) -> str:
    """Return the results for a terminal: a line for each ratio."""
    lines = [header]
    for row in rows:
        lines.append(f"\n{row.measurement}; {row.setup}")
        lines.append("  " + ", ".join(f"{NAMES.get(n, n).replace('`', '')} {row.figure(n)}" for n in row.figures))
        lines += [f"  ÷ {NAMES.get(ratio.against, ratio.against).replace('`', '')}: {ratio}" for ratio in row.ratios]
    return "\n".join(lines)
