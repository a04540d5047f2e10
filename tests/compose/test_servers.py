"""The contract tests against the servers of other images, in containers that have no network but their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage

from tests.support.docker import IMAGES, REPOSITORY

SECONDS = 900
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider", "tests/contract"]
RUN = ["python3", *PYTEST, "-v", "-n", "4", "--dist", "loadfile"]  # four workers: they wait more than they work
MAY_BE_SKIPPED = {
    "WAITAOF needs Redis 7.2",
    "this server has WAITAOF",
    "the same script as with 200",
    "hiredis is not installed",  # its tests run beside it on the host
}

pytestmark = pytest.mark.timeout(SECONDS + 300)


@pytest.fixture(params=["REDIS7_IMAGE", "REDIS_IMAGE", "VALKEY_IMAGE"])
def server_image(request: pytest.FixtureRequest, need_images: Callable[..., None]) -> str:
    need_images("PYTHON_IMAGE", request.param)
    return IMAGES[request.param]


@pytest.fixture
def contract_image(server_image: str) -> Iterator[str]:
    """The contract tests beside the server of an image."""
    arguments = {"SERVER_IMAGE": server_image, "PYTHON_IMAGE": IMAGES["PYTHON_IMAGE"]}
    tag = f"agents-redis-ha-contract:{re.sub(r'[^a-z0-9.]', '-', server_image)}"
    file = "tests/compose/servers.Dockerfile"
    # It is kept: the next run needs its layers.
    with DockerImage(REPOSITORY, tag=tag, dockerfile_path=file, buildargs=arguments, clean_up=False) as image:
        yield str(image)


def run(image: str, *command: str) -> tuple[int, str]:
    """The exit code and the output of a command in a new container."""
    entry, *arguments = command
    # docker-py takes a list, which testcontainers passes on
    started = DockerContainer(image, network_mode="none", init=True, entrypoint=entry, command=cast("Any", arguments))
    with started as container:
        code = container.get_wrapped_container().wait(timeout=SECONDS)["StatusCode"]
        return code, "\n".join(part.decode(errors="replace") for part in container.get_logs())


def collected() -> set[str]:
    """The contract tests of this work tree."""
    command = [sys.executable, *PYTEST, "--collect-only", "-q"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    listed = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return {line for line in listed.splitlines() if "::" in line}


def test_the_contract_holds(server_image: str, contract_image: str) -> None:
    _, version = run(server_image, "redis-server", "--version")
    assert run(contract_image, "redis-server", "--version") == (0, version), "another server than the image's"

    code, output = run(contract_image, *RUN)
    assert code == 0, output[output.find("= FAILURES") :]
    number = version.partition("v=")[2].split()[0]
    assert f"server: /usr/local/bin/redis-server {number};" in output
    results = dict(reversed(found) for found in re.findall(r"^\[gw\d+\] \[ *\d+%\] (\w+) (.*?) *$", output, re.M))
    assert results.keys() == collected()
    assert {*results.values()} <= {"PASSED", "SKIPPED"}
    assert {*re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", output, re.M)} <= MAY_BE_SKIPPED
