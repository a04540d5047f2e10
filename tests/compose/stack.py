"""Compose files under a project name of their own, and the images that they name."""

from __future__ import annotations

import os
import random
import subprocess
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from testcontainers.compose import DockerCompose

REPOSITORY = Path(__file__).parents[2]

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


class Stack(DockerCompose):
    """The services of compose files, under a unique project name; a context manager that takes them all down again.

    ``get_container``, ``get_logs`` and the ports are those of testcontainers.

    Args:
        files: Compose files, relative to the repository's root.
        variables: Environment variables for the files, on top of this process's own.
        profiles: Profiles to start as well.
    """

    def __init__(self, *files: str, variables: Mapping[str, str] | None = None, profiles: tuple[str, ...] = ()) -> None:
        super().__init__(REPOSITORY, list(files), build=True, quiet_build=True, profiles=list(profiles) or None)
        self.project = f"ha-test-{uuid.uuid4().hex[:8]}"
        subnet = f"10.{random.randint(214, 254)}.{random.randint(0, 255)}"  # two stacks may be there at a time
        self._addresses: dict[str, str] = {}  # of those that were cut off
        self._variables = {"SUBNET": subnet, **IMAGES, **(variables or {})}

    @property
    def compose_command_property(self) -> list[str]:
        """``docker compose`` with the project, files, profiles and variables of this stack."""
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        files = [part for name in self.compose_file_name or () for part in ("-f", str(REPOSITORY / name))]
        profiles = [part for name in self.profiles or () for part in ("--profile", name)]
        return ["env", *variables, "docker", "compose", "-p", self.project, *files, *profiles]

    def start(self) -> None:
        """Build what is to be built, start the services, and wait until all are healthy."""
        self("up", "--build", "--quiet-pull", "--wait", *(self.services or ()))

    def stop(self, down: bool = True) -> None:
        """Remove containers, networks and volumes; with ``down=False`` only stop the containers."""
        if down:
            self("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1")
        else:
            self("stop")

    def __call__(self, *arguments: str, timeout_seconds: float | None = None) -> str:
        """Run ``docker compose`` with these arguments, e.g. ``stack("kill", "redis-1")``; returns its output."""
        return self._run([*self.compose_command_property, *arguments], timeout_seconds)

    def execute(self, service: str, *command: str) -> str:
        """The output of a command in a service's running container."""
        return self("exec", "-T", service, *command)

    def run(self, service: str, *command: str, timeout_seconds: float | None = None) -> str:
        """The output of a command in a new container of a service, without what that service depends on."""
        return self("run", "--rm", "-T", "--no-deps", service, *command, timeout_seconds=timeout_seconds)

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return str(self.get_container(service, include_all=True).ID)

    @property
    def network(self) -> str:
        """The name of the network that Compose makes if the files name none."""
        return f"{self.project}_default"

    def cut(self, service: str) -> None:
        """Take a service's container off the network."""
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        container = self.container(service)
        self._addresses[service] = self._run(["docker", "inspect", "--format", address, container]).strip()
        self._run(["docker", "network", "disconnect", "--force", self.network, container])

    def mend(self, service: str) -> None:
        """Put a container back on the network, under its service's name and its address of before."""
        names = ["--alias", service, "--ip", self._addresses.pop(service)]
        self._run(["docker", "network", "connect", *names, self.network, self.container(service)])

    def _run(self, command: list[str], timeout_seconds: float | None = None) -> str:
        ended = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
        if ended.returncode:
            raise StackError(f"{' '.join(command)} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.stdout


class StackError(RuntimeError):
    """A command failed; the message holds all that it said."""
