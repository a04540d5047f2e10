"""The fleet, the users who talk to it, and those who observe it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from agents_redis_ha.lab.conversations import load_conversations
from tests.compose.phoenix import Phoenix
from tests.compose.prometheus import Prometheus
from tests.compose.stack import Stack

FILES = ("compose/fleet.yml", "compose/observability.yml", "tests/compose/phoenix.yml")
VARIABLES = {"FLEET_PORT": "0", "PROMETHEUS_PORT": "0", "RECORDED_SECONDS": "0.3"}
"""Any free ports; and a model that takes longer than all else, so that a fault meets turns whose agent is at work."""

TALKERS = 4
TURN_SECONDS = 60


@dataclass(frozen=True)
class Reply:
    """What a service answered.

    Attributes:
        status: The HTTP status.
        body: What it said.
        at: When, in seconds since 1970.
    """

    status: int
    body: dict[str, object]
    at: float


@dataclass(frozen=True)
class Fleet:
    """The fleet, and who observes it."""

    stack: Stack

    def address(self, service: str, port: int) -> str:
        host, number = self.stack.get_service_host_and_port(service, port)
        return f"http://{host}:{number}"

    def post(self, path: str, conversation: str, position: int, text: str) -> Reply:
        body = {"conversation": conversation, "position": position, "text": text}
        request = Request(self.address("nginx", 8080) + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=TURN_SECONDS) as answer:
                return Reply(answer.status, json.load(answer), time.time())
        except HTTPError as refused:
            return Reply(refused.code, json.load(refused), time.time())

    def redis(self, node: str, *command: str) -> str:
        return self.stack.execute(node, "redis-cli", *command).strip()

    @property
    def primary(self) -> str:
        told = self.redis("sentinel-1", "-p", "26379", "sentinel", "get-master-addr-by-name", "mymaster")
        return told.split()[0]

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.address("prometheus", 9090))

    @property
    def spans(self) -> Phoenix:
        return Phoenix(self.address("jaeger", 4318))


@contextmanager
def turns(fleet: Fleet, replies: list[Reply]) -> Iterator[None]:
    """Users who talk, one conversation after the other, until the block ends; an error of theirs is raised then."""
    enough = threading.Event()
    numbers = count()

    def talk() -> None:
        recorded = load_conversations(None)
        while not enough.is_set():
            number = next(numbers)
            position = 0
            for turn in recorded[number % len(recorded)].turns:
                reply = fleet.post("/turns", f"user-{number}", position, str(turn.user_message["content"]))
                replies.append(reply)
                if reply.status != 200 or enough.is_set():
                    break
                position = int(str(reply.body["position"]))

    with ThreadPoolExecutor(TALKERS) as users:
        talking: list[Future[None]] = [users.submit(talk) for _ in range(TALKERS)]
        try:
            yield
        finally:
            enough.set()
        for one in talking:
            one.result()
