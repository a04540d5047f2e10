"""Free TCP ports on 127.0.0.1.

Ports are taken from below the kernel's ephemeral range (Linux: 32768, macOS: 49152) on purpose. A
port from inside it, which is what binding port 0 yields, can become the *local* port of any
outgoing connection while its server is down: then the server cannot be restarted, and a client that
keeps dialling the dead port can even connect to itself.
"""

from __future__ import annotations

import random
import socket
import threading

from .errors import LabError

HOST = "127.0.0.1"
# Where the bus of a cluster listens; cluster-port exists from 7.0 only.
BUS_OFFSET = 10_000
_FIRST, _LAST = 11_000, 22_500  # so that the bus, up to 32500, stays below 32768 too
_ATTEMPTS = 500

_lock = threading.Lock()
# A UDP socket of the same number keeps it from the labs of other processes, also while its server is down: the
# Sentinels that watch that address would take what listens there next for their own.
_reserved: dict[int, socket.socket] = {}
_random = random.SystemRandom()  # parallel test runs must not walk through the same ports


def reserve_port(*, with_bus: bool = False) -> int:
    """Return a port that no process listens on; it is not handed out again before `release_port`.

    Args:
        with_bus: Ask for the port + 10000 to be free as well.

    Raises:
        LabError: No free port was found.
    """
    for _ in range(_ATTEMPTS):
        port = _random.randint(_FIRST, _LAST)
        wanted = [port, port + BUS_OFFSET] if with_bus else [port]
        with _lock:
            if port in _reserved or not all(_is_free(number) for number in wanted):
                continue
            mark = _mark(port)
            if mark is None:
                continue
            _reserved[port] = mark
            return port
    raise LabError(f"found no free port between {_FIRST} and {_LAST} on {HOST}")


def release_port(port: int) -> None:
    """Let the port be handed out again."""
    with _lock:
        mark = _reserved.pop(port, None)
    if mark is not None:
        mark.close()


def _mark(port: int) -> socket.socket | None:
    mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        mark.bind((HOST, port))
    except OSError:
        mark.close()
        return None
    return mark


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as Redis does: TIME_WAIT is no obstacle
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True
