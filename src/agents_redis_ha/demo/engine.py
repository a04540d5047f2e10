"""Sends turns to the workers, has the fault strike in the middle, and gathers what comes back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..lab.workers import WorkerProcesses
from .faults import Fault
from .messages import COUNTERS, TurnError, TurnResult, TurnTask, WorkerSetup, worker_name
from .progress import Progress, Snapshot
from .schedule import Schedule

KILL_AT = 0.03
STRIKE_AT = 0.4
HOLD_BACK_FROM = 0.9
RUN_SECONDS = 60.0
DRAIN_SECONDS = 20.0
TICK_SECONDS = 0.02
SHOW_SECONDS = 0.2


@dataclass
class Tally:
    """What came back from the workers.

    Attributes:
        errors: Number of errors by type.
        examples: The first error of each type.
        sent_again: Turns that failed at least once, or were the killed worker's, as pairs of conversation and turn.
        redelivered: Turns of the killed worker, as they were delivered again.
        resumed: Turns that went on behind what an attempt before had saved.
        bad_inputs: Number of runs that were given a wrong history.
        longest_wait_seconds: Longest time of one turn without the model's; those of the killed worker wait for its
            lease, and are not counted here.
        longest_silence_seconds: Longest time without an answer while one was waited for.
        counters: The library's counters of each worker.
        seconds: Length of the run.
        refused: Why the run was broken off, else ``None``.
    """

    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, TurnError] = field(default_factory=dict)
    sent_again: set[tuple[int, int]] = field(default_factory=set)
    redelivered: set[TurnTask] = field(default_factory=set)
    resumed: int = 0
    bad_inputs: int = 0
    longest_wait_seconds: float = 0.0
    longest_silence_seconds: float = 0.0
    counters: dict[int, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    refused: str | None = None

    def add(self, result: TurnResult) -> None:
        """Count one result."""
        if result.task not in self.redelivered:
            self.longest_wait_seconds = max(self.longest_wait_seconds, result.seconds)
        self.resumed += result.resumed
        self.bad_inputs += result.history_was_right is False
        self.counters[result.worker] = result.counters
        if result.error is not None:
            self.errors[result.error.type] += 1
            self.examples.setdefault(result.error.type, result.error)
            self.sent_again.add((result.task.conversation, result.task.turn))

    def counter(self, name: str) -> int:
        """One of the library's counters, added up over the workers."""
        return sum(counters.get(name, 0) for counters in self.counters.values())


