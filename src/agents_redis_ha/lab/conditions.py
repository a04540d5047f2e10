"""Conditions in which a server is up and refuses: too many clients, no memory, failing saves, loading.

Each needs nothing but the server. The context managers restore what was, if the server still answers then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from redis.exceptions import RedisError, ResponseError

from .errors import LabError
from .node import Node
from .servers import ANSWER_SECONDS
from .waiting import wait_until

_LOADED_PER_EVENT = 1024  # commands of an append-only file between two looks at the clients
_LOAD_DELAY_US = 20
_LOADED_PER_SECOND = 16_000  # more than an idle machine does with that delay
_NOTHING = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"


def kill_clients(node: Node) -> int:
    """Close every ordinary client's connection (CLIENT KILL TYPE normal), and return how many there were.

    The Sentinels' count among them, replicas and the cluster bus do not; the lab's own stays.
    """
    return int(node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))


@contextlib.contextmanager
def configure(node: Node, **directives: str | int) -> Iterator[None]:
    """Set directives of a data server (CONFIG SET) for the duration of the block.

    For example `maxmemory=1` (with the lab's policy, noeviction: every write gets OOM), or
    `min_replicas_to_write=5` (NOREPLICAS).

    Args:
        node: A data server; a Sentinel has no CONFIG.
        directives: Names with underscores in the place of hyphens.

    Raises:
        LabError: The server does not know one of them; those before it are restored.
        redis.exceptions.ResponseError: The server refuses one of them; likewise.
    """
    wanted = {name.replace("_", "-"): value for name, value in directives.items()}
    before: dict[str, str] = {}
    try:
        for name, value in wanted.items():
            known = _configured(node, name)
            node.ask("CONFIG", "SET", name, value)
            before[name] = known
        yield
    finally:
        with contextlib.suppress(RedisError):  # it has ended; its configuration file has the old values
            for name, value in reversed(before.items()):
                node.ask("CONFIG", "SET", name, value)


@contextlib.contextmanager
def limit_clients(node: Node, more: int = 0) -> Iterator[None]:
    """Have a data server refuse connections ("max number of clients reached") for the duration of the block.

    Args:
        node: A data server. Replicas and, in a cluster, bus links count as clients too.
        more: How many connections it accepts beyond those that it has now.
    """
    found = {**node.ask("INFO", "clients"), **node.ask("INFO", "replication")}
    counted = ("connected_clients", "connected_slaves", "cluster_connections")
    taken = sum(int(found.get(name, 0)) for name in counted)
    with configure(node, maxclients=taken + more):
        yield


@contextlib.contextmanager
def fill_memory(node: Node) -> Iterator[None]:
    """Have a data server answer every write with OOM for the duration of the block. Scripts that write too."""
    with configure(node, maxmemory_policy="noeviction", maxmemory=1):
        yield


@contextlib.contextmanager
def fail_saves(node: Node) -> Iterator[None]:
    """Have every RDB save of a data server fail for the duration of the block: a primary answers MISCONF.

    A directory stands in the place of the file, which stops root too.

    Raises:
        LabError: The server did not notice within 10 s.
    """
    obstacle = node.directory / _configured(node, "dbfilename")
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    try:
        with configure(node, save="3600 1", stop_writes_on_bgsave_error="yes"):
            _save(node, "err")
            yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            obstacle.rmdir()
        if node.up:
            _save(node, "ok")


@contextlib.contextmanager
def hold_loading(node: Node, seconds: float = 3.0) -> Iterator[None]:
    """Kill a data server and start it so that it answers LOADING for about so long; the block begins when it does.

    Its append-only file gets that many commands that do nothing, and each of them a delay. At the block's end what
    is left is loaded at once. Sentinels take LOADING for a sign of life; a cluster fails over after
    `node_timeout_ms`, and until then its member answers CLUSTERDOWN to commands with keys, LOADING to others.

    Args:
        node: A data server, up or down.
        seconds: How long it takes at least, if the block does not end earlier.

    Raises:
        LabError: It has no append-only file, or it does not finish within 15 s after the block.
    """
    if node.alive:
        node.kill()  # quicker than a stop, and what was answered is in the file
    node.extend_aof(_NOTHING * (_LOADED_PER_EVENT + int(seconds * _LOADED_PER_SECOND)))
    node.launch("--key-load-delay", str(_LOAD_DELAY_US))
    wait_until(lambda: _is_loading(node), f"{node.name} to answer LOADING", poll_seconds=0.005)
    try:
        yield
    finally:
        if node.up:
            wait_until(lambda: node.ask("CONFIG", "SET", "key-load-delay", 0), f"{node.name} to hurry up")
            wait_until(lambda: not _is_loading(node), f"{node.name} to finish loading", ANSWER_SECONDS)


def _configured(node: Node, name: str) -> str:
    found: list[str] = node.ask("CONFIG", "GET", name)
    if not found:
        raise LabError(f"{node.name} has no directive {name}")
    return found[1]


def _save(node: Node, outcome: str) -> None:
    """Have the server save in the background, again and again, until that ends as it should."""

    def done() -> bool:
        state = node.ask("INFO", "persistence")
        if state["rdb_last_bgsave_status"] == outcome:
            return True
        with contextlib.suppress(ResponseError):  # one is under way
            node.ask("BGSAVE")
        return False

    wait_until(done, f"{node.name} to end a save with {outcome!r}")


def _is_loading(node: Node) -> bool:
    return bool(node.ask("INFO", "persistence")["loading"])
