"""The record of one worker process: JSON lines, complete up to the last begun call even if the process is killed.

A call makes two lines: one before it begins and one when it has ended. Each line reaches the kernel in one write
before the worker goes on, so SIGKILL cannot take it back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agents_redis_ha import HistoryLostError
from tests.failover.campaign.history import Attempt, Call, Op, Status, ToolRun
from tests.failover.campaign.marks import Mark


class Recorder:
    """Writes one worker's record.

    Args:
        path: The file; appended to.
        worker: The worker's name.
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._file = path.open("ab", buffering=0)
        self._worker = worker
        self._number = 0

    def begin(self, session: str, handle: str, op: Op, *, items: Iterable[Mark] = (), limit: int | None = None) -> Call:
        """Note that a call begins now."""
        self._number += 1
        call = Call(
            worker=self._worker,
            number=self._number,
            session=session,
            handle=handle,
            op=op,
            begin=time.monotonic(),
            items=tuple(items),
            limit=limit,
        )
        self._write(begin_line(call))
        return call

    def end(self, call: Call, status: Status, **outcome: Any) -> Call:
        """Note that a call has ended now, and how; the outcome's names are those of `Call`."""
        ended = replace(call, end=time.monotonic(), status=status, **outcome)
        self._write(end_line(ended))
        return ended

    def note_tool(self, tool: ToolRun) -> None:
        """Note that a tool has run in a turn."""
        self._write({"tool": asdict(tool)})

    def note_attempt(self, attempt: Attempt) -> None:
        """Note how a delivery of a turn ended."""
        self._write({"attempt": asdict(attempt)})

    def note_front(self, session: str, first: Mark, front: Mark | None) -> None:
        """Note nothing: whether batches are whole is told by what is stored."""

    def note_loss(self, session: str, error: HistoryLostError) -> None:
        """Note nothing: that it was told is a call of its own."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def begin_line(call: Call) -> dict[str, Any]:
    """Return what is known of a call before it begins."""
    return {
        "begin": call.begin,
        "call": call.number,
        "worker": call.worker,
        "session": call.session,
        "handle": call.handle,
        "op": call.op.value,
        "items": [str(mark) for mark in call.items],
        "limit": call.limit,
    }


def end_line(call: Call) -> dict[str, Any]:
    """Return what is known of a call after it has ended, besides its first line."""
    line: dict[str, Any] = {"end": call.end, "call": call.number, "status": call.status.value}
    if call.result:
        line["result"] = [mark and str(mark) for mark in call.result]
    if call.error:
        line.update(error=call.error, foreign=call.foreign_error)
        line.update(lost_versions=call.lost_versions, open=call.is_open)
    return line


def load(path: Path) -> list[Call]:
    """Return the calls of a record, in the order in which they began; one without an end line is `UNKNOWN`."""
    calls: dict[int, Call] = {}
    for line in _lines(path):
        if (number := line.get("call")) is not None:
            calls[number] = _begun(line) if "begin" in line else _ended(calls[number], line)
    return list(calls.values())


def load_turns(path: Path) -> tuple[list[Attempt], list[ToolRun]]:
    """Return the deliveries of turns of a record, and the tools that ran in them."""
    lines = list(_lines(path))
    attempts = [Attempt(**_named(line["attempt"])) for line in lines if "attempt" in line]
    return attempts, [ToolRun(**_named(line["tool"])) for line in lines if "tool" in line]


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    writer, sequence = fields["batch"]
    return {**fields, "batch": (writer, sequence)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_bytes().split(b"\n"):
        if text.strip():
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:  # cut by a full disk: the call then has no end
                continue
            yield line


def _begun(line: dict[str, Any]) -> Call:
    return Call(
        worker=line["worker"],
        number=line["call"],
        session=line["session"],
        handle=line["handle"],
        op=Op(line["op"]),
        begin=line["begin"],
        items=tuple(Mark.parse(text) for text in line["items"]),
        limit=line["limit"],
    )


def _ended(call: Call, line: dict[str, Any]) -> Call:
    return replace(
        call,
        end=line["end"],
        status=Status(line["status"]),
        result=tuple(text and Mark.parse(text) for text in line.get("result", ())),
        error=line.get("error"),
        foreign_error=line.get("foreign", False),
        lost_versions=line.get("lost_versions", 0),
        is_open=line.get("open", False),
    )
