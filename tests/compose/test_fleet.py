"""The fleet under load while its primary is killed twice, a replica is cut off, and services are rolled and killed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scenarios.servers import SentinelServers
from scenarios.stack import Stack

from tests.compose.chat_service import ChatService

CONVERSATIONS = 200
RECOVERY_SECONDS = 60


class Load:
    """The users of the fleet, in a container of its network.

    Args:
        stack: The fleet's.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._process = stack.start("load", "python3", "-m", "fleet.load", "--conversations", str(CONVERSATIONS))
        self._lines: list[str] = []
        self.answered, self.share = 0, 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("turns "):
                answered, total = map(int, line.removeprefix("turns ").split(" of "))
                self.answered, self.share = answered, answered / total
            else:
                self._lines.append(line)

    def wait_for(self, share: float) -> None:
        reached = f"{share:.0%} of the turns are answered"
        self._stack.wait_for(lambda: self.share >= share or not self.is_talking, reached, 240)
        assert self.is_talking, f"the load ended before: {self._lines}"

    def wait_for_more(self, turns: int) -> None:
        """Wait until so many turns were answered from now on."""
        enough = self.answered + turns
        self._stack.wait_for(lambda: self.answered >= enough or not self.is_talking, f"{turns} more turns are answered")

    @property
    def is_talking(self) -> bool:
        return self._process.poll() is None

    def report(self) -> dict[str, Any]:
        self._reader.join(240)
        assert self._process.wait(10) is not None
        found: dict[str, Any] = json.loads("".join(self._lines))
        return found

    def end(self) -> None:
        if self.is_talking:
            self._process.kill()
        with self._process:  # closes its pipes
            self._reader.join()


@pytest.fixture(scope="module")
def service(stacks: Callable[..., Stack], need_images: Callable[..., None]) -> ChatService:
    need_images("REDIS_IMAGE", "PYTHON_IMAGE", "NGINX_IMAGE")
    recordings = os.environ.get("AGENTS_REDIS_HA_CONVERSATIONS")
    return ChatService(
        stacks("compose/fleet.yml", FLEET_PORT="0", **({"RECORDINGS": recordings} if recordings else {}))
    )


@pytest.fixture
def load(service: ChatService) -> Iterator[Load]:
    started = Load(service.stack)
    yield started
    started.end()


def wait_until_linked(service: ChatService, replicas: int) -> None:
    words = f"{replicas} replicas are linked"
    service.stack.wait_for(lambda: service.linked_replicas() == replicas, words, RECOVERY_SECONDS)


def kill_the_primary(service: ChatService) -> None:
    old = service.primary
    service.stack.compose("kill", old)
    elected = f"another primary than {old} is elected"
    service.stack.wait_for(lambda: service.primary != old, elected, RECOVERY_SECONDS)
    service.stack.compose("start", old)


def cut_off_a_replica(service: ChatService, load: Load) -> None:
    replica = next(name for name in SentinelServers.nodes if name != service.primary)
    service.stack.cut(replica)
    wait_until_linked(service, 1)
    load.wait_for_more(8)
    service.stack.mend(replica)


def roll_a_service(stack: Stack, load: Load) -> None:
    container = stack.container("api", 2)
    stack.docker("stop", "--time", "95", container)
    assert stack.inspect("api", ".State.ExitCode", 2) == "0", "it was killed, for it did not end by itself"
    load.wait_for_more(8)
    stack.docker("start", container)
    stack.wait_for(lambda: stack.inspect("api", ".State.Health.Status", 2) == "healthy", f"{container} is back")


def kill_a_worker(stack: Stack, load: Load) -> None:
    """Kill a worker in the middle of a turn: stopped, it has a job that it has not done."""
    worker = stack.container("worker")
    host = stack.inspect("worker", ".Config.Hostname")

    def is_stopped_in_a_turn() -> bool:
        stack.docker("pause", worker)
        if any(host in line for line in stack.ask("queue", "xpending chat:stream docket-workers - + 100")):
            return True
        stack.docker("unpause", worker)
        return False

    stack.wait_for(is_stopped_in_a_turn, "the worker is in the middle of a turn")
    stack.docker("kill", worker)
    assert stack.inspect("worker", ".State.ExitCode") == "137"
    load.wait_for_more(8)
    stack.docker("start", stack.container("worker"))


@pytest.mark.timeout(600)
def test_no_turn_is_lost_or_doubled_whatever_strikes_the_fleet(service: ChatService, load: Load) -> None:
    strikes: list[tuple[float, Callable[[], None]]] = [
        (0.1, lambda: kill_the_primary(service)),
        (0.3, lambda: cut_off_a_replica(service, load)),
        (0.4, lambda: roll_a_service(service.stack, load)),
        (0.6, lambda: kill_a_worker(service.stack, load)),
        (0.7, lambda: kill_the_primary(service)),
    ]
    for share, strike in strikes:
        load.wait_for(share)
        strike()
        wait_until_linked(service, 2)
        assert load.is_talking, "the load ended before the fleet was struck"
    report = load.report()
    print(json.dumps(report, indent=2))

    assert report["failed"] == []
    stored = report["stored"]
    assert stored["conversations"] == CONVERSATIONS
    assert stored["turns"] == report["turns"]
    wrong = {name: stored[name] for name in ("lost", "duplicated", "torn", "out_of_order", "misheard")}
    assert wrong == dict.fromkeys(wrong, 0)
    told = report["responses"].get("503", 0) + report["responses"].get("event: error", 0)
    assert report["told_to_retry"] == told
    assert report["replicas"] >= 3
    assert report["conversations_on_several_replicas"] > CONVERSATIONS / 2
