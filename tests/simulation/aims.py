"""Profiles that aim at one promise each: what is called, when and by which process, is theirs. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.simulation.plan import Fault, Plan, Step, chance
from tests.simulation.shaping import SHARED, Profile

_HASTY: Mapping[str, Any] = {"pool": {"connect_timeout_seconds": 0.5, "response_timeout_seconds": 0.5}}


class _Script:
    """Calls of one session, each at its time."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, str, dict[str, Any]]] = []
        self.faults: list[Fault] = []

    def call(self, at: float, process: int, op: str, **more: Any) -> int:
        """Let a process call at this time; return which call of the script that is."""
        self._calls.append((at, process, op, more))
        return len(self._calls)

    def strike(self, at: float, kind: str, **arguments: Any) -> None:
        """Let a fault strike at this time."""
        self.faults.append(Fault(kind=kind, at=at, arguments=arguments))

    def strike_at(self, step: int, kind: str, *, request: int = 1, **arguments: Any) -> None:
        """Let a fault strike at a request of a call."""
        self.faults.append(Fault(kind=kind, step=step, request=request, arguments=arguments))

    def plan(self, plan: Plan, **fields: Any) -> Plan:
        """Return a plan with these calls and faults, and with these fields of each process's configuration."""
        last: dict[tuple[int, int], float] = {}
        steps = []
        for number, (at, process, op, more) in enumerate(self._calls, 1):
            caller = (process, more.get("caller", 0))
            pause = max(at - last.get(caller, 0.0), 1e-4)
            last[caller] = max(at, last.get(caller, 0.0))
            steps.append(Step(number=number, process=process, session=SHARED, op=op, pause=pause, **more))
        return replace(
            plan,
            steps=tuple(steps),
            faults=tuple(self.faults),
            fields=tuple({**each, **fields} for each in plan.fields),
        )


def _bare(stream: random.Random, plan: Plan) -> Plan:
    """A server evicts all that tells of changes, and leaves the items, between an append and its repeat."""
    script, last = _Script(), len(plan.fields) - 1
    at = 0.05
    for _ in range(stream.choice((0, 0, 1, 2, 4))):
        script.call(at, stream.randint(0, last), stream.choice(("append", "append", "read")))
        at += stream.uniform(0.02, 0.1)
    repeated = script.call(at, 0, "append")
    script.strike_at(repeated, "stall-reply", seconds=stream.uniform(0.8, 2.0))
    script.strike(at + stream.uniform(0.05, 0.45), "evict", **_EVICTS_THE_LOG)
    for _ in range(stream.choice((0, 1, 3))):
        script.call(at + stream.uniform(0.05, 1.0), last, stream.choice(("append", "read")))
    script.call(at + 1.5, last, "read")
    return script.plan(plan, **_HASTY)


def _anew(stream: random.Random, plan: Plan) -> Plan:
    """The same twice, and the second time a process that knows nothing of the session begins the new log."""
    script = _Script()
    for at in (0.05, 0.15, 0.25)[: stream.randint(1, 3)]:
        script.call(at, 0, "append")
    script.strike(0.4, "evict", **_EVICTS_THE_LOG)
    script.call(0.6, 0, "append")
    repeated = script.call(0.8, 0, "append")
    script.strike_at(repeated, "stall-reply", seconds=4.0)
    script.strike(0.9, "evict", **_EVICTS_THE_LOG)
    at = 1.0
    for _ in range(stream.randint(1, 14)):
        script.call(at, 1, "append")
        at += stream.uniform(0.02, 0.15)
    script.call(at + 0.1, 0, "append", caller=1)
    return script.plan(plan, pool={"connect_timeout_seconds": 0.5, "response_timeout_seconds": 3.0})


