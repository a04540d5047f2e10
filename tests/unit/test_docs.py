"""The documentation says what the code does: its tables are complete, its links lead somewhere."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import pytest

from agents_redis_ha import (
    DurabilityConfig,
    HAConfig,
    PoolConfig,
    RepairConfig,
    RetryConfig,
    SentinelConfig,
    TLSConfig,
    counters,
    errors,
)
from agents_redis_ha._config.parts import ENVIRONMENT_PREFIX
from agents_redis_ha._config.urls import OPTIONS
from agents_redis_ha._connections import sentinel_events
from agents_redis_ha._telemetry import TurnEnd, instruments, names
from agents_redis_ha.cli import build_parser

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
OTHER_PAGES = ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "compose/README", "compose/fleet/README")
PAGES = [*DOCS, *(ROOT / f"{name}.md" for name in OTHER_PAGES)]
SOURCES = sorted(path for kind in ("py", "lua") for path in (ROOT / "src").rglob(f"*.{kind}"))
PARTS = (TLSConfig, PoolConfig, RetryConfig, DurabilityConfig, RepairConfig, SentinelConfig)
CONFIGS = {kind.__name__: kind for kind in (HAConfig, *PARTS)}


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page}.md has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of a text's tables, without heads; a cell that is nothing but code loses its backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {i - 1 for i, line in enumerate(lines) if set(line) <= set("|- ")}
    heads |= {i + 1 for i in heads}
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for i, line in enumerate(lines) if i not in heads]
    return [[re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in row] for row in cells]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_of_a_config_lists_its_fields_and_their_defaults(name: str) -> None:
    listed = {field: eval(default, dict(CONFIGS)) for field, _, default, _ in rows(section("configuration", name))}
    fields = CONFIGS[name].model_fields.items()
    assert listed == {field: info.get_default(call_default_factory=True, validated_data={}) for field, info in fields}


def test_the_table_of_options_is_the_one_of_the_code() -> None:
    listed = rows(section("configuration", "URL options and environment variables"))
    assert listed == [[name, f"{ENVIRONMENT_PREFIX}{name.upper()}", field] for name, field in OPTIONS.items()]


NAMES = {
    name: value
    for name, value in vars(names).items()
    if name.isupper() and isinstance(value, str) and name != "SCOPE" and not name.endswith("_SPAN")
}
COUNTERS = ("RETRIES", "REPEATS", "FAILOVERS", "CORRUPT", "UNCONFIRMED", "RESTORED", "LOST")
OF_TURNS = {"TURNS", "TURN_COUNT", "TURN_DURATION", "TURN_WAIT_TIME"}
METRICS = {"DURATION", "CONNECTIONS", "MOST_CONNECTIONS", "PENDING_REQUESTS", *COUNTERS, *OF_TURNS}
METRICS_ONLY = {"POOL_NAME", "CONNECTION_STATE", "TURN_STATE"}
EVENTS = {name for name in NAMES if name.endswith("_EVENT")}


def test_the_tables_of_telemetry_list_every_name_and_unit() -> None:
    spans = {row[0] for row in rows(section("observability", "Spans"))}
    assert spans == {NAMES[name] for name in set(NAMES) - METRICS - METRICS_ONLY - EVENTS}
    assert "LOST_EVENT" in EVENTS
    for name in (names.ATTEMPT_SPAN, names.TURN_SPAN, names.CLAIM_SPAN):
        assert f"`{name}`" in section("observability", "Spans")
    for name in EVENTS:
        assert f"`{NAMES[name]}`" in section("observability", "Spans")
    listed = {row[0]: row[2] for row in rows(section("observability", "Metrics"))}
    made = vars(instruments.INSTRUMENTS).values()
    assert listed == {instrument._name: instrument._unit for instrument in made}
    assert set(listed) == {NAMES[name] for name in METRICS}
    shown = " ".join(row[-1] for row in rows(section("observability", "Metrics")))
    assert all(f"`{NAMES[name]}`" in shown for name in METRICS_ONLY)
    assert {f"agents_redis_ha.{name}" for name in counters()} == {NAMES[name] for name in COUNTERS}


def test_the_table_of_what_becomes_of_a_turn_is_the_one_of_the_code() -> None:
    listed = [row[0] for row in rows(section("observability", "What became of a turn"))]
    assert sorted(listed) == sorted(get_args(TurnEnd))


@pytest.mark.parametrize("page", ["docs/topologies.md", "compose/tls/credentials.py"])
def test_a_sentinels_documented_user_may_hear_every_announcement(page: str) -> None:
    channels = re.findall(r"&(\+[\w*-]+)", (ROOT / page).read_text(encoding="utf-8"))
    unheard = [step for step in sentinel_events.STEPS if not any(fnmatchcase(step, channel) for channel in channels)]
    assert unheard == []


def test_every_error_of_an_operation_is_in_the_table_of_failures_or_above_it() -> None:
    told = section("guarantees", "What a failure does")
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.OperationError) and kind is not errors.OperationError:
            assert f"`{kind.__name__}`" in told
    for outcome in errors.Outcome:
        assert f"`{outcome.value}`" in section("guarantees", "What is promised")


def test_the_documented_options_of_the_demo_are_those_of_the_command() -> None:
    commands: Any = next(action for action in build_parser()._actions if action.dest == "command")
    known = {option for action in commands.choices["demo"]._actions for option in action.option_strings}
    listed = {row[0] for row in rows(section("demo", "`agents-redis-ha demo`"))}
    assert listed == known - {"-h", "--help"}


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        leads_to = page.parent / path if path else page
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


UNCLEAR = (r"\b(whoever|somebody|nobody|anybody)\b", r"\bwho (knows|has|misses|made)\b")
"""Instead of these a sentence names what acts: the process, the server, the session, the writer."""


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sentence_names_who_acts(path: Path) -> None:
    text = re.sub(r"\s+(#|--)?\s*", " ", path.read_text(encoding="utf-8"))  # a sentence goes on over comment lines
    found = [match for pattern in UNCLEAR for match in re.finditer(pattern, text, re.IGNORECASE)]
    assert [text[max(0, match.start() - 40) : match.end() + 40] for match in found] == []
