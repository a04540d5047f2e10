"""The live view of a run: a table that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

EVENTS_SHOWN = 8


@dataclass(frozen=True)
class Snapshot:
    """Where a run is.

    Attributes:
        seconds: Time since the first turn.
        turns: Number of turns of the run.
        done: Number of turns answered.
        in_flight: Number of turns running, by worker.
        failed: Number of errors shown to users.
        retries: Retries of the library.
        repeats_suppressed: Retries that had been applied already.
        failovers: New primaries noticed, added up over the workers.
    """

    seconds: float
    turns: int
    done: int
    in_flight: tuple[int, ...]
    failed: int
    retries: int
    repeats_suppressed: int
    failovers: int


class Progress(Protocol):
    """Where a run shows how it goes."""

    def say(self, event: str) -> None:
        """Something happened. May be called from any thread."""
        ...

    def show(self, snapshot: Snapshot) -> None:
        """This is where the run is; called a few times a second."""
        ...

    def live(self) -> AbstractContextManager[object]:
        """The time in which ``show`` is called."""
        ...


class PlainProgress:
    """One line for each event, and one a second.

    Args:
        stream: Where they go.
        interval_seconds: Least time between two lines of progress.
    """

    def __init__(self, stream: TextIO, interval_seconds: float = 1.0) -> None:
        self._stream = stream
        self._interval = interval_seconds
        self._shown = float("-inf")
        self._lock = threading.Lock()

    def say(self, event: str) -> None:
        """Write an event at once."""
        self._write(f"  * {event}")

    def show(self, snapshot: Snapshot) -> None:
        """Write a line if the last one is long enough ago."""
        if snapshot.seconds - self._shown < self._interval:
            return
        self._shown = snapshot.seconds
        self._write(f"{snapshot.seconds:5.1f} s  {summary(snapshot)}")

    def live(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def _write(self, line: str) -> None:
        with self._lock:
            print(line, file=self._stream, flush=True)


def summary(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    return (
        f"{snapshot.done:4d}/{snapshot.turns} turns, {sum(snapshot.in_flight):2d} in flight, "
        f"{snapshot.failed} failed, {snapshot.retries} retries, "
        f"{snapshot.repeats_suppressed} repeats suppressed"
    )


class RichProgress:
    """A table that is drawn anew, with the latest events below it.

    Args:
        console: A ``rich.console.Console``. ``Any``, because rich is an optional dependency.
    """

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._began = time.monotonic()
        self._snapshot: Snapshot | None = None
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self.render)

    def say(self, event: str) -> None:
        """Show an event below the table, with its time."""
        self._events.append(f"{time.monotonic() - self._began:5.1f} s  {event}")

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        self._snapshot = snapshot

    def live(self) -> AbstractContextManager[object]:
        """Keeps the view on the screen; its last state stays there."""
        return self._live

    def render(self) -> Any:
        """What is on the screen now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        events = [Text(event) for event in list(self._events)]
        now = self._snapshot
        if now is None:
            return Group(*events)
        table = Table.grid(padding=(0, 2))
        for name, value in rows(now):
            table.add_row(Text(name, style="dim"), Text(value))
        bar = Table.grid()  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=now.turns, completed=now.done, width=60))
        return Group(bar, table, *events)


def rows(snapshot: Snapshot) -> Sequence[tuple[str, str]]:
    """A snapshot as rows of a name and a value."""
    flight = "  ".join(f"{count:2d}" for count in snapshot.in_flight)
    return (
        ("turns answered", f"{snapshot.done} of {snapshot.turns} in {snapshot.seconds:.1f} s"),
        ("in flight, by worker", flight),
        ("failed with an error", f"{snapshot.failed}"),
        ("retries", f"{snapshot.retries}"),
        ("repeats suppressed", f"{snapshot.repeats_suppressed}"),
        ("failovers seen", f"{snapshot.failovers}"),
    )


def choose_progress(stream: TextIO) -> Progress:
    """The table if the stream is a terminal and rich is installed, else plain lines."""
    if stream.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return PlainProgress(stream)
        return RichProgress(Console(file=stream))
    return PlainProgress(stream)
