"""Ports of a lab are its own for as long as it lives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agents_redis_ha.lab import ports

RESERVE = """
import sys
from agents_redis_ha.lab import ports
ports._random = type("Chosen", (), {"randint": lambda self, first, last: int(sys.argv[1])})()
print(ports.reserve_port())
"""


def reserve_elsewhere(port: int) -> str:
    """Return what another process says that wants this port."""
    done = subprocess.run([sys.executable, "-c", RESERVE, str(port)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr.rpartition("LabError: ")[2]


def test_a_reserved_port_is_kept_from_other_processes_until_it_is_released() -> None:
    port = ports.reserve_port()  # nothing listens there
    try:
        assert reserve_elsewhere(port).startswith("found no free port")
    finally:
        ports.release_port(port)
    assert reserve_elsewhere(port) == f"{port}\n"


def test_a_reserved_port_is_not_handed_out_again_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.reserve_port()
    second = ports.reserve_port()
    offered = [first, first, second, first]
    monkeypatch.setattr(ports, "_random", type("Chosen", (), {"randint": lambda self, low, high: offered.pop(0)})())
    ports.release_port(second)
    assert ports.reserve_port() == second
    ports.release_port(first)
    assert ports.reserve_port() == first
    for port in (first, second):
        ports.release_port(port)
