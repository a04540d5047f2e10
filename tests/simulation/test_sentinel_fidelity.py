"""What simulated Sentinels announce around a failover is what real ones announce, each of them in its order.

When Sentinels notice, and who is elected, is left to chance. So whatever is announced in a real failover has to be
announced in one of many simulated ones, and what leads to the next step in the same order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache

import pytest

from agents_redis_ha import lab
from tests.simulation import world
from tests.simulation.plan import Fault, Plan, Step

pytestmark = pytest.mark.faults

SERVICE = "mymaster"
DOWN_AFTER_SECONDS = 3.0
DEAD_SECONDS = 10.0
LASTS_SECONDS = 30.0
PERIODS_MS = {"ping-period": 1000, "ask-period": 1000, "info-period": 10_000, "publish-period": 2000}
SIMULATED = 60
ANY_TIME = {"+sdown", "-sdown", "+odown", "-odown", "+new-epoch", "+try-failover", "+vote-for-leader"}
ANY_TIME |= {"+role-change", "-role-change", "+convert-to-slave"}

Events = list[tuple[str, str]]
"""A channel and its message, one after the other."""


def in_roles(events: Mapping[str, Events], first: str) -> list[list[str]]:
    """Return of each Sentinel what it announced, behind its part in the failover, with roles in the place of names.

    Args:
        events: What each announced.
        first: The address of the primary before.
    """
    everything = [each for told in events.values() for each in told]
    promoted = next(":".join(message.split()[3:5]) for on, message in everything if on == "+switch-master")
    leading = next(told for told in events.values() if any(on == "+elected-leader" for on, _ in told))

    def role(found: re.Match[str]) -> str:
        if not found["host"]:  # an id, an epoch, or how many agree
            return "*"
        address = f"{found['host']}:{found['port']}"
        return {first: "old", promoted: "new"}.get(address, "another")

    names = re.compile(
        r"(?P<id>\b[0-9a-f]{40}\b)(?: \d+$)?|^\d+$|(?P<host>127\.0\.0\.1|\b[rs]\d)[: ](?P<port>\d+)|\d/\d$"
    )
    return [
        ["leads" if told is leading else "follows", *(f"{on} {names.sub(role, message)}" for on, message in told)]
        for told in events.values()
    ]


def course(told: list[str]) -> tuple[str, ...]:
    """Return the part of it whose order is no chance; who is down, and who votes for whom, may come in between."""
    return tuple(each for each in told if each.split()[0] not in ANY_TIME)


def of_real_ones(strike: Callable[[lab.Lab], None]) -> list[list[str]]:
    """Return what the Sentinels of a real failover announced."""
    with ExitStack() as stack:
        servers = stack.enter_context(lab.start("sentinel", down_after_ms=int(1000 * DOWN_AFTER_SECONDS)))
        for sentinel in servers.sentinels:
            for period, milliseconds in PERIODS_MS.items():
                sentinel.ask("SENTINEL", "DEBUG", period, milliseconds)
        first = servers.primary().address
        ears = [stack.enter_context(sentinel.client().pubsub()) for sentinel in servers.sentinels]
        for ear in ears:
            ear.psubscribe("*")
        events: dict[str, Events] = {sentinel.name: [] for sentinel in servers.sentinels}
        strike(servers)
        until = time.monotonic() + LASTS_SECONDS
        while time.monotonic() < until:
            for told, ear in zip(events.values(), ears, strict=True):
                while heard := ear.get_message(timeout=0.01):
                    if heard["type"] == "pmessage":
                        told.append((heard["channel"].decode(), heard["data"].decode()))
        return in_roles(events, first)


def kill(servers: lab.Lab) -> None:
    """The primary dies, and comes back with its data."""
    primary = servers.primary()
    servers.kill(primary)
    time.sleep(DEAD_SECONDS)
    servers.restart(primary)


def by_hand(servers: lab.Lab) -> None:
    """SENTINEL FAILOVER of a living primary."""
    servers.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)


STRIKES: dict[str, tuple[Callable[[lab.Lab], None], Fault]] = {
    "kill": (kill, Fault(kind="crash", at=5.0, arguments={"server": None, "seconds": DEAD_SECONDS, "keep": "all"})),
    "by hand": (by_hand, Fault(kind="fail-over", at=5.0, arguments={"sentinel": 0})),
}


@cache
def of_simulated_ones(fault: str) -> list[list[str]]:
    """Return what Sentinels announced in many simulated failovers."""
    found = list[list[str]]()
    for seed in range(SIMULATED):
        run = world.run(
            Plan(
                seed=seed,
                topology="sentinel",
                fields=({},),
                steps=(Step(number=1, process=0, session="s", op="read", pause=5.0 + DEAD_SECONDS + LASTS_SECONDS),),
                faults=(STRIKES[fault][1],),
                settings={
                    "servers": 3,
                    "sentinels": 3,
                    "replicas": 2,
                    "quorum": 2,
                    "down_after": DOWN_AFTER_SECONDS,
                    "config": {"repl-diskless-sync-delay": "0"},
                },
            )
        )
        events: dict[str, Events] = {f"s{number}": [] for number in range(3)}
        for line in run.timeline.lines():
            _, who, what, *message = line.split()
            if who in events and what[0] in "+-":
                events[who].append((what, " ".join(message)))
        found += in_roles(events, "r0:6379")
    return found


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.proof)])
@pytest.mark.parametrize("fault", STRIKES)
def test_real_sentinels_announce_what_simulated_ones_may(fault: str, number: int) -> None:
    if lab.find_server().version < (7, 0, 0):
        pytest.skip("SENTINEL DEBUG needs Redis 7.0")
    real, simulated = of_real_ones(STRIKES[fault][0]), of_simulated_ones(fault)
    unknown = {each for told in real for each in told} - {each for told in simulated for each in told}
    assert not unknown
    assert {course(told) for told in real} <= {course(told) for told in simulated}
