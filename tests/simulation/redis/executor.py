"""How a server runs one request: what it checks before (server.c, processCommand), and what it replicates after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.resp import Failure, Simple

from .registry import COMMANDS, Command, RefusalError, Reply, find, is_container

if TYPE_CHECKING:
    from .connection import Connection
    from .server import Server

__all__ = ["POSTPONED", "Executor"]

POSTPONED = object()
"""Returned for a request that has to wait until writes go on."""
QUEUED = Simple(b"QUEUED")
READ_ONLY = "READONLY You can't write against a read only replica."
NO_REPLICAS = "NOREPLICAS Not enough good replicas to write."
LOADING = "LOADING Redis is loading the dataset in memory"
PRIMARY_DOWN = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
MISCONF = (
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. "
    "Commands that may modify the data set are disabled, because this instance is configured to report errors "
    "during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). "
    "Please check the Redis logs for details about the RDB error."
)
_NEVER_QUEUED = frozenset(("exec", "discard", "multi", "watch", "quit", "reset"))
_WHILE_SUBSCRIBED = frozenset(
    ("ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "quit", "reset")
)


class Executor:
    """Runs the commands of one server.

    Attributes:
        dirty: Counts changes; a command that raises it is replicated.
        rewritten: What to replicate in place of the command that runs.
        effects: What the request that runs has changed so far: one batch of replication.
        asks_for_acks: Whether the replicas are to be asked how far they are when the command is done.
        in_exec: Whether a transaction runs.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.dirty = 0
        self.rewritten: list[bytes] | None = None
        self.effects: list[list[bytes]] = []
        self.in_exec = False
        self.asks_for_acks = False
        self._depth = 0

    def process(self, client: Connection, argv: list[bytes]) -> Reply:
        """Return the reply to a request; what it changed leaves for the replicas as one batch."""
        found = find(argv)
        if found is not None and found.since > self._server.version:
            found = None
        if found is None and self._server.version < (7, 0) and len(argv) > 1 and is_container(argv[0]):
            found = self._whole(argv)
        try:
            if found is None:
                raise RefusalError(self._unknown(argv))
            if found.arity != len(argv) and (found.arity > 0 or len(argv) < -found.arity):
                raise RefusalError(f"ERR wrong number of arguments for '{found.name}' command")
            self._check(client, found, argv)
        except RefusalError as error:
            if found is not None and found.name == "exec":
                client.discard()
                return self.failure(f"EXECABORT Transaction discarded because of: {error}")
            client.aborts = client.queue is not None
            client.asking = False
            return error.reply
        if self._server.load.holds_writes and self._has_to_wait(client, found):
            return POSTPONED
        if client.queue is not None and found.name not in _NEVER_QUEUED:
            client.queue.append((found, argv))
            return QUEUED
        return self.run(client, found, argv)

    def _has_to_wait(self, client: Connection, found: Command) -> bool:
        writes = found.writes or found.may_replicate or (found.name == "exec" and client.queue_writes)
        return (writes and client.queue is None) or found.name == "exec"

    def run(self, client: Connection, found: Command, argv: list[bytes]) -> Reply:
        """Run a command that passed the checks, and send what it changed on its way."""
        self._depth += 1
        try:
            reply = self.call(client, found, argv)
        except RefusalError as error:
            reply = error.reply
        finally:
            self._depth -= 1
            if not self._depth and self.effects:
                self.flush(script=found.may_replicate)
        client.write_offset = self._server.replication.offset
        if self.asks_for_acks:  # behind what this client waits for
            self.asks_for_acks = False
            self._server.replication.request_acks()
        if client.asking and found.name != "asking":
            client.asking = False  # it holds for one command
        return reply

    def call(self, client: Connection, found: Command, argv: list[bytes]) -> Reply:
        """Run a command, within a script or a transaction too, and note what it changed."""
        before = self.dirty
        self.rewritten = None
        reply = found.run(self._server, client, argv)
        if self.dirty != before and found.writes:
            self.effects.append(self.rewritten or argv)
            self.rewritten = None
        return reply

    def flush(self, *, script: bool = False) -> None:
        """Send the effects that were noted as one batch; several of them, or a script's before 7.0, within MULTI."""
        effects, self.effects = self.effects, []
        in_multi = len(effects) > 1 or (script and self._server.version < (7, 0))
        self._server.replication.feed(effects, in_multi=in_multi)

    def _whole(self, argv: list[bytes]) -> Command:
        """Return a command whose subcommands are no commands, as before 7.0: it fails when it runs."""

        def fail(server: Server, client: Connection, words: list[bytes]) -> Reply:
            raise RefusalError(self._unknown(words))

        return COMMANDS["ping"]._replace(name=argv[0].decode("latin-1").lower(), run=fail, arity=-2)

    def _unknown(self, argv: list[bytes]) -> str:
        container = is_container(argv[0])
        if container and len(argv) == 1:
            return f"ERR wrong number of arguments for '{argv[0].decode().lower()}' command"
        if container:
            sub, command = argv[1].partition(b"\0")[0].decode("latin-1")[:128], argv[0].decode().upper()
            if self._server.version < (7, 0):
                return f"ERR Unknown subcommand or wrong number of arguments for '{sub}'. Try {command} HELP."
            return f"ERR unknown subcommand '{sub}'. Try {command} HELP."
        name, *rest = (each.partition(b"\0")[0].decode("latin-1")[:128] for each in argv)
        parts = "".join(f"'{each}' " for each in rest)
        if self._server.version < (7, 0):
            parts = "".join(f"`{each}`, " for each in rest)
            return f"ERR unknown command `{name}`, with args beginning with: {parts}"
        return f"ERR unknown command '{name}', with args beginning with: {parts}"

    def _check(self, client: Connection, found: Command, argv: list[bytes]) -> None:
        """Refuse what cannot run now, in the server's own order."""
        server = self._server
        if not client.is_authenticated and not found.no_auth:
            raise RefusalError("NOAUTH Authentication required.")
        if not client.user.is_unbounded:
            server.users.check(client.user, found, argv)
        if server.cluster is not None:
            server.cluster.check(client, found, argv)
        writes = found.writes or (found.name == "exec" and client.queue_writes)
        if server.memory.limit:
            self._check_memory(client, found)
        if writes or found.name == "ping":
            refusal = self._refusal_by_disk()
            if refusal is not None:
                raise RefusalError(refusal)
        if writes:
            self._check_write()
        if client.channels and client.protocol == 2 and found.name not in _WHILE_SUBSCRIBED:
            raise RefusalError(
                f"ERR Can't execute '{found.name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
                "are allowed in this context"
            )
        self._check_state(found)

    def _check_memory(self, client: Connection, found: Command) -> None:
        memory = self._server.memory
        memory.make_room()
        queues = client.queue is not None and found.name not in _NEVER_QUEUED and not self._server.is_valkey
        if memory.is_full and (found.deny_oom or queues):
            raise RefusalError(memory.REFUSAL)

    def _check_state(self, found: Command) -> None:
        if not found.stale and self._server.replication.is_stale:
            raise RefusalError(PRIMARY_DOWN)
        if self._server.load.is_loading and not found.loading:
            raise RefusalError(LOADING)
        if self._server.load.is_busy and not found.allow_busy:
            raise RefusalError(BUSY)

    def _check_write(self) -> None:
        replication = self._server.replication
        if not replication.has_enough_replicas:
            raise RefusalError(NO_REPLICAS)
        if replication.primary is not None and replication.is_read_only:
            raise RefusalError(READ_ONLY)

    def _refusal_by_disk(self) -> str | None:
        server = self._server
        if not server.disk.save_fails or (server.version < (7, 0) and server.replication.primary is not None):
            return None
        return MISCONF

    def refusal_of_a_write(self) -> str | None:
        """Say why a script may not write now; None if it may."""
        replication = self._server.replication
        if replication.primary is not None and replication.is_read_only:
            return READ_ONLY
        refusal = self._refusal_by_disk()
        if refusal is not None:
            return refusal
        return None if replication.has_enough_replicas else NO_REPLICAS

    def failure(self, text: str) -> Failure:
        """Return an error reply."""
        return Failure(text.encode())
