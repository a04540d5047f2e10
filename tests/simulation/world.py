"""One run: servers, processes, calls and faults as a plan says, and what came of it.

A topology is a class with the servers' names, how they are started, which of them is the primary, and how each is
broken; `Standalone` is below, the others have a file each.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agents_redis_ha import HAConfig, counters
from tests.failover.campaign.history import Attempt, Call, Op, Status, ToolRun
from tests.failover.campaign.marks import Mark
from tests.simulation import faults
from tests.simulation.fences import Fences
from tests.simulation.flows import Flow
from tests.simulation.loop import Handle, RunawayError, SimulatedLoop, quiet_end
from tests.simulation.memory import Memory
from tests.simulation.network import Network
from tests.simulation.plan import Fault, Plan
from tests.simulation.processes import Worker
from tests.simulation.randomness import Seed, determined
from tests.simulation.timeline import Timeline
from tests.simulation.topologies import Servers, make_servers
from tests.simulation.versions import Versions

_LOOK_SECONDS = 0.02
_MOST_SECONDS = 600.0
_MOST_STEPS = 2_000_000
_SETTLE_SECONDS = 60.0
_QUIET_SECONDS = 0.5
# A sweep looks at all sessions that wait; where it needs what others know, it has patience for 2 s.
_SWEEP_SECONDS = 4.0


@dataclass(kw_only=True)
class Run:
    """What came of a plan.

    Attributes:
        plan: The plan.
        calls: All calls of all processes.
        stored: What is stored at the end, by session.
        struck: The faults that struck, by kind.
        problems: What went wrong with the run itself: a call that never ended, a session that cannot be read when all
            is well again, an error that no caller met.
        timeline: What happened.
        seconds: How long it took, in virtual time.
        steps: How many callbacks the loop has run.
        totals: What the library counted meanwhile.
        promotions: How often another server became the primary.
        removals: What the servers removed by themselves.
        expectations: Of each batch that was added at an expected version: the item in front of it.
        guarded: When a session was not to be changed: its name, from when, until when.
        named: The versions that callers were told are lost, by session.
        made: With which versions a batch was confirmed, by session and batch.
        answered: Which server confirmed a batch.
        takeovers: When Sentinels told a server to be the primary, or turned to it, and which; none where the one
            that did so ended in the middle.
        fences: When a session's write fence stood: its name, from when, until when.
        evicted: Whether servers have evicted keys of sessions.
        ids_evicted: The sessions of which servers have evicted the ids of changes.
        strays: Whether the move of a slot was called off, so that keys may be where no client looks for them.
        losses: When servers lost data, or another one took over (loop time).
        tools: The tools that ran in turns.
        attempts: The deliveries of turns.
    """

    plan: Plan
    calls: list[Call] = field(default_factory=list)
    stored: dict[str, list[Mark | None]] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    timeline: Timeline = field(default_factory=lambda: Timeline(0.0))
    seconds: float = 0.0
    steps: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    promotions: int = 0
    removals: list[Call] = field(default_factory=list)
    expectations: Mapping[tuple[str, Mark], Mark | None] = field(default_factory=dict)
    guarded: list[tuple[str, float, float]] = field(default_factory=list)
    named: Mapping[str, set[int]] = field(default_factory=dict)
    made: Mapping[tuple[str, tuple[str, int]], set[int]] = field(default_factory=dict)
    answered: Mapping[tuple[str, tuple[str, int]], str] = field(default_factory=dict)
    takeovers: list[tuple[float, str | None]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    fences: list[tuple[str, float, float]] = field(default_factory=list)
    evicted: bool = False
    ids_evicted: set[str] = field(default_factory=set)
    strays: bool = False
    tools: list[ToolRun] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def loses(self) -> bool:
        """Whether servers may have lost anything."""
        return bool(self.losses) or self.evicted


class World:
    """Everything that there is in a run.

    Attributes:
        plan: What is to happen.
        loop: Time.
        seed: Chance.
        network: Hosts and what is between them.
        servers: The servers.
        workers: The processes.
        timeline: What happened.
    """

    def __init__(self, plan: Plan, run: Run) -> None:
        self.plan = plan
        self.loop = SimulatedLoop(  # type: ignore[abstract]  # what asyncio needs of it is there
            most_seconds=_MOST_SECONDS, most_steps=_MOST_STEPS
        )
        self.seed = Seed(plan.seed)
        self.timeline = run.timeline = Timeline(self.loop.time())
        self.network = Network(self.loop, self.seed.stream)
        self.servers: Servers = make_servers(self)
        self.memory = Memory(self.loop, self.timeline)
        self.workers = [self._worker(number) for number in range(len(plan.fields))]
        self._run = run
        self._at_request: dict[tuple[int | None, int], list[Fault]] = {}
        self._requests: Counter[int] = Counter()
        self._lasts_until = 0.0
        self.versions, self.fences = Versions(), Fences(self)
        self._to_come: list[Handle] = []
        self._undo: list[Callable[[], None]] = []
        self.network.on_accept = self._watch

    def _worker(self, number: int) -> Worker:
        config = HAConfig(**self.servers.addresses(), **self.plan.fields[number])
        steps = [step for step in self.plan.steps if step.process == number]
        place = partial(self.network.place, host=f"h{number}")
        worker = Worker(number, config, steps, self.loop, self.memory, place)
        evicts = any(fault.kind == "evict" for fault in self.plan.faults)
        worker.sees_through = lambda: not evicts and not self.loses
        return worker

    # -- what faults use

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts."""
        return [f"h{worker.number}" for worker in self.workers] + self.servers.hosts

    def note(self, who: str, what: str, detail: Any = None) -> None:
        """Note what happens."""
        self.timeline.note(self.loop.time(), who, what, detail)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self.loop.deliver_at(self.loop.time() + seconds, None, action)

    def heal_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Undo a fault after so many seconds, or at the end of the run if that comes first."""
        open_faults = self._undo
        open_faults.append(action)

        def heal() -> None:
            if action in open_faults:
                open_faults.remove(action)
                action()

        self.later(seconds, heal)

    def note_loss(self, at: float | None = None) -> None:
        """Note that a server has lost data, or that another one takes over, which may lack some; None means now."""
        self._run.losses.append(self.loop.time() if at is None else at)

    def note_strays(self) -> None:
        """Note that keys that have moved may stay where no client looks for them."""
        self._run.strays = True
        self.note_loss()

    def note_takeover(self, host: str | None) -> None:
        """Note that a server is the primary now, and that the one before it is not; none: it is open which one is."""
        self._run.takeovers.append((self.loop.time(), host))

    def note_evictions(self, host: str, left: list[bytes], evicted: list[bytes]) -> None:
        """Note which keys a server has evicted: a session of which it evicted all counts as deleted."""
        self._run.evicted |= bool(evicted)
        for name in self.plan.sessions:
            tag = b"{%b}" % name.encode()
            if any(key.endswith(tag + b":ops") for key in evicted):
                self._run.ids_evicted.add(name)
            kept = (key for key in left if not key.endswith(b":turns"))  # which tells nothing of the history
            if any(tag in key for key in evicted) and not any(tag in key for key in kept):
                self.note_removal(host, name)

    def note_removal(self, host: str, name: str) -> None:
        """Note that a server has deleted a session, whenever what it held then was written."""
        details: dict[str, Any] = {"begin": 1000.0, "end": self.loop.time(), "status": Status.UNCONFIRMED}
        number = len(self.servers.removals)
        removal = Call(worker=host, number=number, session=name, handle=host, op=Op.CLEAR, **details)
        self.servers.removals.append(removal)

    @property
    def loses(self) -> bool:
        """Whether servers may have lost anything."""
        return bool(self._run.losses)

    def lasts_until(self, when: float) -> None:
        """Let the run go on until then: something is still on its way."""
        self._lasts_until = max(self._lasts_until, when)

    def strike(self, fault: Fault, flow: Flow | None = None, data: bytes = b"") -> bool:
        """Let a fault happen; return whether the request that it struck at goes on its way."""
        self._run.struck[fault.kind] += 1
        self.note("fault", str(fault))
        goes_on = faults.KINDS[fault.kind](self, fault, flow, data)
        return goes_on is not False

    def _watch(self, flow: Flow) -> None:
        if flow.server in self.servers.data_hosts:
            flow.there.tap = partial(self._request_arrives, flow)
            flow.back.tap = partial(self._reply_arrives, flow)

    def _request_arrives(self, flow: Flow, data: bytes) -> bool:
        self.timeline.note(self.loop.time(), flow.server, f"is asked by {flow.client}", data)
        self.versions.asked(flow, data)
        if self.loses or self._run.evicted:
            self.fences.look()
        step = self._step_of(flow, data) if b"EVAL" in data else None
        if step is None:
            return True
        self._requests[step] += 1
        struck = self._at_request.pop((step, self._requests[step]), None)
        return struck is None or all(self.strike(fault, flow, data) for fault in struck)

    def _step_of(self, flow: Flow, data: bytes) -> int | None:
        """Return the step that a request belongs to."""
        steps = self.workers[int(flow.client[1:])].under_way
        return next((step.number for (name, _), step in steps.items() if b"{%b}" % name.encode() in data), None)

    def _reply_arrives(self, flow: Flow, data: bytes) -> bool:
        self.timeline.note(self.loop.time(), flow.client, f"hears from {flow.server}", data)
        self.versions.answered(flow, data)
        return True

    # -- the run

    async def main(self) -> None:
        """Run the plan to its end."""
        await self.servers.start()
        start = self.loop.time()
        for fault in self.plan.faults:
            if fault.step is not None:
                self._at_request.setdefault((fault.step, fault.request), []).append(fault)
            else:
                self._to_come.append(self.loop.deliver_at(start + (fault.at or 0.0), None, self.strike, fault))
        for worker in self.workers:
            worker.start()
        await self._until(lambda: not any(worker.left for worker in self.workers), math.inf)
        await self._heal()
        for worker in self.workers:
            if worker.process is None:
                worker.start()
        # What a process knows of sessions that it does not use has to be put back, too; in a cluster it need not meet
        # the server that has lost it, and what a server evicts is put back by the operation that misses it.
        sweeps = self.loses and not self._run.evicted and self.plan.topology != "cluster"
        if sweeps:
            await self._all(Worker.read_one)
            await asyncio.sleep(_SWEEP_SECONDS)
            self._run.stored = self.servers.stored(self.plan.sessions)
        await self._all(Worker.read_all)
        if not sweeps:
            self._run.stored = self.servers.stored(self.plan.sessions)

    async def _all(self, action: Callable[[Worker], None]) -> None:
        for worker in self.workers:
            action(worker)
        await self._until(lambda: all(worker.ended for worker in self.workers), math.inf)

    async def _heal(self) -> None:
        """End all faults, and wait until the servers are well."""
        self._at_request.clear()
        for handle in self._to_come:
            handle.cancel()
        while self._undo:
            self._undo.pop()()
        self.note("world", "all faults are over")
        await asyncio.sleep(max(self._lasts_until - self.loop.time(), 0.0) + _QUIET_SECONDS)
        if not await self._until(self.servers.is_well, _SETTLE_SECONDS):
            self._run.problems.append(f"the servers are not well {_SETTLE_SECONDS:.0f} s after the last fault")

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = self.loop.time() + seconds
        while not condition():
            if self.loop.time() > deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True


def run(plan: Plan) -> Run:
    """Return what comes of a plan; the same plan gives the same, to the byte."""
    result = Run(plan=plan)
    log = logging.getLogger("agents_redis_ha")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    before = counters()
    try:
        with quiet_end():
            _run(plan, result)
    finally:
        log.setLevel(level)
    after = counters()
    result.totals = {name: after[name] - before[name] for name in after}
    return result


def _run(plan: Plan, result: Run) -> None:
    world = World(plan, result)
    with determined(world.loop, world.seed):
        try:
            world.loop.run_until_complete(world.main())
        except RunawayError as error:
            result.problems.append(f"the run did not end: {error}")
    result.calls = world.memory.calls
    result.guarded = world.memory.guarded
    result.expectations = world.memory.expectations
    result.tools, result.attempts = world.memory.tools, world.memory.attempts
    result.named, result.made = world.memory.named, world.versions.made
    result.answered, result.fences = world.versions.by, world.fences.seen
    result.removals = world.servers.removals
    result.promotions = world.servers.promotions
    result.seconds, result.steps = world.loop.time() - 1000.0, world.loop.steps
    for worker in world.workers:
        result.problems += worker.problems
    result.problems += [_described(problem) for problem in world.loop.problems]
    world.loop.problems.clear()
    world.loop.close()


def _described(problem: Mapping[str, Any]) -> str:
    error = problem.get("exception")
    return f"{problem.get('message')}: {type(error).__name__}: {error}" if error else str(problem.get("message"))
