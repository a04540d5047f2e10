"""One stack of containers: ``docker compose`` and ``docker``, bounded in time, with errors that tell."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]
COMMAND_SECONDS = 120.0
"""For one command or one wait; many times what an idle machine needs."""
BUILD_SECONDS = 900.0
"""A first run pulls images and installs packages."""
POLL_SECONDS = 0.2
"""Between two questions of a wait: each question to a container takes its share of the processors."""


class ScenarioError(Exception):
    """A command failed, or the servers did not do what they were to do; the message says which and why."""


class Stack:
    """The services of compose files; as a context manager it starts them, and takes them down at its end.

    Args:
        files: The compose files, relative to the repository's root.
        project: Name under which Compose keeps them.
        variables: Environment variables for the files, on top of this process's own.
        cli: What ``redis-cli`` is in the servers' containers.
        deadline: Moment on the monotonic clock after which nothing is waited for; none unless given.
    """

    def __init__(
        self,
        *files: str,
        project: str,
        variables: Mapping[str, str] | None = None,
        cli: str = "redis-cli",
        deadline: float = math.inf,
    ) -> None:
        self.project = project
        self._cli = cli
        self._deadline = deadline
        named = [part for file in files for part in ("-f", str(REPOSITORY / file))]
        self._compose = ["docker", "compose", "-p", project, *named]
        self._checks: dict[str, list[str]] = {}
        self._addresses: dict[str, str] = {}  # of the services that were cut off
        self._environment = {**os.environ, **(variables or {})}
        self._environment.setdefault("SUBNET", self._subnet())

    def __enter__(self) -> Stack:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self, *built: str) -> None:
        """Build what is to be built, start the services, and wait until all are healthy.

        Args:
            built: Services to build that are not started with the others.
        """
        if built:
            self.compose("build", "--quiet", *built, seconds=BUILD_SECONDS)
        self.compose("up", "--build", "--quiet-pull", "--wait", seconds=BUILD_SECONDS)

    def down(self) -> None:
        """Remove everything: containers, networks, volumes."""
        command = [*self._compose, "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1"]
        # Not within the deadline: it may be over, and nothing must be left behind.
        subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS, check=True, env=self._environment)

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """The output of ``docker compose`` with these arguments."""
        return self._run([*self._compose, *arguments], seconds)

    def docker(self, *arguments: str) -> str:
        """The output of ``docker`` with these arguments."""
        return self._run(["docker", *arguments], COMMAND_SECONDS)

    def start(self, service: str, *command: str) -> subprocess.Popen[str]:
        """Run a command in a new container of a service, which is called ``container(service)``."""
        whole = [*self._compose, "run", "--rm", "-T", "--no-deps", "--name", self.container(service), service, *command]
        return subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run(self, service: str, *command: str) -> tuple[int, str]:
        """The exit code and the output of a command in a new container of a service."""
        ended = self._bounded([*self._compose, "run", "--rm", "-T", "--no-deps", service, *command], COMMAND_SECONDS)
        return ended.returncode, ended.stdout or ended.stderr

    def container(self, service: str, replica: int = 1) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-{replica}"

    def address(self, service: str, port: int) -> str:
        """``host:port`` under which this machine reaches a port of a service."""
        return self.compose("port", service, str(port)).strip()

    def ask(
        self, service: str, command: str, commands: Sequence[str] = (), seconds: float = COMMAND_SECONDS
    ) -> list[str]:
        """The lines that a server answers to a line for redis-cli, or to several, one after the other.

        Args:
            service: The server.
            command: Options, and the command if there is but one.
            commands: Commands to send on one connection.
            seconds: How long it may take.

        Raises:
            ScenarioError: The container does not run, or refused.
        """
        shell = ["docker", "exec", "-i", self.container(service), "sh", "-c", f"{self._cli} {command}"]
        return self._run(shell, seconds, "".join(f"{line}\n" for line in commands)).splitlines()

    def healthy(self, service: str) -> bool:
        """Whether a service passes its own health check now."""
        if service not in self._checks:
            said = self.docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", self.container(service))
            self._checks[service] = json.loads(said)[1:]
        test = ["docker", "exec", self.container(service), "sh", "-c", *self._checks[service]]
        return self._bounded(test, COMMAND_SECONDS).returncode == 0

    def inspect(self, service: str, field: str, replica: int = 1) -> str:
        """A field of a container's state, e.g. ``.State.StartedAt``."""
        return self.docker("inspect", "--format", f"{{{{{field}}}}}", self.container(service, replica)).strip()

    def cut(self, service: str) -> None:
        """Take a service's container off the network that Compose made."""
        self._addresses[service] = self.inspect(service, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end")
        self.docker("network", "disconnect", "--force", self._network, self.container(service))

    def mend(self, service: str) -> None:
        """Put a container back on the network, under its service's name and its address of before."""
        names = ("--ip", self._addresses.pop(service), "--alias", service)
        self.docker("network", "connect", *names, self._network, self.container(service))

    def wait_for(self, condition: Callable[[], T | None], what: str, seconds: float = COMMAND_SECONDS) -> T:
        """What a condition returned when it held.

        A question that fails says that it does not hold yet: a server that is down or cut off cannot be asked.

        Args:
            condition: Asked again and again.
            what: The condition in words, for the error's message.
            seconds: How long at most; less if the stack's deadline comes first.

        Raises:
            ScenarioError: It did not hold, in time.
        """
        end = min(time.monotonic() + seconds, self._deadline)
        while True:
            try:
                found = condition()
            except (ScenarioError, OSError):
                found = None
            if found:
                return found
            if time.monotonic() > end:
                raise ScenarioError(f"waited in vain until {what}")
            time.sleep(POLL_SECONDS)

    @property
    def _network(self) -> str:
        return f"{self.project}_default"

    def _subnet(self) -> str:
        """The first three bytes of the network's addresses: as it has them already, or such as no other network has."""
        names = self.docker("network", "ls", "--format", "{{.Name}}").split()
        ranges = {
            name: self.docker("network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name)
            for name in names
        }
        own = ranges.get(self._network, "").strip().rpartition(".")[0]
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
