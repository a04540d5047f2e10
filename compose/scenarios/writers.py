"""The agents that talk while the servers break: ``agents-redis-ha demo`` in a container of the network."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .stack import ScenarioError, Stack
from .story import Story

RECORD = "/said/said.jsonl"
WARM_TURNS = 20
FRESH_SECONDS = 20.0
END_SECONDS = 120.0
_LINE = re.compile(r"(\d+)/\d+ turns, +(\d+) in flight, (\d+) failed, (\d+) retries")


@dataclass(frozen=True)
class Moment:
    """Where the writers were when they said so last.

    Attributes:
        at: When it came in, on the monotonic clock.
        answered: Turns answered so far.
        in_flight: Turns running.
        failed: Errors that a user was shown.
        retries: Retries of the library.
    """

    at: float
    answered: int
    in_flight: int
    failed: int
    retries: int


class Writers:
    """Four worker processes that replay recorded conversations without end.

    Args:
        stack: The servers, ready.
        story: Is told at once when an agent was given a wrong history.
    """

    def __init__(self, stack: Stack, story: Story) -> None:
        self._stack = stack
        self._story = story
        command = ("agents-redis-ha", "demo", "--url", "--copies", "200", "--record", RECORD, "--json")
        self._process = stack.start("writers", *command)
        self._latest = Moment(time.monotonic(), 0, 0, 0, 0)
        self._said: deque[str] = deque(maxlen=20)
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    @property
    def now(self) -> Moment:
        """What they said last.

        Raises:
            ScenarioError: They have ended, or fell silent.
        """
        if self._process.poll() is not None:
            raise ScenarioError("the writers have ended by themselves: " + " | ".join(self._said))
        if time.monotonic() - self._latest.at > FRESH_SECONDS and self._latest.answered:
            raise ScenarioError(f"the writers have said nothing for {FRESH_SECONDS:.0f} s")
        return self._latest

    def wait_for_turns(self, number: int, what: str) -> Moment:
        """Wait until so many further turns were answered, and others are in flight."""
        before = self._latest.answered

        def enough() -> bool:
            return self._latest.answered >= before + number and self._latest.in_flight > 0

        self._stack.wait_for(lambda: self._process.poll() is not None or enough(), what)
        return self.now

    def end(self) -> dict[str, Any]:
        """Have them end the conversations under way; returns their report.

        Raises:
            ScenarioError: They did not, or have nothing to report.
        """
        self._stack.docker("kill", "--signal", "TERM", self._stack.container("writers"))
        try:
            said, _ = self._process.communicate(timeout=END_SECONDS)
            report: dict[str, Any] = json.loads(said)
        except (subprocess.TimeoutExpired, ValueError):
            raise ScenarioError("the writers brought no report: " + " | ".join(self._said)) from None
        return report

    def stop(self) -> None:
        """End them at once, whatever they are doing."""
        if self._process.poll() is None:
            subprocess.run(
                ["docker", "rm", "--force", self._stack.container("writers")],
                capture_output=True,
                timeout=END_SECONDS,
                check=False,
            )
            self._process.kill()
        self._process.wait()

    def _follow(self) -> None:
        for line in self._process.stderr or ():
            self._said.append(line.strip())
            if "wrong history" in line:
                self._story.say("writers: " + line.strip().lstrip("* "))
            found = _LINE.search(line)
            if found:
                self._latest = Moment(time.monotonic(), *map(int, found.groups()))
