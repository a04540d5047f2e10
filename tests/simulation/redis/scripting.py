"""EVAL and EVALSHA: the project's own scripts in Lua 5.1, with the redis API that they call.

Left out, since the project's scripts do not use them: cmsgpack, struct and bit, cjson.encode, redis.set_repl,
redis.setresp, redis.breakpoint, functions, and shebang flags. `cjson.decode` tells only whether Redis could decode it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupa import lua51  # type: ignore[import-untyped]

from tests.simulation.resp import Failure, Raw, Simple

from .lua_json import accepts
from .registry import OK, Command, RefusalError, Reply, command, find, whole_number
from .users import denial

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["Scripts", "interpreter"]

NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL."
_LARGEST_PLAIN = 10**17  # from here on "%.17g" writes an exponent


_WORDS_BEFORE_7 = {
    "unknown": "Unknown Redis command called from Lua script",
    "arity": "Wrong number of args calling Redis command From Lua script",
    "forbidden": "This Redis command is not allowed from scripts",
    "none": "redis.call()",
    "types": "Lua redis() command arguments must be strings or integers",
}
_WORDS = {
    "unknown": "Unknown Redis command called from script",
    "arity": "Wrong number of args calling Redis command from script",
    "forbidden": "This Redis command is not allowed from script",
    "none": "this redis lib call",
    "types": "Lua redis lib command arguments must be strings or integers",
}
_WORDS_OF_VALKEY = {
    "unknown": "Unknown command called from script",
    "arity": "Wrong number of args calling command from script",
    "forbidden": "This Valkey command is not allowed from script",
    "none": "this call",
    "types": "Command arguments must be strings or integers",
}


class _Interpreter:
    """One Lua runtime for all servers of a kind: what a script leaves behind is nothing.

    Attributes:
        run: The script that runs.
        words: What is said of a call that cannot be made.
    """

    def __init__(self, major: int, *, is_valkey: bool = False) -> None:
        self._is_valkey = is_valkey
        self.words = _WORDS_OF_VALKEY if is_valkey else _WORDS if major >= 7 else _WORDS_BEFORE_7
        self.run: _Run | None = None
        self.lua = lua51.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self.table = self.lua.table_from
        source = Path(__file__).with_name("sandbox.lua").read_bytes()
        load = self.lua.execute(b"return function(source) return loadstring(source, '@sandbox') end")
        functions = (self._call, self._reply, _table_of, self._allowed, _sha1hex, accepts, major)
        self._compile, self.call, self._where, self.define = load(source)(*functions)
        self._major = major
        self._compiled: dict[bytes, Any] = {}

    def compiled(self, source: bytes) -> Any:
        """Return the function of a source, compiled once.

        Raises:
            RefusalError: It does not compile.
        """
        found = self._compiled.get(source)
        if found is None:
            result = self._compile(source)
            if type(result) is tuple:
                raise RefusalError(f"ERR Error compiling script (new function): {result[1].decode()}")
            found = self._compiled[source] = result
        return found

    def substitute(self, source: bytes, other: bytes) -> None:
        """Run another source wherever this one is asked for: one that tells which branches ran."""
        self._compiled[source] = self.compiled(other)

    def _call(self, *words: Any) -> Any:
        reply = self._reply(*words)
        kind = type(reply)
        if kind is bytes or kind is int or reply is False:
            return reply
        if reply[b"err"] is not None:
            raise _RaisedError(reply)
        return reply

    def _reply(self, *words: Any) -> Any:
        run = self.run
        assert run is not None
        if not words:
            return self._refused(b"ERR Please specify at least one argument for " + self.words["none"].encode())
        argv = []
        for word in words:
            kind = type(word)
            if kind is bytes:
                argv.append(word)
            elif kind is int and -_LARGEST_PLAIN < word < _LARGEST_PLAIN:
                argv.append(b"%d" % word)
            elif kind is int or kind is float:
                argv.append(_shortest(float(word)) if self._is_valkey else b"%.17g" % word)
            else:
                return self._refused(b"ERR " + self.words["types"].encode())
        reply = run.execute(argv)
        kind = type(reply)
        if kind is bytes or kind is int:
            return reply
        return self._as_lua(reply)

    def _as_lua(self, reply: Reply) -> Any:
        """Return a reply as redis.call gives it to a script."""
        kind = type(reply)
        if kind is bytes or kind is int:
            return reply
        if reply is None:
            return False
        if kind is Failure:
            return self.table({b"err": bytes(reply)})
        if kind is _Refused:
            return self._refused(reply)
        if kind is Simple or kind is str:
            return self.table({b"ok": bytes(reply)})
        if kind is dict:
            reply = [part for pair in reply.items() for part in pair]
        return self.table([each if type(each) is bytes else self._as_lua(each) for each in reply])

    def _refused(self, error: bytes) -> Any:
        """Return what the server itself refuses; before 7.0 with the place, and without a word in front of it."""
        if self._major < 7:
            error = self._where() + (error[4:] if error.startswith(b"ERR ") else b"-" + error + b"\r\n")
        return self.table({b"err": bytes(error)})

    def _allowed(self, *words: Any) -> bool:
        assert self.run is not None
        argv = [word if type(word) is bytes else b"%.17g" % word for word in words]
        found = find(argv)
        if found is None:
            raise AssertionError(f"acl_check_cmd of a command that is not simulated: {argv[0]!r}")
        return self.run.client.user.refuses(found, argv) is None


def _shortest(number: float) -> bytes:
    """Return a number as Valkey writes it: the fewest digits, no exponent below 1e21."""
    text = repr(number)
    return (f"{Decimal(text):f}" if "e+" in text and abs(number) < 1e21 else text).encode()


class _RaisedError(Exception):
    """Carries the error of redis.call through Lua."""


def _table_of(error: Exception) -> Any:
    if not isinstance(error, _RaisedError):
        raise AssertionError("the simulation failed within a script") from error
    return error.args[0]


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


interpreter = cache(_Interpreter)


class _Refused(bytes):
    """What the server itself refuses within a script, before the command."""


class _Run:
    """One run of a script."""

    __slots__ = ("client", "dirty", "lua", "server")

    def __init__(self, lua: _Interpreter, server: Server, client: Connection) -> None:
        self.lua = lua
        self.server = server
        self.client = client
        self.dirty = False

    def execute(self, argv: list[bytes]) -> Reply:
        """Return the reply to redis.call."""
        found = find(argv)
        refusal = self._refusal(found, argv)
        if refusal is not None:
            return _Refused(refusal.encode())
        assert found is not None
        try:
            return self.server.executor.call(self.client, found, argv)
        except RefusalError as error:
            return error.reply

    def _refusal(self, found: Command | None, argv: list[bytes]) -> str | None:
        """Say why the server does not run a command within this script (script.c, scriptCall)."""
        server = self.server
        is_new = server.version >= (7, 0)
        if found is None:
            return "ERR " + self.lua.words["unknown"]
        if found.arity != len(argv) and (found.arity > 0 or len(argv) < -found.arity):
            return "ERR " + self.lua.words["arity"]
        if found.no_script:
            return "ERR " + self.lua.words["forbidden"]
        denied = None if self.client.user.is_unbounded else self.client.user.refuses(found, argv)
        if denied is not None:
            return self._denial(found, denied)
        if found.writes and not (is_new and self.dirty) and not self.client.is_primary:
            refusal = server.executor.refusal_of_a_write()
            if refusal is not None:
                return refusal
        if found.deny_oom and not self.dirty and server.memory.is_full and not self.client.is_primary:
            return server.memory.REFUSAL
        self.dirty = self.dirty or found.writes
        if server.cluster is not None and not self.client.is_primary:
            return server.cluster.refusal_within_script(self.client, found, argv)
        return None

    def _denial(self, found: Command, denied: str) -> str:
        if self.server.version >= (7, 2):
            return f"ERR ACL failure in script: {denial(self.client.user, found, denied)}"
        return "ERR The user executing the script " + _DENIED[denied]


_DENIED = {
    "command": "can't run this command or subcommand",
    "key": "can't access at least one of the keys mentioned in the command arguments",
    "channel": "can't publish to the channel mentioned in the command",
}


class Scripts:
    """The script cache of one server; it does not survive a restart.

    Attributes:
        sources: By SHA-1, in lower-case hexadecimal digits.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._interpreter = interpreter(server.version[0], is_valkey=server.is_valkey)
        self.sources: dict[bytes, bytes] = {}

    def load(self, source: bytes) -> bytes:
        """Put a script into the cache and return its SHA-1."""
        sha = _sha1hex(source)
        if sha not in self.sources:
            self._interpreter.compiled(source)
            self.sources[sha] = source
        return sha

    def run(self, client: Connection, sha: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Reply:
        """Run a script that is in the cache."""
        lua, server = self._interpreter, self._server
        compiled = lua.compiled(self.sources[sha])
        lua.run = _Run(lua, server, client)
        server.frozen_ms = server.now_ms()
        # Before 7.0, a replica hides expired keys from commands that only read, and EVALSHA does not count as one of
        # them (db.c, lookupKeyReadWithFlags).
        shows_expired = server.version < (7, 0) and server.replication.primary is not None
        before = server.keyspace.ignores_expiry
        server.keyspace.ignores_expiry = before or shows_expired
        try:
            reply = lua.call(compiled, lua.table(keys), lua.table(arguments), client.protocol)
        finally:
            server.frozen_ms = None
            server.keyspace.ignores_expiry = before
            lua.run = None
        if type(reply) is bytes:
            return Raw(reply)
        _, error, *place = reply
        return Failure(self._explained(sha, error, place))

    def _explained(self, sha: bytes, error: bytes, place: Sequence[Any]) -> bytes:
        if self._server.version < (7, 0):
            return b"ERR Error running script (call to f_%b): %b" % (sha, error.rstrip(b"\r\n"))
        if len(place) == 2 and place[0] is not None:
            which = b"" if self._server.is_valkey else sha + b", "
            return b"%b script: %bon %b:%d." % (error, which, place[0], place[1])
        return error


def _script_keys(argv: Sequence[bytes]) -> list[bytes]:
    try:
        count = int(argv[2])
    except (ValueError, IndexError):
        return []
    return list(argv[3 : 3 + count]) if 0 <= count <= len(argv) - 3 else []


def _run(server: Server, client: Connection, sha: bytes, argv: list[bytes]) -> Reply:
    count = whole_number(argv[2])
    if count > len(argv) - 3:
        raise RefusalError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise RefusalError("ERR Number of keys can't be negative")
    if argv[0][:5].upper() == b"EVAL" and len(argv[0]) == 4:
        server.scripts.load(argv[1])
    elif sha not in server.scripts.sources:
        raise RefusalError(NO_SCRIPT.partition(" Please")[0] if server.is_valkey else NO_SCRIPT)
    return server.scripts.run(client, sha, argv[3 : 3 + count], argv[3 + count :])


_FLAGS = "no_script may_replicate stale"


@command("eval", -3, _FLAGS, _script_keys, "slow scripting")
def eval_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EVAL source count key … argument …"""
    return _run(server, client, _sha1hex(argv[1]), argv)


@command("evalsha", -3, _FLAGS, _script_keys, "slow scripting")
def evalsha(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EVALSHA sha count key … argument …"""
    return _run(server, client, argv[1].lower(), argv)


@command("script|load", 3, "no_script stale", categories="slow scripting")
def script_load(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SCRIPT LOAD source"""
    return server.scripts.load(argv[2])


@command("script|exists", -3, "no_script", categories="slow scripting")
def script_exists(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SCRIPT EXISTS sha …"""
    return [int(sha.lower() in server.scripts.sources) for sha in argv[2:]]


@command("script|flush", -2, "no_script", categories="slow scripting")
def script_flush(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SCRIPT FLUSH"""
    server.scripts.sources.clear()
    return OK


@command("script|kill", 2, "no_script allow_busy", categories="slow scripting")
def script_kill(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SCRIPT KILL"""
    return server.load.kill_script()
