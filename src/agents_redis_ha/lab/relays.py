"""The connections of a proxy or of links."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from .ports import HOST
from .relay import Relay, linger_not

_BACKLOG = 100
Made = Callable[[socket.socket, str], "Relay | None"]


class Listener:
    """A port on which connections are accepted, until `close`.

    Not asyncio's server: that tells of a connection some turns of the loop after it accepted it, and loses it if it is
    closed in between.

    Args:
        port: On this port of 127.0.0.1.
        accepted: Told of each connection, and from which address it comes, at once.

    Raises:
        OSError: The port cannot be listened on.
    """

    def __init__(self, port: int, accepted: Callable[[socket.socket, str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._accepted = accepted
        self._socket = socket.create_server((HOST, port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, (host, _) = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        connection.setblocking(False)
        self._accepted(connection, host)


class Relays:
    """Knows each connection from the moment it is accepted until both its sockets are closed.

    Everything but the construction belongs into the one loop in which the relays run.
    """

    def __init__(self) -> None:
        self._running: set[Relay] = set()

    def listen(self, port: int, made: Made) -> Listener:
        """Accept connections.

        Args:
            port: On this port of 127.0.0.1.
            made: Returns the relay for a connection that comes from an address; None has the connection reset.

        Raises:
            OSError: The port cannot be listened on.
        """

        def accepted(connection: socket.socket, host: str) -> None:
            relay = made(connection, host)
            if relay is None:
                linger_not(connection)
                connection.close()
            else:
                self._start(relay)

        return Listener(port, accepted)

    def abort(self) -> None:
        """Reset all connections."""
        for relay in self._running:
            relay.abort()

    def tear(self) -> None:
        """Have all connections lose what comes from now on."""
        for relay in self._running:
            relay.tear()

    def abort_mended(self) -> None:
        """Reset the connections that have lost something and would lose nothing more."""
        for relay in self._running:
            if relay.mends:
                relay.abort()

    def _start(self, relay: Relay) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(relay)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                task.get_loop().call_exception_handler({"message": "a relay has failed", "exception": error})

        self._running.add(relay)
        relay.start().add_done_callback(ended)
