"""The tests run in several processes by themselves, where that is worth it and where it was not decided otherwise."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from tests.support import parallel


class Config(Namespace):
    """What the hook reads of pytest's configuration."""

    def __init__(self, *args: str, plugins: tuple[str, ...] = ("xdist",), **chosen: Any) -> None:
        options = {"numprocesses": None, "dist": "no", "tx": [], "usepdb": False} | chosen
        super().__init__(args=list(args), option=Namespace(**options), pluginmanager=self, plugins=plugins)

    def hasplugin(self, name: str) -> bool:
        return name in self.plugins


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(2), raising=False)
    return 2


def chosen(config: Config) -> tuple[int | None, str]:
    parallel.pytest_cmdline_main(config)  # type: ignore[arg-type]
    return config.option.numprocesses, config.option.dist


def test_tests_that_wait_for_servers_get_more_processes_than_there_are_cores(cores: int) -> None:
    assert chosen(Config("tests")) == (cores * parallel.PROCESSES_PER_CORE, "loadscope")
    assert parallel.PROCESSES_PER_CORE > 1


def test_tests_without_servers_get_a_process_a_core(cores: int) -> None:
    assert chosen(Config("tests/unit")) == (cores, "loadscope")
    assert chosen(Config("tests/unit/_storage", "tests/unit/test_errors.py")) == (cores, "loadscope")


@pytest.mark.parametrize("argument", [__file__, f"{__file__}::test_tests_without_servers_get_a_process_a_core"])
def test_a_single_file_runs_in_the_process_that_was_started(argument: str) -> None:
    assert chosen(Config(argument)) == (0, "no")


def test_a_number_of_processes_that_was_asked_for_is_kept_and_shares_labs_too() -> None:
    assert chosen(Config("tests", numprocesses=5)) == (5, "loadscope")


def test_auto_is_the_same_choice_and_at_least_one(cores: int) -> None:
    assert parallel.pytest_xdist_auto_num_workers(Config("tests")) == cores * parallel.PROCESSES_PER_CORE  # type: ignore[arg-type]
    assert parallel.pytest_xdist_auto_num_workers(Config(__file__)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"numprocesses": 0}, {"numprocesses": 3, "dist": "load"}, {"usepdb": True}])
def test_what_the_command_line_chose_stays(option: dict[str, Any]) -> None:
    config = Config("tests", **option)
    assert chosen(config) == (option.get("numprocesses"), option.get("dist", "no"))


def test_without_xdist_there_is_nothing_to_choose() -> None:
    config = Config("tests", plugins=())
    del config.option.numprocesses, config.option.dist
    parallel.pytest_cmdline_main(config)  # type: ignore[arg-type]
    assert not hasattr(config.option, "numprocesses")


def test_a_process_that_runs_tests_starts_no_others() -> None:
    config = Config("tests")
    config.workerinput = {"workerid": "gw0"}  # set before the hook is called
    assert chosen(config) == (None, "no")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (
            "tests/contract/test_once.py::test_a[cluster-append]",
            "tests/contract/test_kept.py::test_b[x-cluster]",
            True,
        ),
        (
            "tests/contract/test_once.py::test_a[sentinel-append]",
            "tests/contract/test_once.py::test_b[x-sentinel]",
            True,
        ),
        (
            "tests/contract/test_once.py::test_a[sentinel-append]",
            "tests/contract/test_once.py::test_a[tls-append]",
            False,
        ),
        ("tests/contract/test_errors.py::test_a", "tests/contract/test_errors.py::test_b", True),
        ("tests/contract/test_errors.py::test_a", "tests/contract/test_tls.py::test_a", False),
        ("tests/lab/test_moves.py::test_a[sentinel-True]", "tests/lab/test_moves.py::test_b[sentinel]", True),
        ("tests/lab/test_moves.py::test_a[sentinel]", "tests/lab/test_tls.py::test_a[sentinel]", False),
        (
            "tests/failover/test_demo.py::test_a[sentinel-kill]",
            "tests/failover/test_demo.py::test_a[sentinel-stall]",
            False,
        ),
    ],
)
def test_tests_that_share_a_lab_share_a_process(one: str, other: str, together: bool) -> None:
    assert (parallel.shared_by(one) == parallel.shared_by(other)) is together
