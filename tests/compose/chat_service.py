"""The chat service as it is deployed, the users who talk to it, and those who observe it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from scenarios.servers import SentinelServers
from scenarios.stack import Stack

from agents_redis_ha.lab.conversations import load_conversations
from tests.compose.phoenix import Phoenix
from tests.compose.prometheus import Prometheus

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
class ChatService:
    """The chat service of ``compose/fleet.yml``, its servers, and who observes it.

    Attributes:
        stack: Its containers.
    """

    stack: Stack

    @property
    def primary(self) -> str:
        """The node that a majority of the Sentinels names."""
        return SentinelServers(self.stack).victim()

    def linked_replicas(self) -> int:
        """How many acknowledged within the last second: one that is cut off counts as online for a minute."""
        state = "\n".join(self.stack.ask(self.primary, "info replication"))
        return len(re.findall(r"state=online,.*lag=[01]\b", state))

    def url(self, service: str, port: int) -> str:
        return f"http://{self.stack.address(service, port)}"

    def post(self, path: str, conversation: str, number: int, text: str) -> Reply:
        body = {"conversation": conversation, "id": f"message-{number}", "text": text}
        request = Request(self.url("nginx", 8080) + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=TURN_SECONDS) as answer:
                return Reply(answer.status, json.load(answer), time.time())
        except HTTPError as refused:
            return Reply(refused.code, json.load(refused), time.time())

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(self.url("prometheus", 9090))

    @property
    def spans(self) -> Phoenix:
        return Phoenix(self.url("jaeger", 4318))


@contextmanager
def turns(service: ChatService, replies: list[Reply]) -> Iterator[None]:
    """Users who talk, one conversation after the other, until the block ends; an error of theirs is raised then."""
    enough = threading.Event()
    numbers = count()

    def talk() -> None:
        recorded = load_conversations(None)
        while not enough.is_set():
            number = next(numbers)
            for at, turn in enumerate(recorded[number % len(recorded)].turns):
                reply = service.post("/turns", f"user-{number}", at, str(turn.user_message["content"]))
                replies.append(reply)
                if reply.status != 200 or enough.is_set():
                    break

    with ThreadPoolExecutor(TALKERS) as users:
        talking: list[Future[None]] = [users.submit(talk) for _ in range(TALKERS)]
        try:
            yield
        finally:
            enough.set()
        for one in talking:
            one.result()
