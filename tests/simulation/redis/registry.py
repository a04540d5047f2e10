"""The commands of a server: each a function that returns its reply, and what the server checks before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.resp import Failure, Simple

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = [
    "COMMANDS",
    "OK",
    "WRONG_TYPE",
    "Command",
    "RefusalError",
    "Reply",
    "command",
    "find",
    "invalid_expiry",
    "is_container",
    "whole_number",
]

Reply = Any
Handler = Callable[["Server", "Connection", list[bytes]], Reply]

OK = Simple(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class RefusalError(Exception):
    """A command fails; the text is its error reply."""

    @property
    def reply(self) -> Failure:
        """The reply."""
        return Failure(str(self).encode())


class Command(NamedTuple):
    """One command.

    Attributes:
        name: In lower case, as ACL rules name it; of a subcommand ``client|id``.
        run: Called with the server, the connection and the arguments, the name first.
        arity: Number of words, the name among them; below zero: so many at least.
        writes: Whether it may change data.
        reads: Whether it reads keys.
        deny_oom: Whether it is refused while the memory is full.
        loading: Whether it runs while the server loads its data.
        stale: Whether it runs on a replica that lost its primary and may not serve what it has.
        no_auth: Whether it runs before AUTH.
        no_script: Whether scripts may not call it.
        allow_busy: Whether it runs while a script holds the server up.
        may_replicate: Whether it may change data by what it runs: EVAL.
        keys: First key, last key, step; (0, 0, 0) none. A function finds them where they are not at fixed places.
        categories: Of ACL rules, beside those that follow from the flags.
        since: The first version that knows it.
    """

    name: str
    run: Handler
    arity: int
    writes: bool
    reads: bool
    deny_oom: bool
    loading: bool
    stale: bool
    no_auth: bool
    no_script: bool
    allow_busy: bool
    may_replicate: bool
    keys: tuple[int, int, int] | Callable[[Sequence[bytes]], list[bytes]]
    categories: frozenset[str]
    since: tuple[int, int]

    def keys_of(self, argv: Sequence[bytes]) -> list[bytes]:
        """Return the keys that a call names."""
        if callable(self.keys):
            return self.keys(argv)
        first, last, step = self.keys
        if not first:
            return []
        return list(argv[first : last + 1 if last >= 0 else len(argv) + 1 + last : step])

    @property
    def container(self) -> str:
        """The name of the command that it is a subcommand of, or its own."""
        return self.name.partition("|")[0]


COMMANDS: dict[str, Command] = {}
_CONTAINERS: set[str] = set()
_FLAGS = ("writes", "reads", "deny_oom", "loading", "stale", "no_auth", "no_script", "allow_busy", "may_replicate")


def command(
    name: str,
    arity: int,
    flags: str = "",
    keys: tuple[int, int, int] | Callable[[Sequence[bytes]], list[bytes]] = (0, 0, 0),
    categories: str = "",
    since: tuple[int, int] = (0, 0),
) -> Callable[[Handler], Handler]:
    """Enter a function into the table of commands.

    Args:
        name: In lower case; ``container|subcommand`` for a part of one.
        arity: As in `Command`.
        flags: Names of the attributes that are true, separated by spaces.
        keys: As in `Command`.
        categories: ACL categories, separated by spaces.
        since: As in `Command`.
    """
    given = flags.split()
    unknown = set(given) - set(_FLAGS)
    if unknown:
        raise ValueError(f"{name}: no such flags: {unknown}")
    groups = set(categories.split())
    groups |= {"write"} if "writes" in given else set()
    groups |= {"read"} if "reads" in given else set()

    def enter(run: Handler) -> Handler:
        values: dict[str, Any] = {flag: flag in given for flag in _FLAGS}
        COMMANDS[name] = Command(name, run, arity, keys=keys, categories=frozenset(groups), since=since, **values)
        if "|" in name:
            _CONTAINERS.add(name.partition("|")[0])
        return run

    return enter


_FOUND: dict[bytes, Command | None] = {}


def find(argv: Sequence[bytes]) -> Command | None:
    """Return the command that these words call, None if there is none."""
    word = argv[0]
    found = _FOUND.get(word)
    if found is None:
        name = word.decode("latin-1").lower()
        if name in _CONTAINERS:
            sub = argv[1].decode("latin-1").lower() if len(argv) > 1 else ""
            return COMMANDS.get(f"{name}|{sub}", COMMANDS.get(name))
        found = COMMANDS.get(name)
        if found is not None:
            _FOUND[word] = found
    return found


def is_container(word: bytes) -> bool:
    """Return whether a command has subcommands."""
    return word.decode("latin-1").lower() in _CONTAINERS


def invalid_expiry(server: Server, name: str) -> str:
    """Return what a command says to a time that is none."""
    where = name if server.version < (7, 0) else f"'{name}' command"
    return f"ERR invalid expire time in {where}"


def whole_number(text: bytes, error: str = "ERR value is not an integer or out of range") -> int:
    """Return a number as Redis reads it: no spaces, no sign but minus, no leading zeros, 64 bits.

    Raises:
        RefusalError: It is none.
    """
    try:
        value = int(text)
    except ValueError:
        raise RefusalError(error) from None
    if b"%d" % value != text or not -(2**63) <= value < 2**63:
        raise RefusalError(error)
    return value