def _pieces(stream: random.Random, plan: Plan) -> Plan:
    """Processes write in turn and read nothing; the servers lose all of it, which no process knows alone."""
    script, processes = _Script(), range(len(plan.fields))
    at = 0.05
    for number in range(stream.randint(4, 10)):
        process = number if number in processes else stream.choice(processes)
        script.call(at, process, "append", size=stream.choice((1, 1, 2)))
        at += stream.uniform(0.02, 0.1)
    at += stream.uniform(0.3, 0.6)
    script.strike(at, "crash", server=None, seconds=stream.uniform(0.02, 0.2), keep="nothing")
    first = at + stream.uniform(0.25, 0.4)
    for process in stream.sample(processes, len(processes)):
        script.call(first + stream.uniform(0.0, 0.7), process, "read")
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _newcomer(stream: random.Random, plan: Plan) -> Plan:
    """One process waits for what another one knows, and a third one, which knows nothing, comes meanwhile."""
    script = _Script()
    at = 0.05
    for process in (0, 1, 0, *(stream.randint(0, 1) for _ in range(stream.randint(0, 3)))):
        script.call(at, process, "append")
        at += stream.uniform(0.02, 0.1)
    at += stream.uniform(0.3, 0.6)
    script.strike(at, "crash", server=None, seconds=stream.uniform(0.02, 0.2), keep="nothing")
    first = at + stream.uniform(0.25, 0.4)
    script.call(first, 0, stream.choice(("read", "append", "pop")))
    for _ in range(stream.randint(1, 3)):
        script.call(first + stream.uniform(0.05, 1.5), 2, stream.choice(("read", "append", "pop", "clear")))
    script.call(first + stream.uniform(0.3, 3.5), 1, "read")
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _given_up(stream: random.Random, plan: Plan) -> Plan:
    """A server evicts the items; a process that knows nothing gives them up before those that know them come."""
    script = _Script()
    at = 0.05
    for _ in range(stream.randint(1, 4)):
        script.call(at, stream.randint(0, 1), stream.choice(("append", "append", "read")))
        at += stream.uniform(0.02, 0.1)
    script.call(at, 0, "append")
    script.call(at + 0.1, 1, "read", limit=stream.choice((None, None, 1)))
    at += stream.uniform(0.2, 0.4)
    script.strike(at, "evict", server=None, policy="all", first=0, each=1, parts=("items",))
    script.call(at + 0.1, 2, stream.choice(("read", "append")))
    at += stream.uniform(2.5, 3.5)
    for process in stream.sample((0, 1), 2):
        script.call(at, process, stream.choice(("read", "read", "append")))
        at += stream.uniform(0.1, 0.5)
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _tails(stream: random.Random, plan: Plan) -> Plan:
    """A process pops, reads the newest items of another one, which is killed, and puts all of it back."""
    script = _Script()
    at = 0.05
    for _ in range(stream.randint(2, 5)):
        script.call(at, 0, "append", size=stream.choice((1, 2)))
        at += stream.uniform(0.02, 0.1)
    for _ in range(stream.randint(1, 3)):
        script.call(at, 0, "pop")
        size = stream.choice((1, 1, 2))
        script.call(at + 0.1, 1, "append", size=size)
        script.call(at + 0.2, 0, "read", limit=size + stream.choice((0, 0, 1)))
        at += stream.uniform(0.3, 0.4)
    script.strike(at, "kill-process", process=1, seconds=stream.uniform(2.0, 4.0))
    script.strike(at + 0.2, "crash", server=None, seconds=stream.uniform(0.02, 0.2), keep="nothing")
    script.call(at + stream.uniform(0.5, 1.0), 0, "read")
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _founders(stream: random.Random, plan: Plan) -> Plan:
    """Several callers begin one session, each only if no other one has begun it."""
    script = _Script()
    for caller in range(stream.randint(2, 4)):
        process = stream.randrange(len(plan.fields))
        at = 0.1
        for _ in range(stream.randint(1, 3)):
            script.call(at, process, "expect", caller=caller, size=stream.choice((1, 2)))
            at += stream.uniform(0.05, 0.2)
    script.call(0.8, 0, "read")
    return script.plan(plan)


