"""Runs the tests in several processes without being told to, and says which of them share a process.

Tests wait for servers most of the time, so there are more processes than cores. A process starts the labs that its
tests ask for, so tests of the same lab go to the same process.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

PROCESSES_PER_CORE = 3
# The folders in the order in which they begin: what takes longest comes first, so that nothing long is left at the end.
_ORDER = ("compose", "failover", "lab", "contract", "demo", "docs", "service", "unit")
_TOPOLOGY = re.compile(r"\[(?:.*-)?(standalone|sentinel|cluster|tls)(?:-.*)?\]$")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of processes, unless the command line did: by `-n`, `--dist`, `--pdb` or `-p no:xdist`."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or _is_worker(config):
        return
    if option.usepdb or option.tx or option.dist != "no":
        return
    if option.numprocesses is None:
        option.numprocesses = processes_for(config.args)
    if option.numprocesses:
        option.dist = "loadscope"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Choose for `-n auto`, which pytest-cov needs: it looks before `pytest_cmdline_main` has chosen."""
    return max(1, processes_for(config.args))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out tests by what they share, in place of xdist's `loadscope`."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByLab(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
        def _split_scope(self, nodeid: str) -> str:
            return shared_by(nodeid)

    config.option.loadscopereorder = False
    return ByLab(config, log)


def sort_for_processes(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the folders with the longest tests begin first."""
    if _is_worker(config):
        items.sort(key=lambda item: _ORDER.index(_folder(item.nodeid)) if _folder(item.nodeid) in _ORDER else -1)


def processes_for(arguments: list[str]) -> int:
    """Return how many processes these arguments of pytest are worth; 0 for a single file, which needs no other one."""
    paths = [Path(argument.partition("::")[0]).resolve() for argument in arguments]
    if len(set(paths)) == 1 and paths[0].is_file():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if all("unit" in path.parts for path in paths) else cores * PROCESSES_PER_CORE


def shared_by(nodeid: str) -> str:
    """Return a name for the tests that run one after the other in one process, because they share a lab."""
    folder, file, topology = _folder(nodeid), nodeid.partition("::")[0], _TOPOLOGY.search(nodeid)
    if folder == "failover":
        return nodeid  # each starts its own
    if topology is None:
        return file
    if folder != "contract":
        return f"{file} {topology[1]}"
    # Those with Sentinels wait for elections, longer than all others: two labs of theirs halve that.
    return f"{folder} {topology[1]} {zlib.crc32(file.encode()) % 2 if topology[1] == 'sentinel' else ''}"


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _folder(nodeid: str) -> str:
    return nodeid.split("/")[1]
