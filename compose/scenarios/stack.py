"""One stack of containers: ``docker compose`` and ``docker``, bounded in time, with errors that tell."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FOLDER = Path(__file__).parents[1]
COMMAND_SECONDS = 120.0
"""For one command or one wait; many times what an idle machine needs."""
BUILD_SECONDS = 900.0
"""A first run pulls images and installs packages."""


class ScenarioError(Exception):
    """The scenario did not show what it was to show; the message says why."""


class Stack:
    """The services of one compose file.

    Args:
        topology: Name of the file.
        project: Name under which Compose keeps them.
        deadline: Moment on the monotonic clock after which nothing is waited for.
    """

    def __init__(self, topology: str, project: str, deadline: float) -> None:
        self.topology = topology
        self.project = project
        self._deadline = deadline
        self._compose = ["docker", "compose", "-p", project, "-f", str(FOLDER / f"{topology}.yml")]
        self._checks: dict[str, list[str]] = {}
        self._environment = {**os.environ}
        self._environment.setdefault("SUBNET", self._subnet())

    def up(self) -> None:
        """Build the writers' image, start the servers, and wait until all are healthy."""
        self._run([*self._compose, "build", "--quiet", "writers"], BUILD_SECONDS)
        self._run([*self._compose, "up", "--quiet-pull", "--wait"], BUILD_SECONDS)

    def down(self) -> None:
        """Remove everything: containers, network, volumes."""
        command = [*self._compose, "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1"]
        # Not within the deadline: it may be over, and nothing must be left behind.
        subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS, check=True, env=self._environment)

    def start_writers(self, *command: str) -> subprocess.Popen[str]:
        """Run a command in a new container of the writers; its name is ``container("writers")``."""
        name = self.container("writers")
        whole = [*self._compose, "run", "--rm", "-T", "--no-deps", "--name", name, "writers", *command]
        return subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run_writers(self, *command: str) -> tuple[int, str]:
        """The exit code and the output of a command in a new container of the writers."""
        whole = [*self._compose, "run", "--rm", "-T", "--no-deps", "writers", *command]
        ended = self._bounded(whole, COMMAND_SECONDS)
        return ended.returncode, ended.stdout or ended.stderr

    def docker(self, *arguments: str) -> str:
        """The output of ``docker`` with these arguments."""
        return self._run(["docker", *arguments], COMMAND_SECONDS)

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-1"

    def ask(self, service: str, command: str, commands: Sequence[str] = ()) -> list[str]:
        """The lines that a server answers to a line for redis-cli, or to several, one after the other.

        Args:
            service: The server.
            command: Options, and the command if there is but one.
            commands: Commands to send on one connection.

        Raises:
            ScenarioError: The container does not run, or refused.
        """
        cli = "/servers/cli" if self.topology == "tls" else "redis-cli"
        shell = ["docker", "exec", "-i", self.container(service), "sh", "-c", f"{cli} {command}"]
        return self._run(shell, COMMAND_SECONDS, "".join(f"{line}\n" for line in commands)).splitlines()

    def healthy(self, service: str) -> bool:
        """Whether a service passes its own health check now."""
        if service not in self._checks:
            said = self.docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", self.container(service))
            self._checks[service] = json.loads(said)[1:]
        test = ["docker", "exec", self.container(service), "sh", "-c", *self._checks[service]]
        return self._bounded(test, COMMAND_SECONDS).returncode == 0

    def inspect(self, service: str, field: str) -> str:
        """A field of a container's state, e.g. ``.State.StartedAt``."""
        return self.docker("inspect", "--format", f"{{{{{field}}}}}", self.container(service)).strip()

    def wait_until(self, condition: Callable[[], T | None], what: str, seconds: float = COMMAND_SECONDS) -> T:
        """Wait until a condition holds, and return what it returned.

        Raises:
            ScenarioError: It did not, in time.
        """
        end = min(time.monotonic() + seconds, self._deadline)
        while True:
            try:
                found = condition()
            except ScenarioError:
                found = None  # a server that is down or cut off cannot be asked
            if found:
                return found
            if time.monotonic() > end:
                raise ScenarioError(f"waited in vain until {what}")
            time.sleep(0.1)

    def _subnet(self) -> str:
        """The first three bytes of the network's addresses: as it has them already, or such as no other network has."""
        names = self.docker("network", "ls", "--format", "{{.Name}}").split()
        ranges = {
            name: self.docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name)
            for name in names
        }
        own = ranges.get(f"{self.project}_default", "").strip().rpartition(".")[0]
        taken = " ".join(ranges.values())
        free = [subnet for subnet in (f"10.213.{number}" for number in range(256)) if f"{subnet}." not in taken]
        return own or random.choice(free)

    def _run(self, command: Sequence[str], seconds: float, given: str | None = None) -> str:
        ended = self._bounded(command, seconds, given)
        if ended.returncode:
            said = (ended.stderr or ended.stdout).strip()
            raise ScenarioError(f"{' '.join(command)} ended with {ended.returncode}: {said[-2000:]}")
        return ended.stdout

    def _bounded(
        self, command: Sequence[str], seconds: float, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        left = max(1.0, min(seconds, self._deadline - time.monotonic()))
        try:
            return subprocess.run(
                command,
                input=given or "",
                capture_output=True,
                text=True,
                timeout=left,
                check=False,
                env=self._environment,
            )
        except subprocess.TimeoutExpired:
            raise ScenarioError(f"{' '.join(command)} did not end within {left:.0f} s") from None
        except OSError as error:
            raise ScenarioError(f"{command[0]} cannot be run: {error}") from error
