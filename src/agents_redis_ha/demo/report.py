"""What a run found out: the figures, the verdict, and both in words; pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MUST_BE_ZERO = (
    "lost",
    "duplicated",
    "foreign",
    "out_of_order",
    "bad_inputs",
    "unresolved_turns",
    "session_view_differs",
)


@dataclass(frozen=True)
class Report:
    """The figures of one run.

    Attributes:
        topology: What the servers were.
        fault: What happened to them.
        session: ``ha`` or ``sdk``.
        workers: Number of worker processes.
        seed: Seed of the run.
        conversations: Number of conversations.
        turns: Number of turns in them.
        turns_done: Number of turns that were answered.
        items: Number of items that were said in the turns that were answered.
        items_stored: Number of items found in the store.
        failed_turns: How often a user was shown an error. The turn was then sent again.
        errors: The same by type of error.
        error_examples: The message of the first error of each type.
        redelivered_turns: Turns that a worker had when it was killed. They were delivered to others.
        resumed_turns: Turns that went on behind what an attempt before had saved.
        unresolved_turns: Turns that were never answered, however often they were sent.
        bad_inputs: Turns whose run was given a history that was not what had been said.
        retries: Attempts beyond the first that the library made by itself.
        repeats_suppressed: Retries that the store recognised as already applied.
        failovers: New primaries noticed, added up over the workers.
        lost: Items said, but not stored.
        duplicated: Items stored more often than they were said.
        foreign: Items stored that were not said.
        out_of_order: Items stored at another place in the order.
        torn_turns: Turns of which only a part is in its place.
        damaged_conversations: Conversations with any of the last five.
        resent_turns_stored_twice: Turns that failed, or had been the killed worker's, of which something had been
            stored, so that sending them again stored it twice.
        resent_items_stored_twice: The items of those.
        session_view_differs: Conversations that read through the session are not what the servers
            hold.
        longest_wait_seconds: Longest time from the start of a turn to its answer or error, as its
            worker saw it, without the time that the scripted model took. Those that were delivered again are not
            counted: they wait for the lease of the killed worker.
        longest_silence_seconds: Longest time in which no turn at all was answered although at least
            one was in flight or waiting to be sent again.
        takeover_seconds: From the fault to the election of a new primary; ``None`` without one.
        slots_moved: Slots moved away and back.
        seconds: Length of the run, from the first turn to the last, without start and end of the
            servers.
        events: What happened, in order.
        refused: Why the run was broken off because no turn could be stored at all, else ``None``.
        fault_error: Why the fault could not be played to its end, else ``None``.
    """

    topology: str
    fault: str
    session: str
    workers: int
    seed: int
    conversations: int
    turns: int
    turns_done: int
    items: int
    items_stored: int
    failed_turns: int
    errors: dict[str, int]
    error_examples: dict[str, str]
    redelivered_turns: int
    resumed_turns: int
    unresolved_turns: int
    bad_inputs: int
    retries: int
    repeats_suppressed: int
    failovers: int
    lost: int
    duplicated: int
    foreign: int
    out_of_order: int
    torn_turns: int
    damaged_conversations: int
    resent_turns_stored_twice: int
    resent_items_stored_twice: int
    session_view_differs: int
    longest_wait_seconds: float
    longest_silence_seconds: float
    takeover_seconds: float | None
    slots_moved: int
    seconds: float
    events: list[str] = field(default_factory=list)
    refused: str | None = None
    fault_error: str | None = None

    @property
    def whole(self) -> bool:
        """Whether every conversation is whole and every turn was answered."""
        if self.refused is not None or self.fault_error is not None:
            return False
        return not any(getattr(self, name) for name in MUST_BE_ZERO)

    def as_json(self) -> dict[str, Any]:
        """The figures and the verdict, ready for ``json.dumps``."""
        return {**asdict(self), "whole": self.whole}


def figures(report: Report) -> list[tuple[str, str]]:
    """The report as rows of a name and a value."""
    rows = [
        ("conversations", f"{report.conversations}"),
        ("turns", f"{report.turns_done} of {report.turns} answered, {report.workers} workers"),
        ("items", f"{report.items} said, {report.items_stored} stored"),
        ("time", f"{report.seconds:.1f} s"),
        ("longest wait in a turn", f"{report.longest_wait_seconds:.2f} s beside the model's time"),
        ("longest silence", f"{report.longest_silence_seconds:.2f} s without any answer"),
        ("turns failed with an error", _errors(report)),
    ]
    if report.redelivered_turns:
        rows.append(("turns of a killed worker", _redelivered(report)))
    if report.session == "ha":
        rows += [
            ("retries", f"{report.retries}"),
            ("repeats suppressed", f"{report.repeats_suppressed}"),
            ("failovers seen", f"{report.failovers} (added up over the workers)"),
        ]
    if report.fault == "move-slot":
        rows.append(("slots moved and moved back", f"{report.slots_moved}"))
    return [
        *rows,
        ("runs on a wrong history", f"{report.bad_inputs}"),
        ("items lost", f"{report.lost}"),
        ("items duplicated", f"{report.duplicated}"),
        ("items out of order", f"{report.out_of_order}"),
    ]


def _redelivered(report: Report) -> str:
    resumed = f", {report.resumed_turns} resumed behind their tools" if report.session == "ha" else ""
    return f"{report.redelivered_turns} delivered again{resumed}"


def _errors(report: Report) -> str:
    if not report.errors:
        return "0"
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(report.errors.items()))
    return f"{report.failed_turns} ({kinds})"


def findings(report: Report) -> list[str]:
    """What the figures mean, a sentence or two each; the verdict comes last."""
    if report.refused is not None:
        return [f"Broken off: no turn could be stored. {report.refused}"]
    said: list[str] = []
    if report.fault_error is not None:
        said.append(f"The fault could not be played to its end: {report.fault_error}")
    if report.resent_turns_stored_twice:
        one = report.resent_turns_stored_twice == 1
        said.append(
            f"{_count(report.resent_turns_stored_twice, 'turn', 'turns')} had failed or lost "
            f"{'its' if one else 'their'} worker although part of {'it' if one else 'them'} had been stored: "
            f"sent again, {'it' if one else 'they'} stored "
            f"{_count(report.resent_items_stored_twice, 'item', 'items')} twice."
        )
    if report.lost:
        said.append(
            f"{_count(report.lost, 'item', 'items')} of turns that were reported as done "
            f"{'is' if report.lost == 1 else 'are'} not stored."
        )
    if report.torn_turns:
        said.append(f"{_count(report.torn_turns, 'turn is', 'turns are')} stored only in part.")
    if report.foreign:
        said.append(f"{_count(report.foreign, 'item', 'items')} stored belong to no turn that was done.")
    if report.bad_inputs:
        said.append(
            f"{_count(report.bad_inputs, 'run', 'runs')} of the agent began with a history that is "
            "not what had been said."
        )
    if report.unresolved_turns:
        said.append(f"{_count(report.unresolved_turns, 'turn was', 'turns were')} never answered.")
    if report.session_view_differs:
        said.append(
            f"{_count(report.session_view_differs, 'conversation', 'conversations')} read through "
            "the session differ from what the servers hold."
        )
    return [*said, _verdict(report)]


def _verdict(report: Report) -> str:
    if report.whole:
        return f"All {report.conversations} conversations are whole: every turn answered and stored once, in order."
    damaged = report.damaged_conversations
    if damaged:
        return f"{damaged} of {report.conversations} conversations are damaged."
    return "The run did not come to a good end."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
