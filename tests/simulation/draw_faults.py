"""Which faults strike a run, drawn from its seed: several at a time, at every point of a request. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.plan import Fault


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a run has that faults can strike.

    Attributes:
        topology: Its name.
        processes: How many processes.
        steps: How many calls they make.
        seconds: How long these take without faults.
        servers: How many servers keep sessions.
        sentinels: How many Sentinels there are.
        sessions: The names of all sessions.
    """

    topology: str
    processes: int
    steps: int
    seconds: float
    servers: int = 1
    sentinels: int = 0
    sessions: tuple[str, ...] = ()


_AT_A_REQUEST: Mapping[str, tuple[str, ...]] = {
    "cut-before": (),
    "cut-after": (),
    "cut-reply": ("part",),
    "stall-request": ("seconds",),
    "stall-reply": ("seconds",),
    "crash-at-request": ("when", "seconds", "keep"),
    "kill-at-request": ("seconds",),
}
_AT_A_MOMENT: Mapping[str, tuple[str, ...]] = {
    "cut-all": ("server",),
    "forget-all": ("process",),
    "half-open": ("server",),
    "pause-server": ("server", "seconds"),
    "crash": ("server", "silently", "seconds", "keep"),
    "pause-process": ("process", "seconds"),
    "kill-process": ("process", "seconds"),
    "partition": ("ways", "inside", "seconds"),
    "slow-link": ("process", "server", "latency", "seconds"),
    "step-clock": ("server", "seconds"),
    "flush-scripts": ("server",),
    "kill-clients": ("server",),
    "fill-memory": ("server", "seconds"),
    "evict": ("server", "policy", "first", "each"),
}
_WITH_SENTINELS: Mapping[str, tuple[str, ...]] = {
    "fail-over": ("sentinel",),
    "crash-sentinel": ("sentinel", "seconds"),
    "pause-sentinel": ("sentinel", "seconds"),
    "step-sentinel-clock": ("sentinel", "seconds"),
}
_SPANS = (*3 * ((0.0, 0.3), (0.2, 2.0), (1.0, 6.0)), (4.0, 20.0))
"""How long a fault may last, in seconds; the longest are longer than any deadline."""

_IN_A_CLUSTER: Mapping[str, tuple[str, ...]] = {
    "cluster-fail-over": ("replica",),
    "move-slot": ("session", "pause"),
}
_BEHIND_A_NAME: Mapping[str, tuple[str, ...]] = {"move-name": ("seconds",)}
_OFTEN_IN_A_CLUSTER = (*2 * ("crash", "cluster-fail-over", "move-slot"), "pause-server", "partition")
# With Sentinels, what makes them fail over is what matters.
_OFTEN_WITH_SENTINELS = (
    "crash",
    "crash",
    "crash",
    "pause-server",
    "pause-server",
    "partition",
    "partition",
    "fail-over",
)


def draw_faults(stream: random.Random, scene: Scene, most: int = 4) -> tuple[Fault, ...]:
    """Return the faults of a run: one at least, several at a time.

    Args:
        stream: Decides.
        scene: What there is.
        most: How many faults at most.
    """
    kinds: list[str] = [*_AT_A_REQUEST, *_AT_A_MOMENT]
    if scene.sentinels:
        kinds += [*_WITH_SENTINELS, *_OFTEN_WITH_SENTINELS]
    if scene.topology == "name":
        kinds += 5 * ["move-name"]
    if scene.topology == "cluster":
        kinds += [*_IN_A_CLUSTER, *_OFTEN_IN_A_CLUSTER]
    return tuple(_draw_fault(stream, scene, stream.choice(kinds)) for _ in range(stream.randint(1, most)))


def _draw_fault(stream: random.Random, scene: Scene, kind: str) -> Fault:
    names = {**_AT_A_REQUEST, **_AT_A_MOMENT, **_WITH_SENTINELS, **_IN_A_CLUSTER, **_BEHIND_A_NAME}[kind]
    arguments = {name: _draw(stream, scene, name) for name in names}
    if kind in _AT_A_REQUEST:
        step, request = stream.randint(1, scene.steps), stream.choice((1, 1, 1, 2))
        return Fault(kind=kind, step=step, request=request, arguments=arguments)
    return Fault(kind=kind, at=stream.uniform(0, scene.seconds), arguments=arguments)


def _draw(stream: random.Random, scene: Scene, name: str) -> Any:  # noqa: C901 (a table, with what each entry draws)
    if name == "part":
        return stream.random()
    if name == "when":
        return stream.choice(("before", "after", "behind"))
    if name == "keep":
        return stream.choice(("all", "all", "nothing", "snapshot"))
    if name == "policy":
        return stream.choice(("all", "volatile"))
    if name in ("first", "each"):
        return stream.randint(1, 4)
    if name == "silently":
        return stream.random() < 0.5
    if name == "process":
        return stream.randrange(scene.processes)
    if name == "server":  # None: the primary of that moment
        return None if stream.random() < 0.6 else stream.randrange(scene.servers)
    if name == "replica":
        return stream.randrange(scene.servers)
    if name == "session":
        return stream.choice(scene.sessions)
    if name == "pause":
        return stream.choice((0.0, 0.01, 0.1))
    if name == "sentinel":
        return stream.randrange(scene.sentinels)
    if name == "ways":
        return stream.choice((("there",), ("back",), ("there", "back"), ("there", "back")))
    if name == "inside":
        return _draw_side(stream, scene)
    if name == "latency":
        return stream.choice((0.01, 0.1, 0.4))
    low, high = stream.choice(_SPANS)
    return stream.uniform(low, high)


def _draw_side(stream: random.Random, scene: Scene) -> tuple[str, ...]:
    """Return one side of a partition: hosts, the primary of that moment among them or not."""
    processes = _some(stream, [f"h{number}" for number in range(scene.processes)])
    if scene.topology == "standalone":
        return tuple(processes) or ("h0",)
    if scene.topology == "name":
        return stream.choice((tuple(processes) or ("h0",), ("primary",), ("n1",), ("primary", *processes)))
    if scene.topology == "cluster":
        members = [f"c{number}" for number in range(scene.servers)]
        cluster_sides = (
            ("primary",),
            ("primary", *processes),
            tuple(_some(stream, members)),
            (stream.choice(members),),
        )
        return tuple(dict.fromkeys(stream.choice(cluster_sides))) or ("primary",)
    sentinels = [f"s{number}" for number in range(scene.sentinels)]
    sides: Sequence[Sequence[str]] = (
        ("primary",),
        ("primary", *processes),
        ("primary", "r1", *processes),
        ("primary", stream.choice(sentinels), *processes),
        ("primary", "r1", stream.choice(sentinels), *processes),
        (f"r{stream.randrange(scene.servers)}",),
        (stream.choice(sentinels),),
        (*_some(stream, sentinels), *processes),
        tuple(processes) or ("h0",),
    )
    return tuple(dict.fromkeys(stream.choice(sides))) or ("primary",)


def _some(stream: random.Random, names: list[str]) -> list[str]:
    return [name for name in names if stream.random() < 0.5]