class Engine:
    """One run.

    Args:
        schedule: The turns.
        workers: The workers, ready.
        fault: What happens in the middle.
        progress: Where the run shows how it goes.
        kills: Whether a worker is killed, too, in the middle of its turns.
        end: Set from outside to begin no further conversation. ``None`` ends a run after ``RUN_SECONDS`` at the latest;
            with an event these seconds count from where it is set.
        clock: Seconds that only ever grow.
    """

    def __init__(
        self,
        schedule: Schedule,
        workers: WorkerProcesses[WorkerSetup],
        fault: Fault,
        progress: Progress,
        kills: bool = False,
        end: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._workers = workers
        self._fault = fault
        self._progress = progress
        self._kills = kills and schedule.workers > 1
        self._end = end
        self._clock = clock
        self._limit = float("inf")
        self._began = self._answered = clock()
        self._shown = 0.0
        self.tally = Tally()

    def run(self) -> Tally:
        """Run all turns.

        Raises:
            WorkerError: A worker process ended.
        """
        schedule, tally = self._schedule, self.tally
        self._began = self._answered = self._clock()
        if self._end is None:
            self._limit = self._began + RUN_SECONDS
        while not schedule.finished:
            self._start_turns()
            self._kill_worker_when_due()
            self._strike_when_due()
            message = self._workers.receive(TICK_SECONDS)
            if isinstance(message, TurnResult):
                self._take(message)
            self._show()
            tally.refused = tally.refused or self._refusal()
            self._close_when_told()
            late = self._clock() - self._limit
            if tally.refused is not None or late > 0:
                schedule.give_up()
                if late > DRAIN_SECONDS:
                    break
        tally.seconds = self._clock() - self._began
        if schedule.awaits_answer:
            self._end_silence(self._clock())
        self._shown = 0.0
        self._show()
        return tally

    def _close_when_told(self) -> None:
        if self._end is not None and self._end.is_set() and self._limit == float("inf"):
            self._schedule.close()
            self._limit = self._clock() + RUN_SECONDS

    def _start_turns(self) -> None:
        """Send out what may start now, but the last tenth only when the fault is over."""
        schedule, fault = self._schedule, self._fault
        while schedule.started_share < HOLD_BACK_FROM or not fault.struck or fault.over:
            chosen = schedule.next_turn(self._clock())
            if chosen is None:
                return
            worker, task = chosen
            self._workers.send(worker_name(worker), task)

    def _kill_worker_when_due(self) -> None:
        """Kill the worker with the most turns in flight, and deliver these to others."""
        schedule, tally = self._schedule, self.tally
        if not self._kills or schedule.ended_share < KILL_AT or tally.refused is not None or not schedule.in_flight:
            return
        self._kills = False
        ((worker, _),) = Counter(schedule.in_flight.values()).most_common(1)
        self._workers.kill(worker_name(worker))
        while isinstance(message := self._workers.receive(0.0), TurnResult):
            self._take(message)  # what it had sent before
        again = schedule.lose_worker(worker, self._clock())
        tally.redelivered.update(again)
        tally.sent_again.update((task.conversation, task.turn) for task in again)
        self._progress.say(
            f"worker {worker} killed (SIGKILL) in the middle of {len(again)} turns: they go to other workers"
        )

    def _strike_when_due(self) -> None:
        fault = self._fault
        if fault.struck or fault.over or self._schedule.ended_share < STRIKE_AT:
            return
        if self.tally.refused is not None:
            return
        live = self._schedule.live() or range(len(self._schedule.conversations))
        fault.strike([self._schedule.conversations[one].conversation_id for one in live])

    def _take(self, result: TurnResult) -> None:
        now = self._clock()
        self._schedule.record(result, now)
        self.tally.add(result)
        if result.history_was_right is False:
            conversation = self._schedule.conversations[result.task.conversation]
            said = len(conversation.items_before(result.task.turn))
            self._progress.say(
                f"worker {result.worker} was given a wrong history of {conversation.conversation_id}: "
                f"{result.given} items where {said} had been said"
            )
        if result.error is None:
            self._end_silence(now)

    def _end_silence(self, now: float) -> None:
        silence = now - self._answered
        self.tally.longest_silence_seconds = max(self.tally.longest_silence_seconds, silence)
        self._answered = now

    def _refusal(self) -> str | None:
        """Why it makes no sense to go on: nothing has worked, and everything failed in one way."""
        schedule = self._schedule
        enough = 2 * schedule.workers
        if schedule.done or self._fault.struck or schedule.failed < enough:
            return None
        if len(self.tally.examples) != 1:
            return None
        error = next(iter(self.tally.examples.values()))
        return f"The first {schedule.failed} turns all ended with {error.type}: {error.message}"

    def _show(self) -> None:
        now = self._clock()
        if not self._schedule.awaits_answer:
            self._answered = now  # no turn waits for an answer, so this is no silence
        if now - self._shown < SHOW_SECONDS:
            return
        self._shown = now
        flight = Counter(self._schedule.in_flight.values())
        retries, repeats, failovers = (self.tally.counter(name) for name in COUNTERS)
        self._progress.show(
            Snapshot(
                seconds=now - self._began,
                turns=self._schedule.total,
                done=self._schedule.done,
                in_flight=tuple(flight[number] for number in range(self._schedule.workers)),
                failed=self._schedule.failed,
                retries=retries,
                repeats_suppressed=repeats,
                failovers=failovers,
            )
        )
