"""The images that tests in Docker name, whether they can be had, and stacks that are started from them."""

from __future__ import annotations

import os
import subprocess
import uuid
from functools import cache

from scenarios.stack import REPOSITORY, Stack

OFFICIAL = {
    "REDIS_IMAGE": "redis:8.2",
    "REDIS7_IMAGE": "redis:7.0",
    "VALKEY_IMAGE": "valkey/valkey:8.1",
    "PYTHON_IMAGE": "python:3.11-slim",
    "NGINX_IMAGE": "nginx:1.28",
    "PROMETHEUS_IMAGE": "prom/prometheus:v3.5.0",
}
"""The variables that name images, and what holds where they are not set."""

IMAGES = {variable: os.environ.get(variable) or official for variable, official in OFFICIAL.items()}
"""The images of this run, by variable."""

PULL_SECONDS = 300
ANSWER_SECONDS = 30


def new_project() -> str:
    """A name for a project of Compose that no other run has."""
    return f"ha-test-{uuid.uuid4().hex[:8]}"


def new_stack(*files: str, **variables: str) -> Stack:
    """The services of compose files in a project of their own, from the images of this run.

    Args:
        files: Compose files, relative to the repository's root.
        variables: Environment variables for the files.
    """
    return Stack(*files, project=new_project(), variables={**IMAGES, **variables})


@cache
def why_no_docker() -> str | None:
    """Why no stack can be started here; ``None`` if one can."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            answer = _ask(command, ANSWER_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{' '.join(command)}: {error}"
        if answer.returncode:
            return f"{' '.join(command)}: {_last_line(answer.stderr)}"
    return None


@cache
def why_no_image(image: str) -> str | None:
    """Why an image cannot be had; ``None`` if it is here or was pulled."""
    if not _ask(["docker", "image", "inspect", image], ANSWER_SECONDS).returncode:
        return None
    try:
        pulled = _ask(["docker", "pull", "-q", image], PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"image {image} could not be pulled within {PULL_SECONDS} s"
    return f"image {image}: {_last_line(pulled.stderr)}" if pulled.returncode else None


def _ask(command: list[str], timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no reason given"


__all__ = ["IMAGES", "REPOSITORY", "new_project", "new_stack", "why_no_docker", "why_no_image"]
