"""A worker process: calls its sessions, many at a time, until it is told to stop, and reads them all once more."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents_redis_ha import HAConfig, close_shared_connections, counters, ha_session
from agents_redis_ha._commands import commands
from agents_redis_ha.lab.conversations import load_conversations
from agents_redis_ha.lab.workers import Parent
from tests.failover.campaign.caller import Caller, outcome_of
from tests.failover.campaign.history import Call, Status
from tests.failover.campaign.marks import Mark, is_turn, make_batch, make_turn, put_mark
from tests.failover.campaign.record import Recorder, load
from tests.failover.campaign.turns import TurnCaller

_LIMITS = (1, 4, 8, 16)
_WARM_UP = 12  # calls
_LONGEST = 80  # items of an owned session, before its owner clears or compacts it
_IN_TURNS = 0.8  # of what is added
_OF_OTHERS = 0.25  # of the turns of a shared session


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker is told.

    Attributes:
        name: Its name.
        config: The servers.
        record: The file of its record.
        seed: Decides what it does, though not when.
        owned: How many sessions of its own it calls at a time.
        shared: Names of the sessions that other workers call too.
        pops_shared: Whether it may pop from those.
        pause_seconds: Mean time between two calls of one session.
        conversations: A file of conversations to colour the items with; None means the packaged ones.
        hiredis: Whether it reads as with hiredis; only where that is installed.
        turns_of: The workers whose turns it delivers, itself among them; empty: it adds without turns.
    """

    name: str
    config: HAConfig
    record: Path
    seed: int
    owned: int = 3
    shared: tuple[str, ...] = ()
    pops_shared: bool = False
    pause_seconds: float = 0.03
    conversations: Path | None = None
    hiredis: bool = True
    turns_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class PutBack:
    """What a worker says when it stops in order.

    Attributes:
        changes: How many changes that the servers had lost it has put back.
    """

    changes: int


async def work(setup: WorkerSetup, parent: Parent) -> None:
    """Work until the parent says that it is enough, or has died; then send how many lost changes were put back."""
    logging.getLogger("agents_redis_ha").setLevel(logging.CRITICAL)
    if not setup.hiredis:
        vars(commands)["HIREDIS_AVAILABLE"] = False
    stop = asyncio.Event()
    listening = asyncio.ensure_future(_stop_when_told(parent, stop))
    desk = Desk(setup, stop, parent)
    writers = [Writer(desk, f"{setup.name}.own{number}", None) for number in range(setup.owned)]
    writers += [Writer(desk, f"{setup.name}.{name}", name) for name in setup.shared]
    await asyncio.gather(*(writer.run() for writer in writers))
    await desk.deliver_unanswered()
    await asyncio.gather(*(caller.read() for caller in desk.callers))
    await close_shared_connections()
    desk.recorder.close()
    parent.send(PutBack(counters()["changes_restored"]))
    await listening


async def _stop_when_told(parent: Parent, stop: asyncio.Event) -> None:
    async for _ in parent.messages():
        continue
    stop.set()


class Desk:
    """What the writers of one process share.

    Attributes:
        setup: What the worker was told.
        stop: Set when it is to stop.
        recorder: Its record.
        callers: Every session that it has opened.
    """

    def __init__(self, setup: WorkerSetup, stop: asyncio.Event, parent: Parent) -> None:
        self.setup = setup
        self.stop = stop
        self._parent = parent
        self._called = 0
        self.recorder = Recorder(setup.record, setup.name)
        self.callers: list[Caller] = []
        told = load_conversations(setup.conversations, 8)
        self.lines: list[dict[str, Any]] = [item for conversation in told for item in conversation.items]

    def open(self, name: str) -> Caller:
        """Open a session."""
        caller = Caller(ha_session(self.setup.config, name), name, self.setup.name, self.recorder)
        self.callers.append(caller)
        return caller

    async def deliver(self, caller: Caller, batch: Sequence[Mark], stream: random.Random) -> Call:
        """Deliver a turn until it is answered, or cannot be."""
        options = {
            "if_busy": stream.choice(("enqueue", "enqueue", "enqueue", "reject", "rollback")),
            "if_unanswered": stream.choice(("resume", "resume", "restart")),
            "save": stream.choice(("steps", "steps", "end")),
            "on_error": stream.choice(("keep", "keep", "rollback")),
            "wait_seconds": stream.choice((2.0, 20.0)),
            "lease_seconds": self.setup.config.retry.deadline_seconds,
        }
        call = caller.begin_turn(batch)
        turn = TurnCaller(caller.session, call, options, self.recorder, stream.choice((0.0, 0.01, 0.05, 0.2)))
        try:
            return await turn.deliver()
        except Exception as error:  # noqa: BLE001 (the record holds it, and the checker judges it)
            return self.recorder.end(call, **outcome_of(error))

    async def deliver_unanswered(self) -> None:
        """Deliver the turns of other workers that are not answered yet: some of these workers were killed."""
        stream = random.Random(f"{self.setup.seed}/{self.setup.name}")
        records = (path for path in sorted(self.setup.record.parent.glob("*.jsonl")) if path != self.setup.record)
        begun = (call for path in records if self.setup.turns_of for call in load(path))
        left = [call for call in begun if not call.finished and call.items and is_turn(call.items[0])]
        await asyncio.gather(*(self.deliver(self.open(call.session), call.items, stream) for call in left))

    def called(self) -> None:
        """Note that a call has ended; after a dozen of them the worker works."""
        self._called += 1
        if self._called == _WARM_UP:
            self._parent.ready()


