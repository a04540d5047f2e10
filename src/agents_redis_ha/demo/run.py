"""One run of the demo from its options to its report."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .. import lab
from .comparison import Comparison, compare
from .conversations import Conversation, load_conversations
from .engine import Engine, Tally
from .faults import FaultRun
from .fleet import Fleet
from .messages import WorkerSetup
from .progress import Progress
from .report import Report
from .schedule import Schedule
from .servers import (
    DemoTopology,
    Fault,
    plan_for,
    read_stored,
    read_through_sessions,
    start_servers,
)
from .sessions import SessionKind, SessionPlan
from .shape import shapes

PACE_SECONDS = 12.0
QUICK_LATENCY_MS = (5.0, 30.0)
LONGEST_MEAN_LATENCY_MS = 1500.0
WORKER_START_SECONDS = 60.0
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
    """

    topology: DemoTopology = "sentinel"
    fault: Fault = "kill"
    session: SessionKind = "ha"
    conversations: Path | None = None
    limit: int | None = None
    workers: int = 4
    seed: int = 0


def run_demo(options: Options, progress: Progress) -> Report:
    """Run the conversations on real servers, let the fault strike, and compare.

    Args:
        options: What to run.
        progress: Where the run shows how it goes.

    Raises:
        ConversationError: The conversations cannot be read.
        LabError: The servers cannot be started.
        FleetError: A worker process did not start or ended.
    """
    conversations = tuple(load_conversations(options.conversations, options.limit))
    events = EventLog(progress)
    with progress.live():
        events.say(f"starting the servers: {options.topology}")
        with start_servers(options.topology) as servers:
            return _run_on(servers, options, conversations, events, progress)


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


def _run_on(
    servers: lab.Lab,
    options: Options,
    conversations: tuple[Conversation, ...],
    events: EventLog,
    progress: Progress,
) -> Report:
    plan = plan_for(options.session, servers)
    schedule = Schedule(conversations, options.workers, random=Random(options.seed))
    latency = QUICK_LATENCY_MS if options.fault == "none" else model_latency_ms(schedule)
    setups = [WorkerSetup(number, plan, conversations, options.seed, latency) for number in range(options.workers)]
    fault = FaultRun(options.fault, servers, plan, events.say)
    events.say(f"starting {options.workers} worker processes")
    with Fleet(setups) as fleet:
        fleet.wait_until_ready(WORKER_START_SECONDS)
        tally = Engine(schedule, fleet, fault, progress).run()
    fault.wait(REPAIR_SECONDS)
    servers.wait_ready()
    found = _examine(servers, plan, schedule)
    return _report(_Ended(options, schedule, tally, fault, found, events.events))


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


@dataclass(frozen=True)
class Found:
    """What the store held at the end.

    Attributes:
        comparisons: One for each conversation.
        view_differs: Number of conversations that the session reads otherwise than they are stored.
    """

    comparisons: tuple[Comparison, ...]
    view_differs: int


def _examine(servers: lab.Lab, plan: SessionPlan, schedule: Schedule) -> Found:
    """Compare what is stored with what was said in the turns that were answered."""
    ids = [one.conversation_id for one in schedule.conversations]
    stored = read_stored(servers, plan, ids)
    viewed = read_through_sessions(plan, ids)
    answered = zip(schedule.conversations, stored, schedule.completed, strict=True)
    return Found(
        comparisons=tuple(compare(one, items, count) for one, items, count in answered),
        view_differs=sum(_differ(a, b) for a, b in zip(stored, viewed, strict=True)),
    )


def _differ(stored: Sequence[Any], viewed: Sequence[Any] | None) -> bool:
    return viewed is None or shapes(stored) != shapes(viewed)


def _stored_twice(found: Found, tally: Tally) -> dict[str, int]:
    """Turns, and their items, that were stored twice because they had been reported as failed."""
    doubled = [found.comparisons[conversation].duplicated_by_turn.get(turn, 0) for conversation, turn in tally.failed]
    return {
        "resent_turns_stored_twice": sum(count > 0 for count in doubled),
        "resent_items_stored_twice": sum(doubled),
    }


@dataclass(frozen=True)
class _Ended:
    """All that the report is made of."""

    options: Options
    schedule: Schedule
    tally: Tally
    fault: FaultRun
    found: Found
    events: list[str]


def _report(run: _Ended) -> Report:
    options, schedule, tally, fault = run.options, run.schedule, run.tally, run.fault
    compared = run.found.comparisons
    return Report(
        topology=options.topology,
        fault=options.fault,
        session=options.session,
        workers=options.workers,
        seed=options.seed,
        conversations=len(schedule.conversations),
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
        **_stored_twice(run.found, tally),
        session_view_differs=run.found.view_differs,
        longest_wait_seconds=round(tally.longest_wait_seconds, 3),
        longest_silence_seconds=round(tally.longest_silence_seconds, 3),
        takeover_seconds=fault.takeover_seconds and round(fault.takeover_seconds, 3),
        slots_moved=fault.slots_moved,
        seconds=round(tally.seconds, 3),
        events=run.events,
        refused=tally.refused,
        fault_error=fault.failure if tally.refused is None else None,
    )
