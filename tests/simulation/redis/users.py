"""ACL users: their passwords, commands, keys and channels.

Left out: selectors, ACL LOG, and per-key read and write rights (``%R~`` counts as ``~``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from .registry import COMMANDS, OK, Command, RefusalError, Reply, command, find

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["User", "Users", "denial", "glob"]

_CHANNEL_COMMANDS = frozenset(("publish", "subscribe", "psubscribe", "spublish", "ssubscribe"))


@lru_cache(maxsize=1024)
def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Return the regular expression of one of Redis' patterns (util.c, stringmatchlen)."""
    out, at = b"", 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            out += b".*"
        elif char == b"?":
            out += b"."
        elif char == b"\\" and at + 1 < len(pattern):
            at += 1
            out += re.escape(pattern[at : at + 1])
        elif char == b"[" and b"]" in pattern[at:]:
            end = pattern.index(b"]", at)
            out += pattern[at : end + 1]
            at = end
        else:
            out += re.escape(char)
        at += 1
    return re.compile(out, re.DOTALL)


class User:
    """One user.

    Attributes:
        name: Its name.
        enabled: Whether it may sign in.
        passwords: In plain text.
        needs_no_password: Whether any password does.
        names: The commands that it may run.
        keys: Patterns of the keys that it may name.
        channels: Patterns of its channels.
        is_unbounded: Whether it may do everything.
    """

    def __init__(self, name: bytes, version: tuple[int, int]) -> None:
        self.name = name
        self.enabled = False
        self.passwords: set[bytes] = set()
        self.needs_no_password = False
        self.names: set[str] = set()
        self.keys: list[bytes] = []
        self.channels: list[bytes] = [b"*"] if version < (7, 0) else []
        self.is_unbounded = False

    def refuses(self, found: Command, argv: Sequence[bytes]) -> str | None:
        """Return what the user lacks for a command: ``command``, ``key`` or ``channel``; None if nothing."""
        if self.is_unbounded:
            return None
        if found.name not in self.names and not found.no_auth:
            return "command"
        if b"*" not in self.keys:
            for key in found.keys_of(argv):
                if not any(glob(pattern).fullmatch(key) for pattern in self.keys):
                    return "key"
        if found.name in _CHANNEL_COMMANDS and b"*" not in self.channels:
            names = argv[1:2] if found.name.endswith("publish") else argv[1:]
            for name in names:
                if not any(glob(pattern).fullmatch(name) for pattern in self.channels):
                    return "channel"
        return None

    def apply(self, rules: Iterable[bytes]) -> None:
        """Change the user as ACL SETUSER does.

        Raises:
            RefusalError: A rule cannot be read; those before it hold.
        """
        for rule in rules:
            self._apply(rule)
        everything = set(COMMANDS) <= self.names and b"*" in self.keys and b"*" in self.channels
        self.is_unbounded = everything

    def _apply(self, rule: bytes) -> None:
        word, first, rest = rule.lower(), rule[:1], rule[1:]
        simple = _WORDS.get(word)
        if simple is not None:
            for attribute, value in simple.items():
                setattr(self, attribute, value() if callable(value) else value)
        elif first == b">":
            self.passwords.add(rest)
            self.needs_no_password = False
        elif first == b"<":
            self.passwords.discard(rest)
        elif first == b"~":
            self.keys.append(rest)
        elif first == b"%" and b"~" in rest:
            self.keys.append(rest.partition(b"~")[2])
        elif first == b"&":
            self.channels.append(rest)
        elif first == b"+":
            self.names |= _named(rest.decode().lower())
        elif first == b"-":
            self.names -= _named(rest.decode().lower())
        else:
            raise RefusalError(f"ERR Error in ACL SETUSER modifier '{rule.decode()}': Syntax error")


def _named(text: str) -> set[str]:
    if text == "@all":
        return set(COMMANDS)
    if text.startswith("@"):
        return {name for name, each in COMMANDS.items() if text[1:] in each.categories}
    if text in COMMANDS or "|" in text:
        return {text} | {name for name in COMMANDS if name.startswith(f"{text}|")}
    return {text, *(name for name in COMMANDS if name.startswith(f"{text}|"))}


