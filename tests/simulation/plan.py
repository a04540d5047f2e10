"""What a run is to do: processes, calls and faults, known beforehand, so that some can be left out. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a session.

    Attributes:
        number: Which, in the whole run; a fault can name it.
        process: Whose, by number.
        session: The session's name.
        caller: Which of its callers in this process; each makes its calls one by one.
        op: ``append``, ``read``, ``pop``, ``clear``, ``replace``, ``compact``, ``expect`` (an append at the version
            that this process saw last), or ``turn``.
        pause: Seconds before it, from the end of the same caller's call before it.
        size: Items of a batch.
        limit: Of a read; None means all.
        cancel_after: Seconds after which the caller is cancelled; None means never.
        turn: Of a turn, the arguments of `ha_turn`, and how long the model takes for a round.
    """

    number: int
    process: int
    session: str
    op: str
    pause: float
    size: int = 1
    limit: int | None = None
    caller: int = 0
    cancel_after: float | None = None
    turn: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        what = self.op + (f"({self.size})" if self.op not in ("read", "pop", "clear") else "")
        what += f"({self.limit})" if self.limit is not None else ""
        cancelled = f", cancelled after {self.cancel_after:.3f} s" if self.cancel_after is not None else ""
        cancelled += f" {self.turn}" if self.turn else ""
        who = f"p{self.process}{'+' * self.caller}"
        return f"step {self.number}: {who} {self.session} {what} after {self.pause:.3f} s{cancelled}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: A name of `faults.KINDS`.
        at: When it strikes, in seconds from the beginning; None where `step` says it.
        step: It strikes at a request of this step that reaches a server.
        request: At the how-manieth of them, from 1.
        arguments: What it needs to know besides.
    """

    kind: str
    at: float | None = None
    step: int | None = None
    request: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        when = f"at {self.at:.3f} s" if self.at is not None else f"at request {self.request} of step {self.step}"
        rest = ", ".join(f"{name}={_short(value)}" for name, value in self.arguments.items())
        return f"{self.kind} {when}{f' ({rest})' if rest else ''}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole run.

    Attributes:
        seed: Decides everything else: delays, ids, jitter.
        topology: ``standalone`` or ``sentinel``.
        fields: Of each process, the fields of its configuration.
        steps: All calls.
        faults: All faults.
        settings: What holds for the whole world, such as the servers' version and their directives.
    """

    seed: int
    topology: str
    fields: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keeps_less(self) -> bool:
        """Whether a process forgets on purpose, says nothing of what is lost, or keeps it in another order."""
        repairs = [fields.get("repair", {}) for fields in self.fields]
        return any("max_changes" in each or "on_loss" in each or "on_divergence" in each for each in repairs)

    @property
    def forgetful(self) -> set[int]:
        """The processes that forget sessions: docs/guarantees.md, "Beyond `max_changes` sessions"."""
        repairs = [fields.get("repair", {}) for fields in self.fields]
        used = [{step.session for step in self.steps if step.process == number} for number in range(len(repairs))]
        return {at for at, each in enumerate(repairs) if each.get("max_changes", math.inf) < len(used[at])}

    @property
    def reorders(self) -> bool:
        """Whether a process puts what was displaced behind what others wrote in its place."""
        return any("on_divergence" in fields.get("repair", {}) for fields in self.fields)

    @property
    def retention_seconds(self) -> float:
        """For how long each process remembers what it knows, at the least."""
        return min(float(fields.get("op_retention_seconds", 120)) for fields in self.fields)

    @property
    def degrades(self) -> bool:
        """Whether a process counts a change as confirmed that too few servers have."""
        return any(fields.get("durability", {}).get("on_shortfall") == "degrade" for fields in self.fields)

    @property
    def sessions(self) -> list[str]:
        """The names of all sessions."""
        return sorted({step.session for step in self.steps})


def chance(stream: random.Random, probability: float) -> bool:
    """Return whether something happens that has this probability."""
    return stream.random() < probability


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
