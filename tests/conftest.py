"""What all tests share: real servers, one lab a topology started once a run; new session ids; recorded telemetry."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest

from agents_redis_ha import lab
from agents_redis_ha._sessions import shared_connections
from tests.support.parallel import (
    pytest_cmdline_main,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
    sort_for_processes,
)
from tests.support.recording import Telemetry

__all__ = ["pytest_cmdline_main", "pytest_xdist_auto_num_workers", "pytest_xdist_make_scheduler"]  # hooks of pytest's

TOPOLOGIES = ("standalone", "sentinel", "cluster", "tls")


def pytest_report_header() -> str:
    server = lab.find_server()
    versions = ", ".join(f"{name} {version(name)}" for name in ("redis", "openai-agents", "tenacity"))
    return f"server: {server.path} {'.'.join(map(str, server.version))}; {versions}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="Run the tests that take minutes, too.")
    parser.addoption("--proof", action="store_true", help="And all of their kind.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sort_for_processes(config, items)
    for marker, runs in (("proof", config.option.proof), ("faults", config.option.proof or config.option.faults)):
        if runs or marker in config.option.markexpr:
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"takes minutes: --{marker}"))


class Labs:
    """Starts each lab at its first use."""

    def __init__(self) -> None:
        self._started: dict[tuple[str, bool], lab.Lab] = {}

    def get(self, topology: str, *, proxies: bool = False) -> lab.Lab:
        key = (topology, proxies)
        if key not in self._started:
            kind: Any = "standalone" if topology == "tls" else topology
            self._started[key] = lab.start(kind, tls=topology == "tls", proxies=proxies)
        return self._started[key]

    def close(self) -> None:
        for started in self._started.values():
            started.close()


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    started = Labs()
    yield started
    started.close()


@pytest.fixture(autouse=True)
def journals_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that knows nothing yet: in shared labs it would look after other tests' sessions."""
    monkeypatch.setattr(shared_connections, "_journals", shared_connections._Journals())


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def servers(labs: Labs, topology: str) -> lab.Lab:
    """A lab that the tests share: leave it as you found it."""
    return labs.get(topology)


@pytest.fixture
def proxied(labs: Labs, topology: str) -> Iterator[lab.Lab]:
    """A lab with a proxy in front of every data node; healed after each test."""
    found = labs.get(topology, proxies=True)
    yield found
    for node in found.nodes:
        if node.proxy is not None:
            node.proxy.heal()


@pytest.fixture
def new_id() -> Callable[[], str]:
    return lambda: f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def session_id(new_id: Callable[[], str]) -> str:
    return new_id()


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Telemetry]]:
    """Starts to record; takes what the TracerProvider takes."""
    started: list[Telemetry] = []

    def start(**tracing: Any) -> Telemetry:
        started.append(Telemetry(monkeypatch, **tracing))
        return started[-1]

    yield start
    for each in started:
        each.tracers.shutdown()
        each.meters.shutdown()


@pytest.fixture
def telemetry(record: Callable[..., Telemetry]) -> Telemetry:
    return record()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that was to cover every topology and did not (AGENTS_REDIS_HA_REQUIRE_ALL=1, as CI sets it)."""
    required = os.environ.get("AGENTS_REDIS_HA_REQUIRE_ALL") and not session.config.option.collectonly
    if required and exitstatus == 0:
        missing = set(TOPOLOGIES) - _passed
        if missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\ntopologies that did not run: {', '.join(sorted(missing))}")


_passed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _passed.update(t for t in TOPOLOGIES if f"[{t}" in report.nodeid)
