"""What stands in for servers in the unit tests: a locator whose replies are scripted, and commands on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agents_redis_ha import session_keys
from agents_redis_ha._commands import (
    NO_POSITION,
    REPLICATION_INFO,
    Command,
    LogPosition,
    Positioned,
    ReplicationHistory,
    Reply,
    SessionSpec,
    Status,
    append,
    chain,
)
from agents_redis_ha._connections import AttemptError, Request

WHO_IS_THERE = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"
I_AM = b"# Replication\r\nrole:master\r\nmaster_replid:" + b"1f" * 20 + b"\r\n"

SPEC = SessionSpec(session_keys("p", "u"), "u")
NODE = "h:1"


_digests = [b""]


def an_id(number: int) -> bytes:
    """Return the id of a session's change: that of version 1 is `an_id` of 1, and so on. None publishes a turn."""
    return b"-%015d" % number


def a_digest(version: int) -> bytes:
    """Return the digest behind a version whose changes all have their `an_id`."""
    while len(_digests) <= version:
        _digests.append(chain(_digests[-1], an_id(len(_digests))))
    return _digests[version]


def a_position(version: int) -> LogPosition:
    """Return the log position of that history."""
    return LogPosition(version, a_digest(version))


def introduction(packed: bytes) -> tuple[list[bytes], bytes]:
    """Return the reply to the question in front of a new connection's first request, if it is there, and the rest."""
    return ([I_AM] if packed.startswith(WHO_IS_THERE) else []), packed.removeprefix(WHO_IS_THERE)


def request(command: Command[Any] | None = None, log: Positioned = NO_POSITION) -> Request:
    """Return a command on its way; an append if none is given."""
    return Request(command or append(SPEC, [b"{}"]), log, lambda node: None)


def reply(value: Any = None, *trailing: Any, node: str = NODE, replication_id: str | None = "1f") -> Reply:
    """Return what a node answered."""
    return Reply(value, list(trailing), ReplicationHistory(node, replication_id), NO_POSITION)


class FakeMonitor:
    """The topology never changes."""

    topology_epoch = 0

    async def wait_for_topology_change(self, seconds: float, since_epoch: int) -> None:
        await asyncio.sleep(seconds)


class FakeLocator:
    """Answers each attempt with the next of its replies; the last one is repeated.

    A reply is raised if it is an exception, called with the request if it can be, and else what the script returns.

    Attributes:
        requests: What each attempt sent.
        positions: The log position that went along with each.
    """

    topology: Any = "sentinel"

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.attempts = 0
        self.suspected: list[AttemptError] = []
        self.requests: list[Request] = []
        self.positions: list[LogPosition] = []
        self.failovers: list[str | None] = []
        self.closed = 0
        self.monitor: Any = FakeMonitor()
        self.replication_id: str | None = "1f"

    async def attempt(self, request: Request) -> Reply:
        self.attempts += 1
        self.requests.append(request)
        self.positions.append(request.known.position)
        found = await self.reply_to(request)
        if getattr(found, "sent", True):
            request.on_sent(getattr(found, "node", None) or NODE)
        if callable(found):
            found = await found(request)
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, Reply):
            return found
        history = ReplicationHistory(NODE, self.replication_id)
        trailing = [I_AM for each in request.command.trailing if each == REPLICATION_INFO]
        return Reply(found, trailing, history, request.known.position)

    async def reply_to(self, request: Request) -> Any:
        """Return the next of the replies."""
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def suspect(self, error: AttemptError) -> None:
        self.suspected.append(error)

    def nodes(self) -> list[Any]:
        return []

    async def primaries(self) -> list[Any]:
        return []

    async def problems(self) -> list[str]:
        return []

    async def aclose(self) -> None:
        self.closed += 1


class FakeServer(FakeLocator):
    """Answers each command with the next of the replies under its name; the last one is repeated."""

    def __init__(self, **replies: list[Any]) -> None:
        super().__init__()
        self.scripts = replies

    @property
    def asked(self) -> list[str]:
        """The commands' names, in the order of their attempts."""
        return [request.command.name for request in self.requests]

    def sent(self, name: str) -> list[Command[Any]]:
        """Return the commands of this name, one for each attempt."""
        return [request.command for request in self.requests if request.command.name == name]

    async def reply_to(self, request: Request) -> Any:
        replies = self.scripts[request.command.name]
        await asyncio.sleep(0)  # other tasks get their turn, as they do while a real server answers
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def becomes_another(self) -> None:
        """Let the server be started again: what is missing on it is a loss then, and no deletion."""
        self.replication_id = "2e"


def applied(version: int, result: bytes | None = None, *, digest: bytes | None = None) -> list[Any]:
    """Return the reply to a change that was made."""
    made = [Status.APPLIED, version, a_digest(version) if digest is None else digest]
    return made if result is None else [*made, result]


def noted(*ids: bytes, before: bytes = b"", length: int = 1) -> list[bytes]:
    """Return what stands in ``ops`` for changes, the oldest first: in turn id and note.

    Args:
        *ids: Of each its id.
        before: The digest before them.
        length: How many elements the session had behind each.
    """
    changes: list[bytes] = []
    for id_ in ids:
        before = chain(before, id_)
        changes += [id_, before + b"%d" % length]
    return changes


def described(
    length: int = 0, version: int = 0, *, ttl_ms: int | None = None, mismatch: bool = False, changes: Any = ()
) -> list[Any]:
    """Return what a script says about a session; see `description` in reading.lua."""
    time = b"1700000000000" if version else b""
    lifetime = (-1 if version else -2) if ttl_ms is None else ttl_ms
    return [length, lifetime, time, time, version, 0, a_digest(version), b"", int(mismatch), list(changes)]


def elements(*stored: bytes, version: int = 1, length: int | None = None) -> Callable[[Request], Awaitable[Any]]:
    """Return the reply to a read: the newest elements, of so many as there are (these, if no length is given)."""

    async def answer(request: Request) -> Any:
        separator: bytes = request.command.separator  # type: ignore[attr-defined]  # a read's
        count = len(stored)
        return [described(count if length is None else length, version), count, [separator.join(stored)]]

    return answer


def failed(cause: BaseException, *, sent: bool = False, node: str | None = NODE, **more: Any) -> AttemptError:
    return AttemptError(cause, node=node, sent=sent, **more)
