"""Links between a few servers without a world: each message takes the same time; a server can be cut off."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.simulation.redis.server import Server
from tests.simulation.resp import encode_request
from tests.simulation.timers import Timers

__all__ = ["Wires"]


class _End:
    """One end of a link."""

    def __init__(self, wires: Wires, owner: str) -> None:
        self._wires, self.owner = wires, owner
        self.other: _End | None = None
        self.receive: Callable[[object], None] = lambda message: None
        self.closed: Callable[[], None] = lambda: None
        self.is_open = True

    def send(self, message: object, size: int) -> None:
        other = self.other
        assert other is not None

        def deliver() -> None:
            if other.is_open and not self._wires.are_apart(self.owner, other.owner):
                other.receive(message)

        self._wires.timers.call_later(self._wires.delay, deliver)

    def close(self) -> None:
        other, self.is_open = self.other, False
        assert other is not None

        def tell() -> None:
            if other.is_open and not self._wires.are_apart(self.owner, other.owner):
                other.is_open = False
                other.closed()

        self._wires.timers.call_later(self._wires.delay, tell)


class Wires:
    """Servers that reach each other.

    Attributes:
        timers: Their time.
        delay: Seconds that a message takes.
        servers: By name.
        cut_off: Names of servers that no message reaches or leaves.
    """

    def __init__(
        self,
        names: list[str],
        config: Mapping[str, str] = {},
        version: str = "7.0.15",
        *,
        is_valkey: bool = False,
    ) -> None:
        self.timers = Timers()
        self.delay = 0.001
        self.cut_off: set[str] = set()
        rng = random.Random(1)
        self.servers = {
            name: Server(
                name,
                clock=self.timers.clock,
                call_later=self.timers.call_later,
                random=random.Random(rng.random()),
                dial=self._dial_of(name),
                version=version,
                is_valkey=is_valkey,
                config=config,
            )
            for name in names
        }

    def are_apart(self, one: str, other: str) -> bool:
        """Return whether nothing passes between two servers."""
        return bool({one, other} & self.cut_off)

    def _dial_of(self, name: str) -> Callable[[str, int, Callable[[object], None], Callable[[], None]], _End]:
        def dial(host: str, port: int, receive: Callable[[object], None], closed: Callable[[], None]) -> _End:
            near, far = _End(self, name), _End(self, f"{host}:{port}")
            near.other, far.other = far, near
            near.receive, near.closed = receive, closed
            target = self.servers.get(far.owner)
            if target is None or not target.is_up or self.are_apart(name, far.owner):
                self.timers.call_later(self.delay, closed)
            else:
                accepted = target.accept(name, far)
                far.receive, far.closed = accepted.receive, accepted.closed
            return near

        return dial

    def client(self, name: str) -> Client:
        """Connect to a server."""
        return Client(self, self.servers[name])


class Client:
    """A client's connection to one server.

    Attributes:
        received: The bytes that have arrived and were not read yet.
        is_closed: Whether the server has closed the connection.
    """

    def __init__(self, wires: Wires, server: Server) -> None:
        self._wires = wires
        self.received = b""
        self.is_closed = False
        self._connection = server.connect("127.0.0.1:1", self._receive, self._close)

    def _receive(self, data: bytes) -> None:
        self.received += data

    def _close(self) -> None:
        self.is_closed = True

    def send(self, *words: bytes | str | int) -> None:
        """Send one command."""
        self._connection.receive(encode_request(*words))

    def reply(self) -> bytes:
        """Return the bytes of a reply; time passes until they are there."""
        while not self.received:
            assert self._wires.timers.step(), "no reply, and nothing more happens"
        received, self.received = self.received, b""
        return received

    def ask(self, *words: bytes | str | int) -> bytes:
        """Send one command and return the reply's bytes."""
        self.send(*words)
        return self.reply()
