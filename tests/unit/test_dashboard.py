"""The dashboard, and the page that goes with it, ask for what there is."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from agents_redis_ha._telemetry import names
from agents_redis_ha._telemetry.instruments import INSTRUMENTS
from tests.support.dashboard_queries import DASHBOARD, Query, dashboard, documented_queries, panel_queries

SERVICE = "http_server_request_duration_seconds"
"""What the instrumentation of FastAPI measures."""

GIVEN_BY_PROMETHEUS = {"job", "instance", "le"}
GIVEN_BY_FASTAPI = {"http_route", "http_response_status_code"}
LINK_PARAMETERS = {"service", "operation", "tags", "minDuration", "start", "end", "limit", "lookback"}
"""What Jaeger's page `/search` understands, of what the links use (jaeger-ui, SearchTracePage/url.ts)."""


def as_prometheus_names(dotted: str) -> str:
    return dotted.replace(".", "_")


def exposed() -> set[str]:
    """The series of every instrument (https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/)."""
    found = set()
    for instrument in vars(INSTRUMENTS).values():
        name = as_prometheus_names(instrument._name)
        kind = type(instrument).__name__
        if kind.endswith("Histogram"):
            found |= {f"{name}_seconds_{part}" for part in ("bucket", "count", "sum")}
        else:
            found.add(name if kind.endswith("UpDownCounter") else f"{name}_total")
    return found


ATTRIBUTES = {as_prometheus_names(name) for name in vars(names).values() if isinstance(name, str) and "." in name}
LABELS = ATTRIBUTES | GIVEN_BY_PROMETHEUS | GIVEN_BY_FASTAPI
METRICS = exposed() | {f"{SERVICE}_{part}" for part in ("bucket", "count")}
QUERIES = [*panel_queries(), *documented_queries()]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_names_metrics_and_labels_that_are_exposed(query: Query) -> None:
    words = set(re.findall(r"[a-z]+(?:_[a-z]+)+", re.sub(r'"[^"]*"|\$\w+', "", query.text)))
    functions = {"histogram_quantile", "label_replace", "last_over_time", "max_over_time", "label_values"}
    assert words - functions <= METRICS | LABELS
    assert words & METRICS


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(query.text for query in panel_queries())
    not_shown = {name for name in exposed() if name not in shown}
    assert {name.removesuffix("_sum").removesuffix("_count") + "_bucket" for name in not_shown} <= exposed() - not_shown


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def links() -> list[str]:
    return [link["url"] for panel in panels() for link in panel["fieldConfig"]["defaults"].get("links", ())]


def test_panels_filter_by_topology_and_node() -> None:
    assert all('agents_redis_ha_topology=~"$topology"' in query.text for query in panel_queries())
    unfiltered = {query.title for query in panel_queries() if 'server_address=~"$node"' not in query.text}
    of_turns = {query.title for query in panel_queries() if "agents_redis_ha_turn" in query.text}
    assert len(of_turns) == 5
    # Counted where no node is known; and a turn's operations may go to several.
    assert unfiltered == {"Corrupt items A", "Repeats, repairs, losses D", *of_turns}


@pytest.mark.parametrize("url", sorted(set(links())))
def test_a_link_asks_jaeger_in_its_own_words(url: str) -> None:
    address, _, query = url.partition("/search?")
    assert address == "${jaeger}"
    asked = dict(parse_qsl(urlsplit(f"//{query}").path or query, strict_parsing=True))
    assert asked.keys() <= LINK_PARAMETERS
    assert {"service", "start", "end"} <= asked.keys()
    assert asked["start"].endswith("000")  # microseconds, of the milliseconds that Grafana gives
    assert asked["end"].endswith("000")
    for label in re.findall(r"__field\.labels\.(\w+)", url):
        assert label in LABELS


def test_labels_in_legends_and_links_are_kept_by_their_queries() -> None:
    for panel in panels():
        wanted = re.findall(r"__field\.labels\.(\w+)", str(panel["fieldConfig"]))
        for target in panel["targets"]:
            legend = re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
            kept = set(
                chain.from_iterable(by.split(", ") for by in re.findall(r"\bby \(([^)]*)\)", target.get("expr", "")))
            )
            assert {*legend, *wanted} <= kept, panel["title"]


def test_what_is_provisioned_is_what_the_dashboard_asks() -> None:
    provisioning = DASHBOARD.parents[1] / "provisioning"
    sources = (provisioning / "datasources" / "datasources.yml").read_text(encoding="utf-8")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "datasource":
            assert f"uid: {variable['current']['value']}\n" in sources
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}", "${traces}"}
    compose = (DASHBOARD.parents[3] / "observability.yml").read_text(encoding="utf-8")
    folder = "/etc/grafana/dashboards"
    assert f"path: {folder}\n" in (provisioning / "dashboards" / "dashboards.yml").read_text(encoding="utf-8")
    assert f":{folder}:ro" in compose
    assert f"{folder}/{DASHBOARD.name}\n" in compose
