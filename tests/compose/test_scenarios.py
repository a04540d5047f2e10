"""The scenarios of ``compose/`` through the command that a person runs: up, broken, verified, taken down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.docker import IMAGES, REPOSITORY, new_project

DEADLINE_SECONDS = 420


@pytest.fixture(autouse=True)
def images(need_images: Callable[..., None]) -> None:
    need_images("REDIS_IMAGE", "PYTHON_IMAGE")


def play(*arguments: str) -> tuple[int, str, str]:
    """The exit code, the story, and the project that it was played in."""
    project = new_project()
    command = [sys.executable, "compose/scenario.py", *arguments, "--project", project]
    ended = subprocess.run(
        [*command, "--deadline", str(DEADLINE_SECONDS)],
        cwd=REPOSITORY,
        env={**os.environ, **IMAGES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS + 60,
        check=False,
    )
    print(ended.stdout, ended.stderr)
    return ended.returncode, ended.stdout, project


def left_over(project: str) -> list[str]:
    """Containers, networks and volumes of a project."""
    label = f"label=com.docker.compose.project={project}"
    found = [["docker", "ps", "--all"], ["docker", "network", "ls"], ["docker", "volume", "ls"]]
    return [
        line
        for command in found
        for line in subprocess.check_output([*command, "--quiet", "--filter", label], text=True).splitlines()
    ]


@pytest.mark.timeout(DEADLINE_SECONDS + 90)
@pytest.mark.parametrize(
    ("topology", "breaks", "told"),
    [
        ("sentinel", "partition,roll", ["cut off the network, with", "all 6 servers restarted"]),
        ("cluster", "pause,hand-over,move-slots", ["frozen, with", "has handed over", "slots moved; "]),
        ("tls", "kill", ["a client without a certificate: refused", "FLUSHALL: refused", "killed (SIGKILL), with"]),
    ],
)
def test_every_conversation_is_whole_after(topology: str, breaks: str, told: list[str]) -> None:
    code, story, project = play(topology, "--break", breaks)
    assert code == 0, story
    for what in told:
        assert what in story
    assert re.search(r"verify: All (\d+) conversations are whole: \d+ items, each once and in its place", story)
    assert left_over(project) == []


@pytest.mark.timeout(DEADLINE_SECONDS + 90)
def test_an_item_that_was_deleted_behind_the_librarys_back_is_found() -> None:
    code, story, project = play("sentinel", "--break", "delete-item")
    assert code == 1, story
    assert "1 lost" in story
    assert left_over(project) == []


@pytest.mark.parametrize(
    "arguments", [("ring",), ("sentinel", "--break", "flood"), ("sentinel", "--break", "move-slots")]
)
def test_what_does_not_exist_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert play(*arguments)[0] == 2
