"""The version stands in one place, and is the same wherever it is told."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

import agents_redis_ha
from agents_redis_ha import HAConfig, cli
from agents_redis_ha._connections import factory
from agents_redis_ha._connections.factory import _DISTRIBUTION as DISTRIBUTION


def test_the_wheels_metadata_has_the_packages_version() -> None:
    assert importlib.metadata.version(DISTRIBUTION) == agents_redis_ha.__version__


def test_the_command_tells_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"agents-redis-ha {agents_redis_ha.__version__}\n"


def test_the_package_run_as_a_module_is_the_command() -> None:
    command = [sys.executable, "-m", "agents_redis_ha", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"agents-redis-ha {agents_redis_ha.__version__}\n"


def kwargs_of_a_connection() -> dict[str, Any]:
    config = HAConfig.from_url("redis://127.0.0.1:6379")
    return factory.node_client(config, config.nodes[0]).connection_pool.connection_kwargs


def test_a_connection_tells_the_server_the_version() -> None:
    assert kwargs_of_a_connection()["driver_info"].upstream_drivers == [
        f"{DISTRIBUTION}_v{agents_redis_ha.__version__}"
    ]


def test_a_further_client_reads_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs_of_a_connection()

    def refuse(name: str) -> str:
        raise AssertionError(f"the metadata of {name} was read from its files")

    monkeypatch.setattr(importlib.metadata, "version", refuse)
    kwargs_of_a_connection()
