"""One run of the demo from its options to its report."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .. import HAConfig
from ..lab.conversations import copies, load_conversations, write_conversations
from ..lab.workers import WorkerProcesses
from .engine import Engine, Tally
from .examination import Found, examine
from .faults import Fault, FaultRun, NoFault
from .messages import WorkerSetup, worker_name
from .progress import Progress
from .report import Report
from .schedule import Schedule
from .servers import (
    DemoTopology,
    FaultName,
    plan_for,
    start_servers,
)
from .sessions import SessionKind, SessionPlan
from .worker import serve

PACE_SECONDS = 8.0
OPEN_AT_ONCE = 16
OWN_LATENCY_MS = (100.0, 700.0)
QUICK_LATENCY_MS = (5.0, 30.0)
LONGEST_MEAN_LATENCY_MS = 1500.0
WORKER_START_SECONDS = 120.0
WORKER_STOP_SECONDS = 5.0
REPAIR_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        topology: The servers.
        fault: What happens to them in the middle.
        session: Whose session the agents use.
        conversations: A file of conversations; ``None`` means the packaged ones.
        limit: Greatest number of conversations; ``None`` means all.
        workers: Number of worker processes, 1 or more.
        seed: Seed of everything that is drawn at random.
        config: Servers that run already, of this topology; ``None`` starts some. They are left alone: ``fault`` must be
            ``none``, and what befalls them comes from outside.
        copies: How often each conversation is replayed, with ``config`` alone; at most ``OPEN_AT_ONCE`` are under way.
        record: Takes what was said in turns that were answered, as a file of conversations.
    """

    topology: DemoTopology = "sentinel"
    fault: FaultName = "kill"
    session: SessionKind = "ha"
    conversations: Path | None = None
    limit: int | None = None
    workers: int = 4
    seed: int = 0
    config: HAConfig | None = None
    copies: int = 1
    record: Path | None = None


def run_demo(options: Options, progress: Progress, end: threading.Event | None = None) -> Report:
    """Run the conversations on real servers, let the fault strike, and compare.

    Args:
        options: What to run.
        progress: Where the run shows how it goes.
        end: With ``options.config``: set to begin no further conversation, end those under way, and compare.

    Raises:
        ConversationError: The conversations cannot be read.
        LabError: The servers cannot be started.
        WorkerError: A worker process did not start or ended.
        OSError: The record cannot be written.
    """
    conversations = load_conversations(options.conversations, options.limit)
    events = EventLog(progress)
    with progress.live():
        if options.config is not None:
            named = copies(conversations, f"demo-{uuid.uuid4().hex[:8]}", options.copies)
            schedule = Schedule(tuple(named), options.workers, open_at_once=OPEN_AT_ONCE, random=Random(options.seed))
            plan = SessionPlan(options.session, options.config)
            run = _Run(options, schedule, plan, NoFault(), events)
            return run.play(progress, OWN_LATENCY_MS, end or threading.Event())
        events.say(f"starting the servers: {options.topology}")
        with start_servers(options.topology) as servers:
            schedule = Schedule(tuple(conversations), options.workers, random=Random(options.seed))
            plan = plan_for(options.session, servers)
            run = _Run(options, schedule, plan, FaultRun(options.fault, servers, plan, events.say), events)
            latency = QUICK_LATENCY_MS if options.fault == "none" else model_latency_ms(schedule)
            return run.play(progress, latency)


