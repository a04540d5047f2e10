"""A process that writes straight to data nodes and notes when they accepted: the servers' own gap.

It knows no topology. Each node has a thread that writes every few milliseconds over a plain connection that gives up
after 50 ms, so that a node that is stopped delays nobody else, and what accepts first is seen at once.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_PAUSE_SECONDS = 0.01
_ANSWER_SECONDS = 0.05


class Probe:
    """The handle of such a process.

    Args:
        ports: Of the nodes on 127.0.0.1 that may hold the key.
        key: What to write.
    """

    def __init__(self, ports: Sequence[int], key: str) -> None:
        command = [sys.executable, __file__, key, *map(str, ports)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def accepted(self) -> list[float]:
        """End the process and return when a node accepted a write, in order, by the monotonic clock."""
        out, _ = self._process.communicate("end\n", timeout=10)
        return sorted(float(line) for line in out.split())

    def close(self) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _write_for_ever(port: int, request: bytes, accepted: list[float]) -> None:
    connection: socket.socket | None = None
    while True:
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS)
            connection.sendall(request)
            if connection.recv(1024) == b"+OK\r\n":
                accepted.append(time.monotonic())
        except OSError:
            _close(connection)
            connection = None
        else:
            time.sleep(_PAUSE_SECONDS)
            continue
        time.sleep(_PAUSE_SECONDS)


def _close(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.close()


def _main() -> None:
    key, *ports = sys.argv[1:]
    request = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$1\r\n1\r\n" % (len(key.encode()), key.encode())
    accepted: list[float] = []
    for port in ports:
        threading.Thread(target=_write_for_ever, args=(int(port), request, accepted), daemon=True).start()
    sys.stdin.readline()
    print("\n".join(map(repr, list(accepted))), flush=True)


if __name__ == "__main__":
    _main()
