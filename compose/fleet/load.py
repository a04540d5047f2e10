"""Users who talk to the fleet, and what they see of its failures: ``python -m fleet.load``.

Each user takes one conversation after the other. A third of the turns are streamed, a third go through the queue. With
every third message the user also says something else, which the fleet gets while the turn of the first one may run.
Users send a message again when they are told to (503 with ``Retry-After``, or the event ``error`` in a stream), and
then only; anything else that goes wrong is a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from .chat import Answer, recorded_model
from .recorded import NUDGE
from .verify import Said

FLEET_URL = "http://nginx:8080"
TURN_SECONDS = 120.0
POLL_SECONDS = 0.05
PROGRESS_SECONDS = 0.5


class ComeAgainError(Exception):
    """The fleet said: send it again."""


@dataclass
class Talk:
    """What happens to the requests of all users.

    Attributes:
        responses: Number of responses by status; ``event: error`` counts for itself.
        told_to_retry: How often a user was told to send a turn again.
        failed: What went wrong without such a word.
        replicas: Replicas that answered, for each conversation.
        turns: Turns that were answered.
        slowest_seconds: The longest time from a turn's first request to its answer.
    """

    responses: Counter[str] = field(default_factory=Counter)
    told_to_retry: int = 0
    failed: list[str] = field(default_factory=list)
    replicas: dict[str, set[str]] = field(default_factory=dict)
    turns: int = 0
    slowest_seconds: float = 0.0


class User:
    """Says messages and waits for answers.

    Args:
        client: Sends the requests.
        talk: Takes what happens.
    """

    def __init__(self, client: httpx.AsyncClient, talk: Talk) -> None:
        self._client, self._talk = client, talk
        self._ways = cycle((self._ask, self._listen, self._leave_it_to_a_worker))

    async def hold(self, conversation: str, sayings: list[list[str]]) -> Said:
        """Say it one after the other, two messages at once where there are two; wait until all are answered."""
        said = Said(conversation, [], [])
        for messages in sayings:
            requests = [
                {"conversation": conversation, "id": f"message-{number}", "text": text}
                for number, text in enumerate(messages, len(said.messages))
            ]
            answers = await asyncio.gather(*(self._insist(next(self._ways), body) for body in requests))
            said.messages.extend(messages)
            said.answers.extend(answer.text for answer in answers)
        return said

    async def _insist(self, way: Any, body: dict[str, Any]) -> Answer:
        began = time.monotonic()
        while True:
            try:
                answer: Answer = await way(body)
                break
            except ComeAgainError:
                self._talk.told_to_retry += 1
            except (httpx.HTTPError, ValueError) as error:
                self._talk.failed.append(f"{way.__name__}: {error!r}"[:300])
            if time.monotonic() - began > TURN_SECONDS:
                raise TimeoutError(f"a turn got no answer within {TURN_SECONDS:g} s")
            await asyncio.sleep(1)
        self._talk.turns += 1
        self._talk.slowest_seconds = max(self._talk.slowest_seconds, time.monotonic() - began)
        return answer

    async def _ask(self, body: dict[str, Any]) -> Answer:
        return Answer.model_validate(self._checked(await self._client.post("/turns", json=body), body).json())

    async def _listen(self, body: dict[str, Any]) -> Answer:
        heard, event = "", ""
        async with self._client.stream("POST", "/turns/stream", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
            self._checked(response, body)
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "delta":
                    heard += json.loads(value)
                elif name == "data" and event == "answer":
                    return Answer.model_validate_json(value)
                elif name == "data" and event == "error":
                    self._talk.responses["event: error"] += 1
                    raise ComeAgainError
        raise ValueError(f"the stream ended without an answer, after {len(heard)} characters")

    async def _leave_it_to_a_worker(self, body: dict[str, Any]) -> Answer:
        job = self._checked(await self._client.post("/jobs", json=body), body).json()["job"]
        while True:
            response = self._checked(await self._client.get(f"/jobs/{job}"), body)
            if response.status_code == httpx.codes.OK:
                return Answer.model_validate(response.json())
            await asyncio.sleep(POLL_SECONDS)

    def _checked(self, response: httpx.Response, body: dict[str, Any]) -> httpx.Response:
        self._talk.responses[str(response.status_code)] += 1
        replica = response.headers.get("X-Served-By", "").rpartition(", ")[2]
        self._talk.replicas.setdefault(body["conversation"], set()).add(replica)
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and "Retry-After" in response.headers:
            raise ComeAgainError
        return response.raise_for_status()


def recordings(count: int, turns: int | None, run: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield an id and the user's sayings for each of so many conversations, the recorded ones again and again."""
    recorded = recorded_model().said
    for number in range(count):
        messages = recorded[number % len(recorded)][:turns]
        yield f"{run}-{number}", [[text, NUDGE] if at % 3 == 0 else [text] for at, text in enumerate(messages)]


async def talk(options: argparse.Namespace, file: Path) -> Talk:
    """Hold all conversations, a number of users at a time, and write down what was said."""
    heard = Talk()
    waiting = recordings(options.conversations, options.turns, f"load-{time.time_ns()}")
    total = sum(sum(map(len, sayings)) for _, sayings in recordings(options.conversations, options.turns, ""))
    async with httpx.AsyncClient(base_url=options.url, timeout=TURN_SECONDS) as client:
        with file.open("w", encoding="utf-8") as book:

            async def live() -> None:
                user = User(client, heard)
                for conversation, sayings in waiting:
                    book.write(json.dumps(asdict(await user.hold(conversation, sayings))) + "\n")

            users = asyncio.gather(*(live() for _ in range(options.users)))
            while not users.done():
                await asyncio.wait([users], timeout=PROGRESS_SECONDS)
                print(f"turns {heard.turns} of {total}", flush=True)
            await users
    return heard


def main() -> int:
    """Talk, then have a fresh process compare; print what was found."""
    parser = argparse.ArgumentParser(prog="fleet.load", description=__doc__)
    parser.add_argument("--url", default=FLEET_URL)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--turns", type=int, help="at most so many turns of each conversation")
    parser.add_argument("--users", type=int, default=4, help="how many talk at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "said.jsonl")
        began = time.monotonic()
        heard = asyncio.run(talk(options, file))
        seconds = time.monotonic() - began
        command = [sys.executable, "-m", "fleet.verify", str(file)]
        verified = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    report = {
        **{name: value for name, value in vars(heard).items() if name != "replicas"},
        "replicas": len(set().union(*heard.replicas.values())),
        "conversations_on_several_replicas": sum(len(replicas) > 1 for replicas in heard.replicas.values()),
        "seconds": seconds,
        "stored": json.loads(verified.stdout or "null"),
    }
    print(json.dumps(report, indent=2))
    return verified.returncode or bool(heard.failed)


if __name__ == "__main__":
    sys.exit(main())
