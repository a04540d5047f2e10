"""What the parent process and its workers tell each other; all of it can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..lab.conversations import Conversation
from .sessions import SessionPlan

COUNTERS = ("retries", "repeats_suppressed", "failovers")


def worker_name(number: int) -> str:
    """The name of a worker's process."""
    return f"worker-{number}"


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is told once, when it starts.

    Attributes:
        number: Which worker it is, from 0.
        plan: How it opens sessions.
        conversations: All conversations of the run; tasks name them by their index.
        seed: Seed of the run.
        latency_ms: Shortest and longest time that the scripted model takes, in milliseconds.
    """

    number: int
    plan: SessionPlan
    conversations: tuple[Conversation, ...]
    seed: int
    latency_ms: tuple[float, float]


@dataclass(frozen=True)
class TurnTask:
    """One turn to run.

    Attributes:
        conversation: Index of the conversation.
        turn: Number of the turn, from 0.
        attempt: 1, or higher when the user sends the turn again after an error, or its worker was killed.
    """

    conversation: int
    turn: int
    attempt: int = 1


@dataclass(frozen=True)
class TurnError:
    """The error that a turn ended with.

    Attributes:
        type: Name of the exception's class.
        message: Its text.
        outcome: What the error says about the write: ``applied``, ``not_applied``, ``unknown``, or
            ``None`` if it does not say.
    """

    type: str
    message: str
    outcome: str | None = None


@dataclass(frozen=True)
class TurnResult:
    """What became of a turn.

    Attributes:
        worker: Number of the worker that ran it.
        task: The turn.
        seconds: How long it took, without the time of the scripted model.
        history_was_right: Whether the run was given exactly what had been said before. ``None`` if
            it failed before it was given anything.
        error: Why it failed, ``None`` if it did not.
        given: Number of items that it was given, as the history; ``None`` with ``history_was_right``.
        resumed: Whether it went on behind what an attempt before it had saved.
        counters: The library's counters in that process so far: retries, repeats suppressed,
            failovers.
    """

    worker: int
    task: TurnTask
    seconds: float
    history_was_right: bool | None
    error: TurnError | None = None
    given: int | None = None
    resumed: bool = False
    counters: dict[str, int] = field(default_factory=dict)
