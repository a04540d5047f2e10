"""What a fault is given: the servers, the workers, and which node and session it is about."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from agents_redis_ha import session_keys
from agents_redis_ha.lab import Lab, LabError, Node, Proxy
from agents_redis_ha.lab.workers import WorkerProcesses
from tests.failover.campaign.history import Call
from tests.failover.campaign.worker import WorkerSetup

CLIENT_NAME = "campaign"


@dataclass
class Strike:
    """One fault's surroundings.

    Attributes:
        servers: The lab.
        workers: The workers.
        random: Seeded.
        prefix: The sessions' key prefix.
        session: The name of a session that all workers call: its primary is the one to strike.
        secret: The file that the workers read their password from.
        name: The only address that the workers know, and what it leads to; None where they know the servers.
        notes: What the fault has to say, for the report.
        kept_from: Nothing may be lost, said or not, that began later and that a replica has confirmed.
        removals: What the servers removed by themselves, as calls that did.
    """

    servers: Lab
    workers: WorkerProcesses[WorkerSetup]
    random: random.Random
    prefix: str
    session: str
    secret: Path
    name: Proxy | None = None
    notes: list[str] = field(default_factory=list)
    kept_from: float = math.inf
    removals: list[Call] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """A key of that session."""
        return session_keys(self.prefix, self.session).items

    @property
    def victim(self) -> Node:
        """The primary that holds the session now."""
        return self.servers.primary(self.key)

    @property
    def proxies(self) -> list[Proxy]:
        """What the workers reach the servers through: the name, or the lab's proxies."""
        return [self.name] if self.name else [node.proxy for node in self.servers.nodes if node.proxy]

    def replica(self) -> Node:
        """Return a replica of the victim.

        Raises:
            LabError: It has none that is up.
        """
        replicas = self.servers.replicas_of(self.victim)
        if not replicas:
            raise LabError(f"{self.victim} has no replica")
        return replicas[0]

    def lead_name(self, node: Node) -> None:
        """Lead new connections to the name to another server; those that are open stay. Nothing if there is no name."""
        if self.name is not None:
            self.name.forward_to(*dialled(node))

    def pause(self, seconds: float) -> None:
        """Let the workers go on for a while under the fault."""
        time.sleep(seconds)

    def connections(self, node: Node) -> list[str]:
        """Return the ids of the workers' connections to a node."""
        lines = str(node.ask("CLIENT", "LIST")).splitlines()
        clients = [dict(part.partition("=")[::2] for part in line.split()) for line in lines]
        return [fields["id"] for fields in clients if fields.get("name") == CLIENT_NAME]

    def drop_connections(self, node: Node, most: int | None = None) -> int:
        """Close all connections of the workers to a node, or so many at random; return how many it were."""
        found = self.connections(node)
        self.random.shuffle(found)
        return sum(int(node.ask("CLIENT", "KILL", "ID", each)) for each in found[:most])

    @contextmanager
    def replies_cut(self, matches: Callable[[bytes], bool]) -> Iterator[None]:
        """Lose the replies to some requests, which are executed."""
        before = sum(proxy.replies_cut for proxy in self.proxies)
        for proxy in self.proxies:
            proxy.cut_replies(matches)
        try:
            yield
        finally:
            for proxy in self.proxies:
                proxy.heal()
        self.notes.append(f"{sum(proxy.replies_cut for proxy in self.proxies) - before} replies cut")

    def one_of_eight(self, _: bytes) -> bool:
        """Return whether to lose this one."""
        return self.random.random() < 1 / 8

    @contextmanager
    def throughout(self, action: Callable[[], object], every_seconds: float) -> Iterator[None]:
        """Repeat an action in the background; what it fails with is ignored, since its server may be down."""
        stop = threading.Event()

        def repeat() -> None:
            while not stop.wait(every_seconds):
                try:
                    action()
                except (RedisError, OSError, LabError):
                    continue

        thread = threading.Thread(target=repeat, name="strike", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def dialled(node: Node) -> tuple[str, int]:
    """Return host and port where clients reach a node."""
    host, _, port = node.dial_address.rpartition(":")
    return host, int(port)
