"""Profiles: what a part of the seeds makes of its plan, so that it strikes where a plan of chance seldom does. Pure.

A profile is a row of `PROFILES`: how many processes it takes, and what it makes of a plan that was drawn as all are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.simulation.aims import AIMS
from tests.simulation.plan import Fault, Plan, Step, chance
from tests.simulation.randomness import Seed
from tests.simulation.shaping import (
    CHANGES,
    SHARED,
    UNDER_LOAD,
    Profile,
    begins,
    end_of,
    is_emptied,
    is_slow,
    some_faults,
    together,
    with_fields,
)

_EACH = 6


def draw_profile(seed: int, topology: str) -> str | None:
    """Return the profile of a seed; most have none."""
    stream = Seed(seed).stream("profile")
    drawn = {name: each.topologies or (topology,) for name, each in PROFILES.items() if each.is_drawn}
    fitting = [name for name, topologies in drawn.items() if topology in topologies]
    return stream.choice(fitting) if stream.randrange(_EACH) == 0 else None


# -- the profiles


def _outage(stream: random.Random, plan: Plan) -> Plan:
    """A change is made, its reply is lost, and the server is away for longer than any deadline."""
    deadline = stream.choice((2.0, 4.0))
    changes = [step.number for step in plan.steps if step.op in CHANGES]
    arguments = {
        "when": stream.choice(("after", "behind", "behind")),
        "seconds": deadline + stream.uniform(1, 5),
        "keep": "all",
    }
    fault = Fault(kind="crash-at-request", step=stream.choice(changes or [1]), arguments=arguments)
    faults = (fault, *some_faults(stream, plan, UNDER_LOAD, 1))
    return replace(with_fields(plan, retry={"deadline_seconds": deadline}), faults=faults)


def _races(stream: random.Random, plan: Plan) -> Plan:
    """A server loses data, and all processes that notice are slow, each in its own way."""
    plan = together(stream, plan, 0.9)
    at = stream.uniform(0.2, 0.7) * end_of(plan)
    slow = [is_slow(stream, process, at - stream.uniform(0, 0.3)) for process in range(len(plan.fields))]
    soon = [number for number, begin in begins(plan.steps).items() if at < begin + 0.3 and begin < at + 1.0]
    stalls = [
        Fault(
            kind=stream.choice(("stall-request", "stall-reply")),
            step=stream.choice(soon),
            request=stream.choice((1, 2, 3, 3, 4)),
            arguments={"seconds": stream.uniform(0.02, 0.8)},
        )
        for _ in range(stream.randint(1, 5) if soon else 0)
    ]
    return replace(plan, faults=(is_emptied(stream, at), *slow[: stream.randint(0, 3)], *stalls))


def _heirs(stream: random.Random, plan: Plan) -> Plan:
    """Processes write, and some of them are killed; then the servers lose data, and one that has read lives on."""
    reader = len(plan.fields) - 1
    session = SHARED
    limits = (None, 1, 2, 4, 8)
    killed = [process for process in range(reader) if chance(stream, 0.7)]
    others = [process for process in range(reader) if process not in killed]
    steps = []
    for step in plan.steps:
        each = replace(step, session=session, cancel_after=None)
        if each.process in killed and others and step.number < 0.8 * len(plan.steps):  # what these alone know is lost
            each = replace(each, process=stream.choice(others))
        if step.process == reader and (step.op in CHANGES) and chance(stream, 0.9):
            each = replace(each, op="read", limit=stream.choice(limits), size=1)
        steps.append(each)
    ends_at = max(begins(tuple(steps)).values())
    spent = max([at for number, at in begins(tuple(steps)).items() if steps[number - 1].process == reader], default=0.0)
    number = len(steps)
    loses_at = ends_at + stream.uniform(0.8, 1.2)
    for offset, limit in ((0.4, stream.choice(limits)), (loses_at + stream.uniform(0.5, 1.0) - ends_at, None)):
        number += 1
        pause = ends_at + offset - spent
        steps.append(Step(number=number, process=reader, session=session, op="read", pause=pause, limit=limit))
        spent = ends_at + offset
    kills = [
        Fault(kind="kill-process", at=loses_at - 0.2, arguments={"process": process, "seconds": stream.uniform(2, 5)})
        for process in killed
    ]
    return replace(plan, steps=tuple(steps), faults=(*kills, is_emptied(stream, loses_at)))


def _split(stream: random.Random, plan: Plan) -> Plan:
    """Requests to read arrive in two parts, between which others change the session; then a server loses data."""
    plan = together(stream, plan)
    reads = [step.number for step in plan.steps if step.op == "read"]
    splits = [
        Fault(
            kind="split-request",
            step=stream.choice(reads),
            arguments={"part": stream.uniform(0.5, 1.0), "seconds": stream.uniform(0.02, 0.3)},
        )
        for _ in range(stream.randint(4, 10) if reads else 0)
    ]
    return replace(plan, faults=(*splits, is_emptied(stream, stream.uniform(0.3, 0.9) * end_of(plan))))


def _crowd(stream: random.Random, plan: Plan) -> Plan:
    """Two callers of each process call one session at the same time, and replies are late."""
    steps = tuple(replace(step, caller=stream.choice((0, 1))) for step in together(stream, plan, 0.8).steps)
    plan = replace(plan, steps=steps)
    stalls = [
        Fault(
            kind=stream.choice(("stall-reply", "stall-reply", "stall-request")),
            step=stream.choice(steps).number,
            arguments={"seconds": stream.uniform(0.05, 0.45)},
        )
        for _ in range(stream.randint(2, 8))
    ]
    slow = [is_slow(stream, process, stream.uniform(0, end_of(plan))) for process in range(len(plan.fields))]
    loss = [is_emptied(stream, stream.uniform(0.2, 0.9) * end_of(plan))] if chance(stream, 0.6) else []
    return replace(plan, faults=(*stalls, *slow[: stream.randint(0, 2)], *loss))


def _absent(stream: random.Random, plan: Plan) -> Plan:
    """One process stands still, or is cut off, while the servers lose data, for longer than others wait for it."""
    plan = together(stream, plan)
    at, process = stream.uniform(0.3, 0.8) * end_of(plan), stream.randrange(len(plan.fields))
    began, seconds = max(at - stream.uniform(0.0, 0.2), 0.0), stream.uniform(2.6, 6.0)
    inside, ways = (f"h{process}",), ("there", "back")
    away = stream.choice(
        (
            Fault(kind="pause-process", at=began, arguments={"process": process, "seconds": seconds}),
            Fault(kind="partition", at=began, arguments={"ways": ways, "inside": inside, "seconds": seconds}),
        )
    )
    plan = replace(plan, faults=(away, is_emptied(stream, at), *some_faults(stream, plan, UNDER_LOAD, 1)))
    return with_fields(plan, retry={"deadline_seconds": stream.choice((8.0, 15.0))})


def _behind(stream: random.Random, plan: Plan) -> Plan:
    """Replicas are cut off, then one of them takes over; all of them have to confirm each change."""
    replicas = plan.settings["replicas"]
    at, count = stream.uniform(0.1, 0.7) * end_of(plan), plan.settings["servers"]
    first = {"name": "n", "sentinel": "r", "cluster": "c"}[plan.topology]
    cut = tuple(f"{first}{number}" for number in range(count))
    seconds = stream.uniform(0.5, 3.0)
    partition = Fault(
        kind="partition",
        at=at,
        arguments={"ways": ("there", "back"), "inside": ("primary",), "others": cut, "seconds": seconds},
    )
    then = {
        "name": Fault(kind="move-name", at=at + stream.uniform(0.2, 1.0), arguments={"seconds": stream.uniform(0, 1)}),
        "sentinel": Fault(
            kind="crash",
            at=at + stream.uniform(0.2, 1.0),
            arguments={"server": None, "silently": True, "seconds": stream.uniform(3.0, 9.0), "keep": "all"},
        ),
    }
    durability = {"replicas": replicas, "timeout_seconds": 0.4}
    return replace(with_fields(plan, durability=durability), faults=(partition, then[plan.topology]))


def _minority(stream: random.Random, plan: Plan) -> Plan:
    """A primary is cut off together with a replica and with processes; the other side elects another one."""
    insiders = [f"h{number}" for number in range(len(plan.fields)) if number == 0 or chance(stream, 0.5)]
    inside = ("primary", "r1", *insiders, *(stream.choice(((), ("s0",), ("s1",)))))
    at = stream.uniform(0.05, 0.4) * end_of(plan)
    arguments = {"ways": ("there", "back"), "inside": inside, "seconds": stream.uniform(4.0, 9.0)}
    if chance(stream, 0.3):  # the processes reach all Sentinels
        arguments = {**arguments, "inside": ("primary", "r1", "s0"), "others": ("r2", "s1", "s2")}
    faults = [Fault(kind="partition", at=at, arguments=arguments)]
    if chance(stream, 0.3):  # by hand, while the primary lives
        faults = [
            Fault(kind="fail-over", at=stream.uniform(0.1, 0.9) * end_of(plan), arguments={"sentinel": number})
            for number in (0, 1, 2)
        ]
    durability = {"replicas": 1, "timeout_seconds": 0.4}
    plan = replace(together(stream, plan, 0.7), faults=tuple(faults))
    settings = {**plan.settings, "down_after": stream.choice((0.5, 1.0))}
    steps = tuple(
        replace(each, op="append", pause=min(each.pause, 0.3), limit=None) if each.op != "read" else each
        for each in plan.steps
    )
    plan = replace(plan, settings=settings, steps=steps)
    return with_fields(plan, durability=durability, retry={"deadline_seconds": 4.0})


def _deposed(stream: random.Random, plan: Plan) -> Plan:
    """A name moves while old connections lead to the server of before, which follows the new one, and is late."""
    reader = len(plan.fields) - 1
    steps = tuple(
        replace(each, op="read", size=1, limit=None) if each.process == reader and chance(stream, 0.9) else each
        for each in together(stream, plan).steps
    )
    at = stream.uniform(0.1, 0.6) * end_of(plan)
    faults = [Fault(kind="move-name", at=at, arguments={"seconds": stream.uniform(0.0, 0.2)})]
    for begins_at in (at + 0.3, at + 1.0):
        arguments = {"ways": ("there", "back"), "inside": ("n0",), "others": ("n1",), "seconds": 1.5}
        faults.append(Fault(kind="partition", at=begins_at, arguments=arguments))
    return replace(plan, steps=steps, faults=tuple(faults))


def _moved(stream: random.Random, plan: Plan) -> Plan:
    """A name moves while replies of the server of before are under way, and others come over new connections."""
    steps = tuple(replace(each, caller=stream.choice((0, 1))) for each in together(stream, plan, 0.5).steps)
    at = stream.uniform(0.2, 0.7) * end_of(plan)
    near = [number for number, begin in begins(steps).items() if at - 0.3 < begin < at + 0.3] or [1]
    stalls = [
        Fault(kind="stall-reply", step=stream.choice(near), arguments={"seconds": stream.uniform(0.05, 0.6)})
        for _ in range(stream.randint(2, 6))
    ]
    apart = {"ways": ("there", "back"), "inside": ("n0",), "others": ("n1",), "seconds": 0.6}
    faults = (
        Fault(kind="partition", at=max(at - 0.3, 0.0), arguments=apart),
        Fault(kind="move-name", at=at, arguments={"seconds": stream.uniform(0.3, 3.0)}),
        *stalls,
    )
    plan = replace(plan, steps=steps, faults=faults)
    return replace(plan, fields=tuple({k: v for k, v in each.items() if k != "durability"} for each in plan.fields))


def _waiting(stream: random.Random, plan: Plan) -> Plan:
    """One process waits with a call while another one writes in the place of its change, and its sweep finds that."""
    calls: tuple[tuple[str, int, str, float], ...] = (
        ("append", 0, "s", 0.1),
        ("read", 1, "s", 0.2),
        ("append", 1, "s", 0.1),
        (stream.choice(("read", "append", "pop")), 1, "s", 0.1),
        ("append", 1, "t", 0.15),
        ("append", 0, "s", stream.uniform(0.5, 0.75)),
        ("read", 1, "s", stream.uniform(0.2, 0.4)),
        ("append", 1, "t", stream.uniform(0.45, 0.7)),
    )
    steps = tuple(
        Step(number=number, process=process, session=session, op=op, pause=pause)
        for number, (op, process, session, pause) in enumerate(calls, 1)
    )
    arguments = {"server": None, "seconds": stream.uniform(0.1, 0.5), "keep": "nothing"}
    return replace(plan, steps=steps, fields=({}, {}), faults=(Fault(kind="crash", at=0.55, arguments=arguments),))


def _late(stream: random.Random, plan: Plan) -> Plan:
    """Requests arrive long after their repeats, in sessions that are almost empty, and servers evict."""
    steps = tuple(
        replace(step, op=stream.choice(("pop", "pop", "append")), size=1, limit=None) if chance(stream, 0.5) else step
        for step in plan.steps
    )
    changes = [step.number for step in steps if step.op in CHANGES]
    stalls = [
        Fault(kind="stall-request", step=stream.choice(changes), arguments={"seconds": stream.uniform(0.6, 6.0)})
        for _ in range(stream.randint(1, 5))
    ]
    # Meta or ops stays: a first attempt that finds neither the session nor a trace of it is applied.
    parts = stream.choice((("ops",), ("meta",), ("items",), ("items", "ops"), ("items", "meta")))
    arguments = {"server": None, "policy": "all", "first": 0, "each": 1, "parts": parts}
    evicts = [
        Fault(kind="evict", at=stream.uniform(0, end_of(plan)), arguments=arguments)
        for _ in range(stream.choice((0, 1, 2)))
    ]
    plan = with_fields(plan, pool={"connect_timeout_seconds": 0.5, "response_timeout_seconds": 0.5})
    return replace(plan, steps=steps, faults=(*stalls, *evicts))


def _impatient(stream: random.Random, plan: Plan) -> Plan:
    """Callers are cancelled while replies are slow, and what they had asked is answered to nobody else."""
    steps = tuple(
        replace(step, cancel_after=stream.uniform(0.0, 0.4)) if chance(stream, 0.3) else step for step in plan.steps
    )
    slow = [
        Fault(
            kind="slow-link",
            at=stream.uniform(0, 0.3),
            arguments={"process": process, "server": None, "latency": stream.choice((0.1, 0.3)), "seconds": 30.0},
        )
        for process in range(len(plan.fields))
    ]
    stalls = [
        Fault(kind="stall-reply", step=stream.choice(steps).number, arguments={"seconds": stream.uniform(0.2, 1.5)})
        for _ in range(stream.randint(0, 4))
    ]
    timeout = stream.choice((0.5, 1.0))
    plan = with_fields(plan, pool={"connect_timeout_seconds": 2.0, "response_timeout_seconds": timeout})
    return replace(plan, steps=steps, faults=(*slow, *stalls))


def _deleted(stream: random.Random, plan: Plan) -> Plan:
    """A client deletes sessions by hand, and their versions begin anew."""
    steps = tuple(
        replace(step, op="expect", size=1, caller=stream.choice((0, 1)), limit=None)
        if step.op in ("append", "clear", "replace") and chance(stream, 0.6)
        else replace(step, caller=stream.choice((0, 1)))
        for step in together(stream, plan).steps
    )
    plan = replace(plan, steps=steps)
    faults = [
        Fault(kind="delete", at=stream.uniform(0, end_of(plan)), arguments={"session": SHARED})
        for _ in range(stream.randint(3, 12))
    ]
    return replace(plan, faults=tuple(faults))


def _forgetful(stream: random.Random, plan: Plan) -> Plan:
    """Processes remember for different times, and one of them is away for longer than another one remembers."""
    plan = together(stream, plan)
    process = stream.randrange(len(plan.fields))
    fields = tuple(
        {
            **each,
            "op_retention_seconds": 60 if number == process else 4,
            "retry": {"deadline_seconds": 15.0 if number == process else 2.0},
        }
        for number, each in enumerate(plan.fields)
    )
    changes = [step.number for step in plan.steps if step.process == process and step.op in CHANGES]
    step = stream.choice(changes[1 : 1 + len(changes) // 2] or [1])
    # The others go on for so long, and begin when the session has been told how long to remember.
    others = (number for number in range(len(fields)) if number != process)
    waits = dict.fromkeys(others, 0.5)
    steps = [Step(number=len(plan.steps) + 1, process=process, session=SHARED, op="append", pause=0.01)]
    for each in plan.steps:
        is_other = each.process != process or each.number == step
        more = waits.pop(each.process, stream.uniform(0, 1.0)) if is_other else 0.0
        steps.append(replace(each, pause=each.pause + more))
    lost = Fault(kind="cut-after", step=step)
    arguments = {"ways": ("back",), "inside": (f"h{process}",), "seconds": stream.uniform(6.0, 12.0)}
    away = Fault(kind="partition", at=begins(tuple(steps))[step] + 0.001, arguments=arguments)
    return replace(plan, fields=fields, steps=tuple(steps), faults=(lost, away))


def _evicted(stream: random.Random, plan: Plan) -> Plan:
    """A primary evicts keys of a session again and again, one or all, and replies are lost."""
    plan = together(stream, plan, 0.8)
    parts = (("items",), ("meta",), ("ops",), ("items", "ops"), ("items", "meta"), ("meta", "ops"), ())
    evicts = [
        Fault(
            kind="evict",
            at=stream.uniform(0, end_of(plan)),
            arguments={"server": None, "policy": "all", "first": 0, "each": 1, "parts": stream.choice(parts)},
        )
        for _ in range(stream.randint(3, 12))
    ]
    cuts = [
        Fault(
            kind=stream.choice(("cut-after", "stall-request", "stall-reply")),
            step=stream.choice(plan.steps).number,
            arguments={"seconds": stream.uniform(0.02, 0.5)},
        )
        for _ in range(stream.randint(0, 4))
    ]
    return replace(plan, faults=(*evicts, *cuts))


_OPTIONS: tuple[Mapping[str, Any], ...] = (
    {"repair": {"max_changes": 0}},
    {"repair": {"on_loss": "warn"}},
    {"repair": {"on_divergence": "append"}},
    {"repair": {"max_changes": 3}},
    {"ttl": 60},
    {"op_retention_seconds": 31},
)


def _options(stream: random.Random, plan: Plan) -> Plan:
    """Processes that keep nothing, warn, or put behind what was displaced; disks, and replicas that are too few."""
    fields = [{**each, **stream.choice(({}, *_OPTIONS))} for each in plan.fields]
    if stream.randrange(3) == 0:
        fields = [{**each, **fields[0]} for each in fields]
    settings = plan.settings
    if chance(stream, 0.3):
        disk = {"appendonly": "yes", "appendfsync": "always"}
        settings = {**settings, "version": "7.2.4", "config": {**settings.get("config", {}), **disk}}
        replicas = stream.choice((0, settings.get("replicas", 0)))
        durability = {"replicas": replicas, "fsync": True, "timeout_seconds": 0.4}
        fields = [{**each, "durability": durability} for each in fields]
    if chance(stream, 0.3):
        fields = [
            {**each, "durability": {**each["durability"], "on_shortfall": "degrade"}} if "durability" in each else each
            for each in fields
        ]
    loss = [is_emptied(stream, stream.uniform(0.2, 0.9) * end_of(plan))] if chance(stream, 0.5) else []
    return replace(plan, fields=tuple(fields), settings=settings, faults=(*plan.faults, *loss))


PROFILES: Mapping[str, Profile] = {
    **AIMS,
    "outage": Profile(_outage, (1, 2)),
    "races": Profile(_races, (2, 3)),
    "heirs": Profile(_heirs, (2, 3)),
    "split": Profile(_split, (2, 3)),
    "crowd": Profile(_crowd, (1, 2)),
    "absent": Profile(_absent, (2, 3)),
    "behind": Profile(_behind, (2, 3), ("name", "sentinel")),
    "minority": Profile(_minority, (2, 3), ("sentinel",)),
    "deposed": Profile(_deposed, (2, 3), ("name",)),
    "moved": Profile(_moved, (1, 1, 2), ("name",)),
    "waiting": Profile(_waiting, (2,), ("standalone",)),
    "late": Profile(_late, (1, 2)),
    "impatient": Profile(_impatient, (1, 2)),
    "deleted": Profile(_deleted, (1, 2), ("standalone",)),
    "forgetful": Profile(_forgetful, (2, 3), ("standalone", "name")),
    "evicted": Profile(_evicted, (2, 3)),
    "options": Profile(_options, (1, 2, 3)),
}
