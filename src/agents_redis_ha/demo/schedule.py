"""Which turn runs next, and where; holds the state of the run, does no I/O and reads no clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random

from ..lab.conversations import Conversation
from .messages import TurnResult, TurnTask


@dataclass
class Schedule:
    """The turns of a run.

    A turn starts only after the one before it was answered, and on another worker than that one. A
    turn that failed is sent again after a pause, like a user pressing "send" once more, on yet
    another worker.

    Attributes:
        conversations: All conversations of the run; they begin in this order.
        workers: Number of workers.
        per_worker: Greatest number of turns in flight on one worker.
        resend_seconds: Pause before a failed turn is sent again.
        attempts: Number of times that a turn is sent before its conversation is given up.
        open_at_once: Greatest number of conversations under way. ``None`` means all; else the next one begins when one
            has ended, and ``total`` grows with each that begins.
        random: Chooses among the workers and the conversations.
    """

    conversations: tuple[Conversation, ...]
    workers: int
    per_worker: int = 8
    resend_seconds: float = 0.5
    attempts: int = 25
    open_at_once: int | None = None
    random: Random = field(default_factory=lambda: Random(0))

    def __post_init__(self) -> None:
        self.total = 0
        self.begun = 0
        self.done = 0
        self.failed = 0
        self.completed = [0] * len(self.conversations)
        self.unresolved: dict[int, TurnTask] = {}
        self.in_flight: dict[TurnTask, int] = {}
        self._load = [0] * self.workers
        self._last: dict[int, int] = {}
        self._waiting: list[tuple[float, float, TurnTask]] = []
        self._alive = list(range(self.workers))
        self._closed = False
        for _ in range(len(self.conversations) if self.open_at_once is None else self.open_at_once):
            self._begin(0.0)

    @property
    def given_up(self) -> int:
        """Number of turns that will not run, because their conversation was given up."""
        return sum(len(self.conversations[index].turns) - self.completed[index] for index in self.unresolved)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return not self.in_flight and not self._waiting

    @property
    def awaits_answer(self) -> bool:
        """Whether a turn is in flight, or failed and waits to be sent again."""
        return bool(self.in_flight) or any(task.attempt > 1 for _, _, task in self._waiting)

    @property
    def ended_share(self) -> float:
        """Share of all turns that are done or given up, 0 to 1."""
        return (self.done + self.given_up) / self.total

    @property
    def started_share(self) -> float:
        """Share of all turns that are done, given up or in flight, 0 to 1."""
        return self.ended_share + len(self.in_flight) / self.total

    def live(self) -> list[int]:
        """Conversations that have begun and have the most turns to come, those first."""
        begun = [
            index
            for index, count in enumerate(self.completed)
            if 0 < count < len(self.conversations[index].turns) and index not in self.unresolved
        ]
        return sorted(begun, key=lambda i: self.completed[i] - len(self.conversations[i].turns))

    def said(self) -> list[Conversation]:
        """What was said so far: of each conversation that got an answer, the turns that were answered."""
        counts = zip(self.conversations, self.completed, strict=True)
        return [Conversation(one.conversation_id, one.turns[:count]) for one, count in counts if count]

    def next_turn(self, now: float) -> tuple[int, TurnTask] | None:
        """Take the next turn that may start.

        Args:
            now: Seconds on the clock that ``record`` is given, too.

        Returns:
            The worker's number and the turn; ``None`` if none may start now.
        """
        if not self._waiting or self._waiting[0][0] > now:
            return None
        task = self._waiting[0][2]
        worker = self._choose(task.conversation)
        if worker is None:
            return None
        heapq.heappop(self._waiting)
        self._load[worker] += 1
        self._last[task.conversation] = worker
        self.in_flight[task] = worker
        return worker, task

    def record(self, result: TurnResult, now: float) -> None:
        """Take note of a result, and of the turn that it makes possible."""
        task = result.task
        self._load[self.in_flight.pop(task)] -= 1
        if result.error is None:
            self.done += 1
            self.completed[task.conversation] += 1
            if task.turn + 1 < len(self.conversations[task.conversation].turns):
                self._enqueue(now, TurnTask(task.conversation, task.turn + 1))
            else:
                self._begin(now)
            return
        self.failed += 1
        if task.attempt >= self.attempts:
            self.unresolved[task.conversation] = task
            self._begin(now)
            return
        again = TurnTask(task.conversation, task.turn, task.attempt + 1)
        self._enqueue(now + self.resend_seconds, again)

    def lose_worker(self, worker: int, now: float) -> list[TurnTask]:
        """Give the turns in flight on a worker that died to others.

        Returns:
            What is delivered for them.
        """
        self._alive.remove(worker)
        lost = [task for task, where in self.in_flight.items() if where == worker]
        again = [TurnTask(task.conversation, task.turn, task.attempt + 1) for task in lost]
        for before, task in zip(lost, again, strict=True):
            del self.in_flight[before]
            self._enqueue(now, task)
        return again

    def close(self) -> None:
        """Begin no further conversation; those under way go on."""
        self._closed = True

    def give_up(self) -> None:
        """Give up whatever has not started yet."""
        self.close()
        for _, _, task in self._waiting:
            self.unresolved[task.conversation] = task
        self._waiting.clear()

    def _begin(self, now: float) -> None:
        """Begin the next conversation, if there is one."""
        if self._closed or self.begun == len(self.conversations):
            return
        self.total += len(self.conversations[self.begun].turns)
        self._enqueue(now, TurnTask(self.begun, 0))
        self.begun += 1

    def _enqueue(self, at: float, task: TurnTask) -> None:
        heapq.heappush(self._waiting, (at, self.random.random(), task))

    def _choose(self, conversation: int) -> int | None:
        """A worker with room; not the one of the conversation's last turn, if there are others."""
        last = self._last.get(conversation) if len(self._alive) > 1 else None
        able = [number for number in self._alive if number != last and self._load[number] < self.per_worker]
        if not able:
            return None
        least = min(self._load[number] for number in able)
        return self.random.choice([number for number in able if self._load[number] == least])