def _lapses(stream: random.Random, plan: Plan) -> Plan:
    """A reply comes too late or never, and another caller of the process meets the change before it is repeated."""
    script = _Script()
    for op, at in (("append", 0.05), ("append", 0.06), ("pop", 0.1)):  # from here on the server knows the scripts
        script.call(at, 0, op)
    at = 0.2
    for caller in range(0, 3 * stream.randint(1, 4), 3):
        lapsed = script.call(at, 0, stream.choice(("append", "append", "pop", "clear")), caller=caller)
        script.strike_at(lapsed, "stall-reply", seconds=stream.uniform(0.6, 1.5))
        if chance(stream, 0.5):  # a second attempt gets lost on its way
            script.strike_at(lapsed, "cut-before", request=stream.choice((2, 3, 4)))
        other = stream.randrange(len(plan.fields))
        script.call(at + stream.uniform(0.1, 0.4), other, stream.choice(("append", "pop", "read")), caller=caller + 1)
        script.call(at + stream.uniform(0.1, 0.4), 0, stream.choice(("append", "read")), caller=caller + 2)
        at += stream.uniform(0.9, 1.2)
    return script.plan(plan, **_HASTY)


def _belated(stream: random.Random, plan: Plan) -> Plan:
    """A server loses all while a reply of it is on its way, and others write in that change's place before it comes."""
    script = _Script()
    for at, process in ((0.05, 0), (0.1, 1), (0.15, 0)):
        script.call(at, process, "append")
    belated = script.call(0.2, 0, stream.choice(("append", "append", "pop")))
    script.strike_at(belated, "stall-reply", seconds=stream.uniform(0.2, 0.7))
    script.strike(0.21, "crash", server=None, silently=False, seconds=stream.uniform(0.02, 0.15), keep="nothing")
    for _ in range(stream.randint(1, 3)):
        script.call(stream.uniform(0.22, 0.45), 1, "append")
    script.call(stream.uniform(0.22, 0.4), 0, "append", caller=1)
    if stream.random() < 0.5:  # the same with a reply that tells what the server has then, which is lost, too
        looking = script.call(stream.uniform(0.22, 0.4), 0, "append", caller=2)
        script.strike_at(looking, "stall-reply", request=stream.randint(1, 4), seconds=stream.uniform(0.2, 0.7))
        seconds = stream.uniform(0.02, 0.15)
        script.strike(stream.uniform(0.35, 0.6), "crash", server=None, silently=False, seconds=seconds, keep="nothing")
        script.call(stream.uniform(0.6, 0.9), 1, "append")
        script.call(stream.uniform(0.6, 0.9), 0, "append", caller=1)
    script.call(1.5, 0, "read")
    return script.plan(plan, pool={"connect_timeout_seconds": 0.5, "response_timeout_seconds": 1.0})


def _demoted(stream: random.Random, plan: Plan) -> Plan:
    """A name moves; over its old connection, a process asks the server of before, which follows, and is behind."""
    script, both = _Script(), ("there", "back")
    for process in range(len(plan.fields)):
        script.call(0.05, process, "read")
    for number in range(stream.choice((0, 0, 1, 3))):
        script.call(0.1 + 0.05 * number, 0, "append")
    script.strike(0.4, "move-name", seconds=stream.uniform(0.0, 0.1))
    script.strike(1.2, "partition", ways=both, inside=("n0",), others=("n1",), seconds=3.0)
    for number in range(stream.randint(1, 4)):
        script.call(1.3 + 0.1 * number, 0, stream.choice(("append", "append", "pop", "clear")))
    for number in range(stream.randint(1, 3)):
        script.call(1.8 + 0.1 * number, 1, stream.choice(("pop", "pop", "expect", "read", "append")))
    plan = replace(plan, fields=tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields))
    return script.plan(plan)


