"""One client's connection, as the server sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.resp import Failure, ProtocolError, Push, Raw, RequestParser, encode

from .executor import POSTPONED
from .registry import OK, Command, RefusalError, Reply

if TYPE_CHECKING:
    from .server import Server
    from .users import User

__all__ = ["BLOCKED", "Connection"]

BLOCKED = object()
"""What a command returns whose reply comes later; until then nothing more is read from its client."""


class Connection:
    """A client's connection.

    Attributes:
        peer: ``host:port`` of the client.
        id: Counted from 1 for each start of the server.
        name: As CLIENT SETNAME set it.
        protocol: RESP version, 2 or 3.
        user: Whose rights it has.
        is_authenticated: Whether a user is known.
        queue: The commands since MULTI; None outside of a transaction.
        aborts: Whether one of them was refused.
        asking: Whether ASKING precedes the next command.
        read_only: Whether READONLY was sent: a cluster's replica may answer.
        write_offset: The replication offset after its last command: what WAIT waits for.
        channels: What it is subscribed to, patterns with ``*`` in front.
        unblock: Called to end what it waits for, with an error reply; None while it does not wait.
        is_primary: Whether it stands for the primary's stream: then nothing is refused.
    """

    def __init__(
        self, server: Server, peer: str, id: int, send: Callable[[bytes], None], close: Callable[[], None]
    ) -> None:
        self._server = server
        self._send = send
        self._close = close
        self._parser = RequestParser()
        self._out: list[bytes] = []
        self._waiting: list[list[bytes]] = []
        self._ends = False
        self.is_open = True
        self.peer = peer
        self.id = id
        self.name = b""
        self.library: dict[bytes, bytes] = {}
        self.protocol = 2
        self.user: User = server.users.default
        self.is_authenticated = server.users.default.needs_no_password
        self.queue: list[tuple[Command, list[bytes]]] | None = None
        self.aborts = False
        self.watched: dict[bytes, Any] = {}
        self.asking = False
        self.read_only = False
        self.no_touch = False
        self.write_offset = 0
        self.channels: dict[bytes, None] = {}
        self.unblock: Callable[[Reply], None] | None = None
        self.is_primary = False

    @property
    def queue_writes(self) -> bool:
        """Whether the transaction has a command that writes."""
        return any(found.writes for found, _ in self.queue or ())

    # From the network.

    def receive(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if not self.is_open:
            return
        if self._server.load.is_held:
            self._server.load.hold(self, data)
            return
        try:
            commands = self._parser.feed(data)
        except ProtocolError as error:
            self._out.append(encode(Failure(b"ERR " + str(error).encode())))
            self._ends = True
            commands = []
        self._run(commands)

    def closed(self) -> None:
        """Take notice that the client has closed the connection, or that it broke."""
        if self._server.load.is_held:
            self._server.load.hold(self, None)
        else:
            self.forget()

    # From the server.

    def forget(self) -> None:
        """Drop what the server has of the connection."""
        if self.is_open:
            self.is_open = False
            self.unblock = None
            self._server.pubsub.leave(self)
            self._server.connections.pop(self.id, None)

    def end(self) -> None:
        """Close the connection from the server's side; what was replied before goes out first."""
        if self.is_open:
            self._flush()
            self.forget()
            self._close()

    def abort(self) -> None:
        """Be cut, since the process has ended: what was not sent is lost."""
        if self.is_open:
            self._out.clear()
            self.forget()
            self._close()

    def turn_away(self) -> None:
        """Close the connection, since there are too many."""
        self._out.append(b"-ERR max number of clients reached\r\n")
        self.end()

    def end_after_reply(self) -> None:
        """Close the connection as soon as the reply to the command that runs is out."""
        self._ends = True

    def push(self, value: Push) -> None:
        """Send what was not asked for now; within a command, behind its reply."""
        self._out.append(encode(value, self.protocol))
        if self._server.current is not self:
            self._flush()

    def block(self) -> None:
        """Read nothing more from this client until `resume`."""

        def resume(reply: Reply) -> None:
            self.unblock = None
            self._out.append(encode(reply, self.protocol))
            self._run([])

        self.unblock = resume

    def _run(self, commands: list[list[bytes]]) -> None:
        if self._waiting:
            self._waiting += commands
            commands, self._waiting = self._waiting, []
        server = self._server
        for at, argv in enumerate(commands):
            if self.unblock is not None or server.load.is_held:
                self._waiting = commands[at:]
                break
            if self._ends or not self.is_open:
                break
            reply = server.execute(self, argv)
            if reply is POSTPONED:
                self._waiting = commands[at:]
                break
            if reply is not BLOCKED:
                self._out.append(reply if type(reply) is Raw else encode(reply, self.protocol))
        if server.load.is_held:
            return  # a slow command: its reply comes when it is done
        if self._ends:
            self.end()
        else:
            self._flush()

    def run_waiting(self) -> None:
        """Go on with what was read before the server stood still."""
        if (self._waiting or self._out) and self.is_open:
            self._run([])

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
            self._out.clear()
            self._send(data)

    # Transactions.

    def discard(self) -> None:
        """Leave the transaction."""
        self.queue, self.aborts = None, False
        self.watched.clear()

    def reset(self) -> Reply:
        """Be as a new connection (RESET)."""
        self.discard()
        self._server.pubsub.leave(self)
        self.protocol, self.name, self.asking, self.read_only = 2, b"", False, False
        self.user = self._server.users.default
        self.is_authenticated = self.user.needs_no_password
        return OK

    def sign_in(self, name: bytes, password: bytes) -> None:
        """Take a user's rights.

        Raises:
            RefusalError: The password is wrong.
        """
        found = self._server.users.authenticated(name, password)
        if found is None:
            raise RefusalError("WRONGPASS invalid username-password pair or user is disabled.")
        self.user, self.is_authenticated = found, True
