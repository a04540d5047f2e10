"""Docker for the tests of this folder: they skip without it, or fail where it is required."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from scenarios.stack import Stack

from tests.support.docker import IMAGES, new_stack, why_no_docker, why_no_image

REQUIRED = "AGENTS_REDIS_HA_REQUIRE_COMPOSE"
"""Set to 1, as CI has it: a test that cannot run fails."""


@pytest.fixture(scope="session", autouse=True)
def docker() -> None:
    """An engine with Compose v2."""
    _demand(why_no_docker())


@pytest.fixture(scope="session")
def need_images(docker: None) -> Callable[..., None]:
    """Call it with names of variables, e.g. ``need_images("REDIS_IMAGE")``: the images can be had, or the test ends."""

    def need(*variables: str) -> None:
        for variable in variables:
            _demand(why_no_image(IMAGES[variable]))

    return need


@pytest.fixture(scope="module")
def stacks(docker: None) -> Iterator[Callable[..., Stack]]:
    """Starts stacks that are taken down after the module's tests; takes what ``new_stack`` takes."""
    with ExitStack() as started:
        yield lambda *files, **variables: started.enter_context(new_stack(*files, **variables))


def _demand(reason: str | None) -> None:
    if reason is None:
        return
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"Docker is required here: {reason}", pytrace=False)
    pytest.skip(f"needs Docker: {reason}")