def _handover(stream: random.Random, plan: Plan) -> Plan:
    """The Sentinels are told to fail over while the primary lives, and processes write all the time."""
    script = _Script()
    _writes_on(stream, script, plan, 4.0)
    script.strike(stream.uniform(0.2, 2.0), "fail-over", sentinel=stream.randrange(3))
    plan = replace(plan, fields=tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields))
    return script.plan(plan)


def _leader(stream: random.Random, plan: Plan) -> Plan:
    """A primary is cut off with a replica and a Sentinel; its processes reach all Sentinels but the one that leads."""
    script = _Script()
    at = stream.uniform(0.1, 0.5)
    _writes_on(stream, script, plan, at + 5.0)
    both = ("there", "back")
    seconds = stream.uniform(5.0, 9.0)
    script.strike(
        at, "partition", ways=both, inside=("primary", "r1", "s0"), others=("r2", "s1", "s2"), seconds=seconds
    )
    hosts = tuple(f"h{number}" for number in range(len(plan.fields)))
    script.strike(
        at + 0.1, "partition", ways=both, inside=hosts, others=(stream.choice(("s1", "s2")),), seconds=seconds
    )
    plan = replace(plan, settings={**plan.settings, "down_after": stream.choice((0.5, 1.0))})
    durability = {"replicas": 1, "timeout_seconds": 0.4}
    return script.plan(plan, durability=durability, retry={"deadline_seconds": 4.0})


def _abandoned(stream: random.Random, plan: Plan) -> Plan:
    """A Sentinel is told to fail over, chooses a replica that is behind, and ends before it tells that one."""
    script, both = _Script(), ("there", "back")
    script.strike(0.1, "partition", ways=both, inside=("r0",), others=("r1", "r2"), seconds=6.0)
    script.call(0.15, 1, "read")
    for number in range(stream.randint(1, 4)):
        script.call(0.3 + 0.1 * number, 0, "append")
    at, leader = stream.uniform(0.8, 1.2), stream.randrange(3)
    script.strike(at, "fail-over", sentinel=leader)
    script.strike(at + stream.uniform(0.12, 0.22), "crash-sentinel", sentinel=leader, seconds=stream.uniform(1.0, 5.0))
    for _ in range(stream.randint(1, 4)):
        script.call(at + stream.uniform(0.1, 1.0), 1, stream.choice(("pop", "pop", "read", "append")))
    plan = replace(plan, fields=tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields))
    return script.plan(plan)


def _writes_on(stream: random.Random, script: _Script, plan: Plan, seconds: float) -> None:
    """Let each process add a batch every now and then."""
    at = 0.0
    while at < seconds:
        at += stream.uniform(0.02, 0.15)
        script.call(at, stream.randrange(len(plan.fields)), "append")


def _proxied(stream: random.Random, plan: Plan) -> Plan:
    """A proxy tells one replication id for good; behind it, a replica that is behind takes over, and nobody says so."""
    script, at = _Script(), 0.05
    for _ in range(stream.randint(1, 4)):
        script.call(at, stream.randrange(len(plan.fields)), stream.choice(("append", "append", "read")))
        at += stream.uniform(0.02, 0.1)
    script.call(at, 0, "append")
    for process in range(len(plan.fields)):  # one that knows only what is gone takes it for deleted
        script.call(at + 0.1, process, stream.choice(("append", "read")))
    at += 0.4
    both = ("there", "back")
    script.strike(at, "partition", ways=both, inside=("n0",), others=("n1",), seconds=5.0)
    for _ in range(stream.randint(1, 4)):
        at += stream.uniform(0.02, 0.1)
        script.call(at, stream.randrange(len(plan.fields)), stream.choice(("append", "append", "pop", "read")))
    at += stream.uniform(0.2, 0.4)
    script.strike(at, "crash", server=0, silently=False, seconds=9.0, keep="all")
    script.strike(at + 0.001, "move-name", seconds=8.0)
    for process in range(len(plan.fields)):
        script.call(at + stream.uniform(0.1, 0.9), process, "read")
    fields = tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields)
    return script.plan(replace(plan, fields=fields, settings={**plan.settings, "told_id": 40 * "0"}))


