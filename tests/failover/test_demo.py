"""The main job, end to end: real conversations, worker processes, a fault in the middle, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SECONDS = 540
"""For a run that takes half a minute on an idle machine."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS + 60)]


def demo(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "agents_redis_ha", "demo", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("topology", "fault"),
    [
        ("sentinel", "kill"),
        pytest.param("sentinel", "stall", marks=pytest.mark.proof),
        ("cluster", "kill"),
        pytest.param("cluster", "move-slot", marks=pytest.mark.proof),
        pytest.param("tls", "stall", marks=pytest.mark.proof),
    ],
)
def test_no_turn_is_lost_doubled_or_out_of_order(topology: str, fault: str) -> None:
    code, report = demo("--topology", topology, "--fault", fault)
    assert code == 0, report
    assert (report["lost"], report["duplicated"], report["out_of_order"], report["failed_turns"]) == (0, 0, 0, 0)
    assert report["turns"] > 100
    assert report["redelivered_turns"] > 0


def test_the_same_demo_on_the_sdks_own_session_does_not_end_whole() -> None:
    code, report = demo("--topology", "sentinel", "--fault", "kill", "--session", "sdk")
    assert code == 1
    assert report["failed_turns"] > 0
    assert report["lost"] + report["duplicated"] + report["out_of_order"] > 0