_WORDS: dict[bytes, dict[str, object]] = {
    b"on": {"enabled": True},
    b"off": {"enabled": False},
    b"nopass": {"needs_no_password": True, "passwords": set},
    b"resetpass": {"needs_no_password": False, "passwords": set},
    b"allkeys": {"keys": lambda: [b"*"]},
    b"~*": {"keys": lambda: [b"*"]},
    b"resetkeys": {"keys": list},
    b"allchannels": {"channels": lambda: [b"*"]},
    b"&*": {"channels": lambda: [b"*"]},
    b"resetchannels": {"channels": list},
    b"allcommands": {"names": lambda: set(COMMANDS)},
    b"+@all": {"names": lambda: set(COMMANDS)},
    b"nocommands": {"names": set},
    b"-@all": {"names": set},
    b"sanitize-payload": {},
    b"skip-sanitize-payload": {},
    b"reset": {
        "enabled": False,
        "needs_no_password": False,
        "passwords": set,
        "names": set,
        "keys": list,
        "channels": list,
    },
}


def denial(user: User, found: Command, denied: str) -> str:
    """Return what Redis says from 7.2 on to a user who lacks a right (acl.c, getAclErrorMessage)."""
    if denied == "command":
        return f"User {user.name.decode()} has no permissions to run the '{found.name}' command"
    return f"No permissions to access a {denied}"


class Users:
    """The users of one server.

    Attributes:
        default: Whose rights a new connection has.
        everything: May do everything: for what the server runs by itself.
    """

    def __init__(self, version: tuple[int, int]) -> None:
        self._version = version
        self.default = User(b"default", version)
        self.default.apply([b"on", b"nopass", b"~*", b"&*", b"+@all"])
        self.by_name = {b"default": self.default}
        self.everything = User(b"", version)
        self.everything.apply([b"~*", b"&*", b"+@all"])

    def authenticated(self, name: bytes, password: bytes) -> User | None:
        """Return the user who signs in so; None if the name or the password is wrong."""
        user = self.by_name.get(name)
        if user is None or not user.enabled:
            return None
        return user if user.needs_no_password or password in user.passwords else None

    def check(self, user: User, found: Command, argv: Sequence[bytes]) -> None:
        """Refuse a command that the user may not run (server.c, processCommand)."""
        denied = user.refuses(found, argv)
        if denied is None:
            return
        if self._version >= (7, 2):
            raise RefusalError(f"NOPERM {denial(user, found, denied)}")
        is_old = self._version < (7, 0)
        if denied == "command":
            name, more = (found.container, " or its subcommand") if is_old else (found.name, "")
            raise RefusalError(f"NOPERM this user has no permissions to run the '{name}' command{more}")
        what = "keys" if denied == "key" else "channels"
        raise RefusalError(f"NOPERM this user has no permissions to access one of the {what} used as arguments")

    def require_password(self, password: bytes) -> None:
        """Set the default user's password (requirepass); an empty one takes it away."""
        self.default.apply([b"resetpass", b">" + password] if password else [b"nopass"])


@command("acl|setuser", -3, "no_script loading stale", categories="admin dangerous slow")
def acl_setuser(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ACL SETUSER name rule …"""
    user = server.users.by_name.setdefault(argv[2], User(argv[2], server.version))
    user.apply(argv[3:])
    return OK


@command("acl|deluser", -3, "no_script loading stale", categories="admin dangerous slow")
def acl_deluser(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ACL DELUSER name …"""
    gone = [server.users.by_name.pop(name) for name in argv[2:] if name in server.users.by_name and name != b"default"]
    for each in list(server.connections.values()):
        if each.user in gone:
            each.end_after_reply() if each is client else each.end()
    return len(gone)


@command("acl|whoami", 2, "no_script loading stale", categories="slow")
def acl_whoami(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ACL WHOAMI"""
    return client.user.name


@command("acl|dryrun", -4, "no_script loading stale", categories="admin dangerous slow", since=(7, 0))
def acl_dryrun(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ACL DRYRUN name command …"""
    user = server.users.by_name.get(argv[2])
    found = find(argv[3:])
    if user is None:
        raise RefusalError(f"ERR User '{argv[2].decode()}' not found")
    if found is None:
        raise RefusalError(f"ERR Command '{argv[3].decode()}' not found")
    denied = user.refuses(found, argv[3:])
    if denied is None:
        return OK
    if denied == "command":
        return f"User {user.name.decode()} has no permissions to run the '{found.name}' command".encode()
    key = found.keys_of(argv[3:])[0].decode()
    return f"User {user.name.decode()} has no permissions to access the '{key}' key".encode()


@command("auth", -2, "no_script loading stale no_auth allow_busy", categories="fast connection")
def auth(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """AUTH [user] password"""
    if len(argv) > 3:
        raise RefusalError("ERR syntax error")
    if len(argv) == 2 and server.users.default.needs_no_password:
        raise RefusalError(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    client.sign_in(argv[1] if len(argv) == 3 else b"default", argv[-1])
    return OK