_EVICTS_THE_LOG: Mapping[str, Any] = {"server": None, "policy": "all", "first": 0, "each": 1, "parts": ("meta", "ops")}


def _short(stream: random.Random, plan: Plan) -> Plan:
    """A replica is away for longer than a deadline, and takes over without the changes that it did not get."""
    script = _Script()
    for number in range(stream.choice((1, 3))):
        script.call(0.05 + 0.05 * number, 0, "append", size=2)
    script.strike(0.3, "partition", ways=("there", "back"), inside=("n0",), others=("n1",), seconds=6.0)
    for number in range(stream.choice((1, 2))):  # each of them waits for the whole deadline
        op = stream.choice(("append", "append", "pop"))
        script.call(0.4 + 0.05 * number, 0, op, **({"size": 2} if op == "append" else {}))
    script.call(0.5, 0, "read", limit=1)  # which is not enough to put the change back
    script.strike(stream.uniform(3.0, 4.0), "move-name", seconds=stream.uniform(0.0, 0.5))
    for number in range(2):
        script.call(3.0 + number, 0, stream.choice(("read", "append")))
    return script.plan(plan, durability={"replicas": 1, "timeout_seconds": 0.4}, retry={"deadline_seconds": 1.0})


def _outlived(stream: random.Random, plan: Plan) -> Plan:
    """A server is started again with all it had, then evicts the log; a process begins a new one before others come."""
    script, at = _Script(), 0.05
    for _ in range(stream.randint(1, 3)):  # the last process knows what follows these, and not that they came before
        script.call(at, 0, "append")
        at += stream.uniform(0.02, 0.1)
    for _ in range(stream.randint(1, 4)):
        script.call(at, 1, "append")
        at += stream.uniform(0.02, 0.1)
    at += 0.2
    script.strike(at, "crash", server=None, silently=False, seconds=stream.uniform(0.02, 0.2), keep="all")
    script.strike(at + 0.3, "evict", **_EVICTS_THE_LOG)
    for number in range(stream.randint(1, 2)):
        script.call(at + 0.4 + 0.1 * number, 2, stream.choice(("read", "append")))
    script.call(at + stream.uniform(0.6, 1.0), 1, stream.choice(("read", "append")))
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _elsewhere(stream: random.Random, plan: Plan) -> Plan:
    """A pop is all that one process knows of a history; another one knows what was written in that one's place."""
    script, at, count = _Script(), 0.05, stream.randint(2, 4)
    for _ in range(count):
        script.call(at, 2, "append")
        at += stream.uniform(0.02, 0.1)
    script.call(at, 1, "pop")
    script.strike(at + 0.2, "crash", server=None, silently=False, seconds=stream.uniform(0.02, 0.1), keep="nothing")
    at += 0.5
    for number in range(count):
        if number == count - 1:  # the first writer is told of its loss before the last change: that is not said with it
            script.call(at, 2, "read")
            at += 0.1
        script.call(at, 0, "append")
        at += stream.uniform(0.02, 0.1)
    script.strike(at + 0.2, "crash", server=None, silently=False, seconds=stream.uniform(0.02, 0.1), keep="nothing")
    script.call(at + 0.5, 1, stream.choice(("read", "append")))
    script.call(at + 0.5 + stream.uniform(0.1, 1.5), 0, stream.choice(("read", "append")))
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _gathered(stream: random.Random, plan: Plan) -> Plan:
    """Behind a proxy with one replication id, one process knows how a loss begins, and others know what it lacks."""
    script, at = _Script(), 0.05
    for _ in range(stream.randint(1, 3)):
        script.call(at, 0, "append")
        at += stream.uniform(0.02, 0.1)
    at += 0.3
    script.strike(at, "partition", ways=("there", "back"), inside=("n0",), others=("n1",), seconds=5.0)
    for process in (1, *stream.choice(((), (1,))), 0, 2, *stream.choice(((), (2,), (0, 2)))):
        at += stream.uniform(0.05, 0.1)
        script.call(at, process, "append")
    at += stream.uniform(0.2, 0.4)
    script.strike(at, "crash", server=0, silently=False, seconds=9.0, keep="all")
    script.strike(at + 0.001, "move-name", seconds=8.0)
    at += stream.uniform(0.3, 0.5)  # the one that knows the beginning comes first: others would see a deletion
    for process in (0, *stream.sample((1, 2), 2)):
        script.call(at, process, "read")
        at += stream.uniform(0.3, 0.6)
    fields = tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields)
    plan = replace(plan, fields=fields, settings={**plan.settings, "told_id": 40 * "0"})
    return script.plan(plan, retry={"deadline_seconds": 8.0})