class Writer:
    """One task: calls one session, one call after the other.

    Args:
        desk: The process's.
        name: The writer's name, in every mark.
        shared: The shared session that it calls; None for sessions of its own.
    """

    def __init__(self, desk: Desk, name: str, shared: str | None) -> None:
        self._desk = desk
        self._name = name
        self._shared = shared
        self._random = random.Random(f"{desk.setup.seed}/{name}")
        self._sequence = self._turns = 0
        self._opened = 0
        self._length = 0

    async def run(self) -> None:
        """Call until the worker is to stop."""
        steps = self._shared_steps if self._shared else self._own_steps
        pause = self._desk.setup.pause_seconds * (4 if self._shared else 1)
        while not self._desk.stop.is_set():
            caller = self._desk.open(self._shared or self._next_name())
            async for _ in steps(caller):
                self._desk.called()
                await self._rest(self._random.uniform(0.2, 1.8) * pause)
                if self._desk.stop.is_set():
                    return

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._desk.stop.wait(), seconds)
        except asyncio.TimeoutError:
            return

    async def _shared_steps(self, caller: Caller) -> AsyncIterator[Call]:
        while True:
            chance = self._random.random()
            if chance < 0.6:
                yield await self._add(caller)
            elif chance < 0.7 and self._desk.setup.pops_shared:
                yield await caller.pop()
            else:
                yield await caller.read(None if chance > 0.97 else self._random.choice(_LIMITS))

    async def _own_steps(self, caller: Caller) -> AsyncIterator[Call]:
        """Yield calls until the outcome of a clear is unknown: what comes after would prove nothing."""
        self._length = 0
        while True:
            if self._length > _LONGEST:
                removal = await self._start_anew(caller)
                yield removal
                if removal.status is Status.UNKNOWN:
                    return
                continue
            chance = self._random.random()
            if chance < 0.5:
                call = await self._add(caller)
                self._length += len(call.items)
                yield call
            elif chance < 0.6:
                self._length -= 1
                yield await caller.pop()
            else:
                yield await caller.read(None if chance > 0.9 else self._random.choice(_LIMITS))

    async def _start_anew(self, caller: Caller) -> Call:
        kind = self._random.choice(("clear", "replace", "compact"))
        batch, items = self._batch(caller)
        if kind == "clear":
            call = await caller.clear()
        elif kind == "replace":
            call = await caller.replace(batch, items)
        else:
            call = await caller.compact(batch, items)
        if call.may_be_applied:
            self._length = len(call.items)
        return call

    async def _add(self, caller: Caller) -> Call:
        """Add a batch, or deliver a turn: its own, or one that another worker delivers at about the same time."""
        workers = self._desk.setup.turns_of
        if not workers or self._random.random() > _IN_TURNS:
            return await caller.append(*self._batch(caller))
        if self._shared and self._random.random() < _OF_OTHERS:
            number = max(1, self._turns + self._random.choice((-1, 0, 1)))
            batch = make_turn(f"{self._random.choice(workers)}.{self._shared}", number)
        else:
            self._turns += 1
            batch = make_turn(self._name, self._turns)
        return await self._desk.deliver(caller, batch, self._random)

    def _batch(self, caller: Caller) -> tuple[tuple[Mark, ...], list[dict[str, Any]]]:
        self._sequence += 1
        batch = make_batch(self._name, self._sequence, self._random.randint(1, 4))
        return batch, [put_mark(self._random.choice(self._desk.lines), mark, caller.name) for mark in batch]

    def _next_name(self) -> str:
        self._opened += 1
        return f"{self._name}.{self._opened}"
