"""The fleet under load while its primary is killed twice, a replica is cut off, and services are rolled and killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents_redis_ha.lab import waiting
from tests.compose.stack import Stack

CONVERSATIONS = 200
RECOVERY_SECONDS = 60
SENTINEL = ("redis-cli", "-p", "26379", "sentinel")


def wait_until(predicate: Callable[[], bool], what: str, timeout_seconds: float = RECOVERY_SECONDS) -> None:
    """Ask a few times a second: each question to a container takes its share of the processors."""
    waiting.wait_until(predicate, what, timeout_seconds, poll_seconds=0.3)


class Load:
    """The users of the fleet, in a container of its network.

    Args:
        stack: The fleet.
    """

    def __init__(self, stack: Stack) -> None:
        command = [*stack.compose_command_property, "run", "--rm", "-T", "--no-deps", "load"]
        load = ["python3", "-m", "fleet.load", "--conversations", str(CONVERSATIONS)]
        self._process = subprocess.Popen(
            [*command, *load], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
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
        wait_until(lambda: self.share >= share or not self.is_talking, f"{share:.0%} of the turns are answered", 240)
        assert self.is_talking, f"the load ended before: {self._lines}"

    def wait_for_more(self, turns: int) -> None:
        """Wait until so many turns were answered from now on."""
        enough = self.answered + turns
        wait_until(lambda: self.answered >= enough or not self.is_talking, f"{turns} more turns are answered", 120)

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
        self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()


class Fleet(Stack):
    """The fleet and what is done to it."""

    def primary(self) -> str:
        return self.execute("sentinel-1", *SENTINEL, "get-master-addr-by-name", "mymaster").split()[0]

    def linked_replicas(self) -> int:
        """How many acknowledged within the last second: one that is cut off counts as online for a minute."""
        state = self.execute(self.primary(), "redis-cli", "info", "replication")
        return len(re.findall(r"state=online,.*lag=[01]\b", state))

    def has_recovered(self) -> bool:
        return self.linked_replicas() == 2

    def state(self, container: str, field: str) -> str:
        command = ["docker", "inspect", "--format", f"{{{{{field}}}}}", f"{self.project}-{container}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def docker(self, verb: str, container: str, *options: str) -> None:
        subprocess.run(["docker", verb, *options, f"{self.project}-{container}"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def fleet(need_images: Callable[..., None]) -> Iterator[Fleet]:
    need_images("REDIS_IMAGE", "PYTHON_IMAGE", "NGINX_IMAGE")
    recordings = os.environ.get("AGENTS_REDIS_HA_CONVERSATIONS")
    variables = {"FLEET_PORT": "0", **({"RECORDINGS": recordings} if recordings else {})}
    with Fleet("compose/fleet.yml", variables=variables) as started:
        yield started


@pytest.fixture
def load(fleet: Fleet) -> Iterator[Load]:
    started = Load(fleet)
    yield started
    started.end()


def kill_the_primary(fleet: Fleet) -> None:
    old = fleet.primary()
    fleet("kill", old)
    wait_until(lambda: fleet.primary() != old, f"another primary than {old} is elected")
    fleet("start", old)


def cut_off_a_replica(fleet: Fleet, load: Load) -> None:
    replica = next(name for name in ("redis-1", "redis-2", "redis-3") if name != fleet.primary())
    fleet.cut(replica)
    wait_until(lambda: fleet.linked_replicas() == 1, f"the primary misses {replica}")
    load.wait_for_more(8)
    fleet.mend(replica)


def roll_a_service(fleet: Fleet, load: Load) -> None:
    fleet.docker("stop", "api-2", "--time", "95")
    assert fleet.state("api-2", ".State.ExitCode") == "0", "it was killed, for it did not end by itself"
    load.wait_for_more(8)
    fleet.docker("start", "api-2")
    wait_until(lambda: fleet.state("api-2", ".State.Health.Status") == "healthy", "api-2 is back")


def kill_a_worker(fleet: Fleet, load: Load) -> None:
    fleet.docker("kill", "worker-1")
    assert fleet.state("worker-1", ".State.ExitCode") == "137"
    load.wait_for_more(8)
    fleet.docker("start", "worker-1")


@pytest.mark.timeout(600)
def test_no_turn_is_lost_or_doubled_whatever_strikes_the_fleet(fleet: Fleet, load: Load) -> None:
    strikes: list[tuple[float, Callable[[], None]]] = [
        (0.1, lambda: kill_the_primary(fleet)),
        (0.3, lambda: cut_off_a_replica(fleet, load)),
        (0.4, lambda: roll_a_service(fleet, load)),
        (0.6, lambda: kill_a_worker(fleet, load)),
        (0.7, lambda: kill_the_primary(fleet)),
    ]
    for share, strike in strikes:
        load.wait_for(share)
        strike()
        wait_until(fleet.has_recovered, "both replicas are linked")
        assert load.is_talking, "the load ended before the fleet was struck"
    report = load.report()
    print(json.dumps(report, indent=2))

    assert report["failed"] == []
    stored = report["stored"]
    assert stored["conversations"] == CONVERSATIONS
    wrong = {name: stored[name] for name in ("lost", "duplicated", "out_of_order", "misheard")}
    assert wrong == dict.fromkeys(wrong, 0)
    told = report["responses"].get("503", 0) + report["responses"].get("event: error", 0)
    assert report["told_to_retry"] == told
    assert report["replicas"] >= 3
    assert report["conversations_on_several_replicas"] > CONVERSATIONS / 2