def _twice(stream: random.Random, plan: Plan) -> Plan:
    """A server evicts a session, then items of the next one, for which a process waits; another knows the first one."""
    script, at = _Script(), 0.05
    for process in (0, 2, 0, 2, *(stream.randint(0, 2) for _ in range(stream.randint(0, 2))), 0, 2, 0):
        script.call(at, process, "append")
        at += stream.uniform(0.02, 0.1)
    script.call(at, 0, "read")  # of what it is shown, a part alone would come back
    script.strike(at + 0.2, "evict", **{**_EVICTS_THE_LOG, "parts": ()})
    script.call(at + 0.4, 1, "append")
    script.call(at + 0.5, 0, "append")
    script.call(at + 0.6, 0, "read")
    script.strike(at + 0.7, "evict", **{**_EVICTS_THE_LOG, "parts": stream.choice((("items",), ("items", "meta")))})
    script.call(at + 0.9, 1, stream.choice(("append", "read")))  # this one knows a part of it
    script.call(at + stream.uniform(1.0, 1.5), 2, stream.choice(("append", "read")))
    script.call(at + stream.uniform(1.6, 2.4), 0, stream.choice(("append", "read")))  # and this one all
    return script.plan(plan, retry={"deadline_seconds": 8.0})


AIMS: Mapping[str, Profile] = {
    "bare": Profile(_bare, (1, 2), ("standalone", "name")),
    "anew": Profile(_anew, (2,), ("standalone",)),
    "founders": Profile(_founders, (1, 2)),
    "lapses": Profile(_lapses, (1, 2)),
    "pieces": Profile(_pieces, (2, 3), ("standalone", "name")),
    "newcomer": Profile(_newcomer, (3,), ("standalone",)),
    "given-up": Profile(_given_up, (3,), ("standalone", "name")),
    "tails": Profile(_tails, (2,), ("standalone", "name")),
    "short": Profile(_short, (1,), ("name",)),
    "proxied": Profile(_proxied, (1, 2), ("name",)),
    "belated": Profile(_belated, (2,), ("standalone",)),
    "demoted": Profile(_demoted, (2,), ("name",)),
    "handover": Profile(_handover, (1, 2), ("sentinel",)),
    "abandoned": Profile(_abandoned, (2,), ("sentinel",)),
    "leader": Profile(_leader, (1, 2), ("sentinel",)),
    "outlived": Profile(_outlived, (3,), ("standalone",), is_drawn=False),
    "elsewhere": Profile(_elsewhere, (3,), ("standalone",), is_drawn=False),
    "twice": Profile(_twice, (3,), ("standalone",), is_drawn=False),
    "gathered": Profile(_gathered, (3,), ("name",), is_drawn=False),
}
