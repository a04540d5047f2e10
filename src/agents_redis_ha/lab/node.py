"""One server process of a lab."""

from __future__ import annotations

import contextlib
import shutil
import signal
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from .children import Process, end_children, freeze_child, start_child
from .errors import LabError, PortTakenError
from .ports import HOST
from .proxy import Proxy
from .waiting import wait_until

Role = Literal["primary", "replica", "sentinel"]

_ROLES: Mapping[str, Role] = {"master": "primary", "slave": "replica", "sentinel": "sentinel"}
_ADMIN_SECONDS = 1.0  # a server that does not answer the lab within this is taken for absent


class Node:
    """A data server or a Sentinel: a process on 127.0.0.1.

    Attributes:
        name: `data-1`, `sentinel-2` …, also the name of its directory.
        host: 127.0.0.1.
        port: The server's own port; a proxy's is `node.proxy.port`.
        proxy: The proxy in front of it, if any.
        stalled: Whether the lab has stopped it with SIGSTOP.
        announced_port: The port under which the other servers and clients know it: that of its relay in a lab with
            links, else its own.
        source: The address that it dials others from in a lab with links; else None.
        isolated: Whether `Links.partition` has cut it off from the others.
    """

    def __init__(
        self,
        name: str,
        port: int,
        directory: Path,
        command: Sequence[str],
        client_options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.host = HOST
        self.port = port
        self.proxy: Proxy | None = None
        self.stalled = False
        self.announced_port = port
        self.source: str | None = None
        self.isolated = False
        self._directory = directory
        self._command = list(command)
        self._client_options = client_options
        self._process: Process | None = None
        self._log_start = 0
        self._admin: redis.Redis | None = None

    def __repr__(self) -> str:
        state = "stalled" if self.stalled else "running" if self.alive else "down"
        return f"<Node {self.name} {self.address} {state}>"

    @property
    def address(self) -> str:
        """`host:port` of the server itself."""
        return f"{self.host}:{self.port}"

    @property
    def announced_address(self) -> str:
        """`host:port` under which the other servers and clients know it."""
        return f"{self.host}:{self.announced_port}"

    @property
    def dial_address(self) -> str:
        """`host:port` for clients: the proxy's where there is one, else the server's own."""
        return self.proxy.address if self.proxy else self.address

    @property
    def directory(self) -> Path:
        """The server's own directory, with its configuration, data and log."""
        return self._directory

    @property
    def process(self) -> Process:
        """The server's process, or the last one if it has ended.

        Raises:
            LabError: It was never started.
        """
        if self._process is None:
            raise LabError(f"{self.name} was never started")
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process exists; a stalled one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def up(self) -> bool:
        """Whether it ought to answer: alive and not stalled."""
        return self.alive and not self.stalled

    @property
    def connected(self) -> bool:
        """Whether it ought to answer the other servers: up and not isolated."""
        return self.up and not self.isolated

    def role(self) -> Role | None:
        """Return what the server says it is now; None if it does not answer within a second."""
        if not self.up:
            return None
        try:
            return _ROLES.get(self.ask("ROLE")[0])
        except RedisError:
            return None

    def ask(self, *command: str | int) -> Any:  # Any: the shape of a reply depends on the command
        """Return the server's own reply to an admin command (RESP2, decoded).

        Raises:
            redis.exceptions.RedisError: It does not answer within a second, or answers with an
            error.
        """
        if self._admin is None:
            self._admin = self.client(decode_responses=True, socket_timeout=_ADMIN_SECONDS)
        return self._admin.execute_command(*command)  # type: ignore[no-untyped-call]

    def client(self, **options: Any) -> redis.Redis:
        """Return a new client of the server itself, past any proxy; it never resends."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "protocol": 2,
            "socket_timeout": 10.0,
            "socket_connect_timeout": _ADMIN_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            **self._client_options,
            **options,
        }
        return redis.Redis(**settings)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def launch(self, *arguments: str) -> None:
        """Start the process, without waiting for it; the arguments hold for this start only."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._process = start_child([*self._command, *arguments], self._log)
        self.stalled = False

    def wait_until_answering(self, timeout: float) -> None:
        """Return when the server answers, and is not some other process on its port.

        Raises:
            LabError: It ended (the message holds the end of its log) or did not answer in time.
        """
        wait_until(self._answers, f"{self.name} ({self.address}) to answer", timeout)

    def put_proxy(self, tls: ssl.SSLContext | None, upstream_tls: ssl.SSLContext | None) -> None:
        """Put a proxy in front of the server."""
        self.proxy = Proxy(self.host, self.port, tls=tls, upstream_tls=upstream_tls)

    def kill(self) -> None:
        """End the process with SIGKILL, and reap it."""
        self.process.kill()
        self.process.wait()
        self._ended()

    def terminate(self, grace_seconds: float) -> None:
        """End the process with SIGTERM, after the grace period with SIGKILL, and reap it."""
        end_children([self.process], grace_seconds)
        self._ended()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP: its port still accepts connections, nothing answers."""
        freeze_child(self.process)
        self.stalled = True

    def thaw(self) -> None:
        """Let a stopped process go on."""
        self.process.send_signal(signal.SIGCONT)
        self.stalled = False

    def use_client_options(self, options: Mapping[str, Any]) -> None:
        """Use other credentials for the lab's own connections from now on."""
        self._client_options = options
        self._close_admin()

    def write_conf(self, directives: Iterable[str]) -> None:
        """Write the configuration that `launch` uses."""
        (self._directory / "server.conf").write_text("\n".join([*directives, ""]), encoding="utf-8")

    def edit_conf(self, directives: Mapping[str, str]) -> None:
        """Set directives, each of which has one line, in the configuration that `launch` uses."""
        path = self._directory / "server.conf"
        kept = [
            line for line in path.read_text(encoding="utf-8").splitlines() if line.split(" ", 1)[0] not in directives
        ]
        self.write_conf([*kept, *(f"{name} {value}" for name, value in directives.items())])

    def move_to(self, port: int) -> None:
        """Take another port from the next start on; the configuration is still to be changed."""
        self.port = self.announced_port = port
        self._close_admin()
        if self.proxy:
            self.proxy.forward_to(self.host, port)

    def extend_aof(self, commands: bytes) -> None:
        """Append commands, in the protocol's form, to the append-only file of a server that is down.

        Raises:
            LabError: It has no such file.
        """
        # From 7.0 on there are several, numbered, in a directory of their own.
        files = [*self._directory.glob("*.aof"), *self._directory.glob("*/*.incr.aof")]
        if not files:
            raise LabError(f"{self.name} has no append-only file; start the lab with persist=True")
        with max(files, key=lambda path: path.stat().st_mtime).open("ab") as newest:
            newest.write(commands)

    def remove_data(self) -> None:
        """Remove the files that hold data (RDB, AOF) of a server that is down; not nodes.conf."""
        for path in self._directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix in (".rdb", ".aof"):
                path.unlink()

    def close(self) -> None:
        """Close the lab's own connection and the proxy; the process is not touched."""
        self._ended()
        if self.proxy:
            self.proxy.close()

    @property
    def _log(self) -> Path:
        return self._directory / "server.log"

    def _answers(self) -> bool:
        if not self.alive:
            written = self._log.read_bytes()[self._log_start :].decode(errors="replace")
            tail = "\n".join(written.splitlines()[-20:])
            kind = PortTakenError if "address already in use" in tail.lower() else LabError
            raise kind(f"{self.name} ({self.address}) ended at its start; its log:\n{tail}")
        return bool(self.ask("INFO", "server")["process_id"] == self.pid)

    def _ended(self) -> None:
        self.stalled = False
        self._close_admin()

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None