class EventLog:
    """Keeps what happened for the report and passes it on.

    Args:
        progress: Is told at once.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self.events: list[str] = []

    def say(self, event: str) -> None:
        """Something happened; may be called from any thread."""
        with self._lock:
            self.events.append(event)
        self._progress.say(event)


@dataclass(frozen=True)
class _Run:
    """All that a run is made of."""

    options: Options
    schedule: Schedule
    plan: SessionPlan
    fault: Fault
    events: EventLog

    def play(self, progress: Progress, latency_ms: tuple[float, float], end: threading.Event | None = None) -> Report:
        """Run the turns in worker processes, and report what the store holds afterwards."""
        options, schedule = self.options, self.schedule
        setups = {
            worker_name(number): WorkerSetup(number, self.plan, schedule.conversations, options.seed, latency_ms)
            for number in range(options.workers)
        }
        self.events.say(f"starting {options.workers} worker processes")
        with WorkerProcesses(serve, setups) as workers:
            workers.wait_until_ready(WORKER_START_SECONDS)
            tally = Engine(schedule, workers, self.fault, progress, kills=options.fault != "none", end=end).run()
            workers.stop(WORKER_STOP_SECONDS)
        self.fault.settle(REPAIR_SECONDS)
        if options.record is not None:
            write_conversations(options.record, schedule.said())
        return _report(self, tally, _examine(self.plan, schedule))


def model_latency_ms(schedule: Schedule) -> tuple[float, float]:
    """How long the scripted model takes, so that the run lasts ``PACE_SECONDS``.

    The fault should meet many turns half way, as it does where models take a second to answer, and
    the run must last longer than the failover does.

    Returns:
        The shortest and the longest time, in milliseconds.
    """
    conversations = schedule.conversations
    calls = sum(turn.responses for one in conversations for turn in one.turns)
    in_flight = min(len(conversations), schedule.workers * schedule.per_worker)
    mean = min(LONGEST_MEAN_LATENCY_MS, 1000 * PACE_SECONDS * in_flight / calls)
    return 0.25 * mean, 1.75 * mean


def _examine(plan: SessionPlan, schedule: Schedule) -> Found:
    """Compare what is stored with what was said in the turns that were answered."""
    begun = schedule.conversations[: schedule.begun]
    return examine(plan, list(zip(begun, schedule.completed, strict=False)))


def _sent_again(found: Found, tally: Tally) -> dict[str, int]:
    """What became of turns that were sent again, and how much of them was stored twice."""
    doubled = [
        found.comparisons[conversation].duplicated_by_turn.get(turn, 0) for conversation, turn in tally.sent_again
    ]
    return {
        "redelivered_turns": len(tally.redelivered),
        "resumed_turns": tally.resumed,
        "resent_turns_stored_twice": sum(count > 0 for count in doubled),
        "resent_items_stored_twice": sum(doubled),
    }


def _report(run: _Run, tally: Tally, found: Found) -> Report:
    options, schedule, fault = run.options, run.schedule, run.fault
    compared = found.comparisons
    return Report(
        topology=options.topology,
        fault=options.fault,
        session=options.session,
        workers=options.workers,
        seed=options.seed,
        conversations=schedule.begun,
        turns=schedule.total,
        turns_done=schedule.done,
        items=sum(one.said for one in compared),
        items_stored=sum(one.stored for one in compared),
        failed_turns=schedule.failed,
        errors=dict(tally.errors),
        error_examples={name: error.message for name, error in tally.examples.items()},
        unresolved_turns=schedule.total - schedule.done,
        bad_inputs=tally.bad_inputs,
        retries=tally.counter("retries"),
        repeats_suppressed=tally.counter("repeats_suppressed"),
        failovers=tally.counter("failovers"),
        lost=sum(one.lost for one in compared),
        duplicated=sum(one.duplicated for one in compared),
        foreign=sum(one.foreign for one in compared),
        out_of_order=sum(one.out_of_order for one in compared),
        torn_turns=sum(len(one.torn_turns) for one in compared),
        damaged_conversations=sum(not one.intact for one in compared),
        **_sent_again(found, tally),
        session_view_differs=found.view_differs,
        longest_wait_seconds=round(tally.longest_wait_seconds, 3),
        longest_silence_seconds=round(tally.longest_silence_seconds, 3),
        takeover_seconds=fault.takeover_seconds and round(fault.takeover_seconds, 3),
        slots_moved=fault.slots_moved,
        seconds=round(tally.seconds, 3),
        events=run.events.events,
        refused=tally.refused,
        fault_error=fault.failure if tally.refused is None else None,
    )
