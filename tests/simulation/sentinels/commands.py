"""What a simulated Sentinel answers: to sessions, to other Sentinels, to a person who calls for a failover."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.resp import Failure, Push, RequestParser, Simple, encode
from tests.simulation.sentinels.instance import STATES, Instance

if TYPE_CHECKING:
    from tests.simulation.sentinels.sentinel import Sentinel


class Desk:
    """Accepts a Sentinel's clients, and tells those that subscribed what it announces."""

    def __init__(self, sentinel: Sentinel, on_event: Callable[[str, str], None]) -> None:
        self.sentinel = sentinel
        self.clients: dict[Client, None] = {}
        self._on_event = on_event
        sentinel.on_event = self._announce

    def connect(self, peer: str, send: Callable[[bytes], None], close: Callable[[], None]) -> Client:
        """Accept a client."""
        client = Client(self, send, close)
        self.clients[client] = None
        return client

    def accept(self, peer: str, link: Any) -> Any:
        """Refuse what no Sentinel takes: streams of servers."""
        raise NotImplementedError

    def end(self) -> None:
        """Close all connections."""
        for client in list(self.clients):
            client.end()

    def _announce(self, channel: str, message: str) -> None:
        self._on_event(channel, message)
        for client in list(self.clients):
            client.hear(channel.encode(), message.encode())


