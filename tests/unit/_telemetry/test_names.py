"""How nodes and operations are named in attributes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agents_redis_ha._telemetry import names

CONSTANTS = {name: value for name, value in vars(names).items() if name.isupper()}


@pytest.mark.parametrize(
    ("node", "address", "port"),
    [
        ("h:1", "h", 1),
        ("[::1]:7", "::1", 7),
        ("10.0.0.1:6379", "10.0.0.1", 6379),
        ("h", "h", None),
        ("/run/redis.sock", "/run/redis.sock", None),
        ("/run/redis:main.sock", "/run/redis:main.sock", None),
        ("/run/redis:7", "/run/redis:7", None),
        (None, None, None),
    ],
)
def test_a_node_is_an_address_and_a_port(node: Any, address: Any, port: Any) -> None:
    found = names.server(node)
    assert (found.get("server.address"), found.get("server.port")) == (address, port)
    assert None not in found.values()


def test_an_operation_is_named_with_its_node_and_topology() -> None:
    assert names.operation_on("h:1", "append", "cluster") == {
        "db.system.name": "redis",
        "db.operation.name": "append",
        "agents_redis_ha.topology": "cluster",
        "server.address": "h",
        "server.port": 1,
    }
    assert "server.address" not in names.operation_on(None, "append", "cluster")


def test_what_was_made_once_is_given_again() -> None:
    assert names.server("h:1") is names.server("h:1")
    assert names.operation_on("h:1", "read", "cluster") is names.operation_on("h:1", "read", "cluster")
    assert names.operation_on("h:1", "read", "cluster") is not names.operation_on("h:2", "read", "cluster")


def test_however_many_nodes_are_met_the_caches_are_bounded() -> None:
    for cached in (names.server, names.operation_on):
        assert cached.cache_info().maxsize in range(1, 10_000)


def test_what_the_conventions_do_not_name_is_named_after_the_package() -> None:
    conventions = ("db.", "gen_ai.", "server.", "error.")
    for name, value in CONSTANTS.items():
        is_of_no_namespace = value == names.SCOPE or name.endswith("_SPAN")
        assert is_of_no_namespace or value.startswith((*conventions, f"{names.SCOPE}."))
        assert re.fullmatch(r"[a-z][a-z_.]+", value), name


def test_all_names_are_exported() -> None:
    assert set(CONSTANTS) | {"server", "operation_on"} == set(names.__all__)