class Client:
    """A client's connection to a Sentinel."""

    def __init__(self, desk: Desk, send: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._desk = desk
        self._send, self._close = send, close
        self._parser = RequestParser()
        self._channels: dict[bytes, None] = {}
        self._protocol = 2

    def receive(self, data: bytes) -> None:
        """Take bytes that arrived."""
        self._desk.sentinel.hold_or(self._take, data)

    def closed(self) -> None:
        """Take notice that it was closed."""
        self._desk.clients.pop(self, None)

    def end(self) -> None:
        """Close it."""
        self._desk.clients.pop(self, None)
        self._close()

    def hear(self, channel: bytes, message: bytes) -> None:
        """Pass on what is announced, if it was subscribed to."""
        if channel in self._channels:
            self._send(encode(Push([b"message", channel, message]), self._protocol))

    def _take(self, data: bytes) -> None:
        replies = [self._reply(command) for command in self._parser.feed(data)]
        self._send(b"".join(replies))

    def _reply(self, command: list[bytes]) -> bytes:
        name, arguments = command[0].lower(), command[1:]
        if name in (b"subscribe", b"unsubscribe"):
            return b"".join(self._subscription(name, channel) for channel in arguments or list(self._channels))
        if name == b"hello":
            self._protocol = int(arguments[0]) if arguments else self._protocol
            return encode({b"server": b"redis", b"proto": self._protocol, b"mode": b"sentinel"}, self._protocol)
        if name == b"ping" and self._channels and self._protocol == 2:
            return encode([b"pong", arguments[0] if arguments else b""])
        return encode(answer(self._desk.sentinel, name, arguments), self._protocol)

    def _subscription(self, name: bytes, channel: bytes) -> bytes:
        if name == b"subscribe":
            self._channels[channel] = None
        else:
            self._channels.pop(channel, None)
        return encode(Push([name, channel, len(self._channels)]), self._protocol)


def answer(sentinel: Sentinel, name: bytes, arguments: list[bytes]) -> Any:
    """Return the reply to a command."""
    if name == b"ping":
        return arguments[0] if arguments else Simple(b"PONG")
    if name == b"client":
        return Simple(b"OK")
    if name == b"publish":
        sentinel.take_hello(arguments[1])
        return 1
    if name == b"role":
        return [b"sentinel", [sentinel.service.encode()]]
    if name == b"info":
        return b"# Sentinel\r\nsentinel_masters:1\r\n"
    if name == b"sentinel":
        return _answer_sentinel(sentinel, arguments[0].lower(), arguments[1:])
    return Failure(b"ERR unknown command '%b'" % name)


def _answer_sentinel(sentinel: Sentinel, name: bytes, arguments: list[bytes]) -> Any:
    if name == b"is-master-down-by-addr":
        return _is_down(sentinel, arguments)
    if name == b"myid":
        return sentinel.id.encode()
    is_known = bool(arguments) and arguments[0].decode() == sentinel.service
    if name == b"get-master-addr-by-name":
        host, port = sentinel.current_address()
        return [host.encode(), b"%d" % port] if is_known else None
    if not is_known:
        return Failure(b"ERR No such master with that name")
    if name == b"master":
        return described(sentinel, sentinel.primary)
    if name in (b"slaves", b"replicas"):
        return [described(sentinel, each) for each in sentinel.replicas.values()]
    if name == b"sentinels":
        return [described(sentinel, each) for each in sentinel.sentinels.values()]
    if name == b"failover":
        return _fail_over(sentinel)
    return Failure(b"ERR Unknown sentinel subcommand '%b'" % name)


def _is_down(sentinel: Sentinel, arguments: list[bytes]) -> Any:
    host, port, epoch, candidate = arguments
    is_meant = sentinel.primary.address == (host.decode(), int(port))
    is_down = is_meant and sentinel.primary.is_down and sentinel.tilt_since is None
    leader, leader_epoch = None, 0
    if is_meant and candidate != b"*":
        leader, leader_epoch = sentinel.vote(int(epoch), candidate.decode())
    return [int(is_down), (leader or "*").encode(), leader_epoch]


def _fail_over(sentinel: Sentinel) -> Any:
    if sentinel.is_failing_over:
        return Failure(b"INPROG Failover already in progress")
    if sentinel.best_replica() is None:
        return Failure(b"NOGOODSLAVE No suitable replica to promote")
    sentinel.start_failover(forced=True)
    return Simple(b"OK")


def described(sentinel: Sentinel, instance: Instance) -> dict[bytes, bytes]:
    """Return what a Sentinel tells of a server."""
    now, primary = sentinel.now(), sentinel.primary
    is_primary = instance is primary
    fields: dict[str, Any] = {
        "name": sentinel.service if is_primary else instance.run_id if instance.kind == "sentinel" else instance.name,
        "ip": instance.address[0],
        "port": instance.address[1],
        "runid": instance.run_id,
        "flags": _flags(sentinel, instance),
        "link-pending-commands": instance.commands.pending if instance.commands else 0,
        "link-refcount": 1,
    }
    if is_primary and sentinel.state:
        fields["failover-state"] = STATES[sentinel.state]
    fields["last-ping-sent"] = _ms(now - instance.open_ping) if instance.open_ping else 0
    fields["last-ok-ping-reply"] = _ms(now - instance.last_available)
    fields["last-ping-reply"] = _ms(now - instance.last_pong)
    fields["down-after-milliseconds"] = _ms(sentinel.down_after)
    if instance.kind != "sentinel":
        fields["info-refresh"] = _ms(now - instance.info_at) if instance.info_at else 0
        fields["role-reported"] = instance.role
        fields["role-reported-time"] = _ms(now - instance.role_since)
    if is_primary:
        fields["config-epoch"] = sentinel.config_epoch
        fields["num-slaves"] = len(sentinel.replicas)
        fields["num-other-sentinels"] = len(sentinel.sentinels)
        fields["quorum"] = sentinel.quorum
        fields["failover-timeout"] = _ms(sentinel.failover_timeout)
        fields["parallel-syncs"] = 2
    elif instance.kind == "slave":
        host, port = instance.primary_address or ("?", 0)
        fields["master-link-down-time"] = _ms(instance.link_down_seconds)
        fields["master-link-status"] = "ok" if instance.link_is_up else "err"
        fields.update({"master-host": host, "master-port": port})
        fields.update({"slave-priority": instance.priority, "slave-repl-offset": instance.offset})
    else:
        fields["voted-leader"] = instance.leader or "?"
        fields["voted-leader-epoch"] = instance.leader_epoch
    return {name.encode(): str(value).encode() for name, value in fields.items()}


def _flags(sentinel: Sentinel, instance: Instance) -> str:
    is_primary = instance is sentinel.primary
    flags = [
        ("s_down", instance.is_down),
        ("o_down", is_primary and sentinel.is_odown),
        (instance.kind, True),
        ("disconnected", not instance.is_connected),
        ("master_down", instance.says_down),
        ("failover_in_progress", is_primary and sentinel.is_failing_over),
        ("promoted", instance.is_promoted),
        ("force_failover", is_primary and sentinel.is_forced),
    ]
    return ",".join(name for name, holds in flags if holds)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
