"""Lists (t_list.c)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from tests.simulation.resp import NullArray

from ..registry import OK, RefusalError, Reply, command, whole_number

if TYPE_CHECKING:
    from ..connection import Connection
    from ..server import Server

_ONE = (1, 1, 1)
_GROWS = "writes deny_oom"
NO_SUCH_KEY = "ERR no such key"
OUT_OF_RANGE = "ERR index out of range"


def _push(server: Server, argv: list[bytes], *, left: bool, must_exist: bool = False) -> int:
    found = server.keyspace.list(argv[1])
    if found is None:
        if must_exist:
            return 0
        found = []
        server.keyspace.store(argv[1], found)
    if left:
        found[:0] = argv[:1:-1]
    else:
        found += argv[2:]
    server.executor.dirty += len(argv) - 2
    return len(found)


@command("rpush", -3, _GROWS, _ONE, "list fast")
def rpush(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RPUSH key element …"""
    return _push(server, argv, left=False)


@command("lpush", -3, _GROWS, _ONE, "list fast")
def lpush(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LPUSH key element …"""
    return _push(server, argv, left=True)


@command("rpushx", -3, _GROWS, _ONE, "list fast")
def rpushx(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RPUSHX key element …"""
    return _push(server, argv, left=False, must_exist=True)


def _pop(server: Server, argv: list[bytes], at: int) -> Reply:
    if len(argv) > 3:
        raise RefusalError(f"ERR wrong number of arguments for '{argv[0].decode().lower()}' command")
    count = whole_number(argv[2], "ERR value is out of range, must be positive") if len(argv) == 3 else None
    if count is not None and count < 0:
        raise RefusalError("ERR value is out of range, must be positive")
    found = server.keyspace.list(argv[1])
    if found is None or count == 0:
        return [] if found is not None else None if count is None else NullArray()
    popped = [found.pop(at) for _ in range(min(1 if count is None else count, len(found)))]
    server.executor.dirty += len(popped)
    if not found:
        server.keyspace.delete(argv[1])
    return popped[0] if count is None else popped


@command("lpop", -2, "writes", _ONE, "list fast")
def lpop(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LPOP key [count]"""
    return _pop(server, argv, 0)


@command("rpop", -2, "writes", _ONE, "list fast")
def rpop(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RPOP key [count]"""
    return _pop(server, argv, -1)


@command("llen", 2, "reads", _ONE, "list fast")
def llen(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LLEN key"""
    return len(server.keyspace.list(argv[1]) or ())


@command("lindex", 3, "reads", _ONE, "list slow")
def lindex(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LINDEX key index"""
    found = server.keyspace.list(argv[1])
    if found is None:
        return None
    index = whole_number(argv[2])
    return found[index] if -len(found) <= index < len(found) else None


def _range(length: int, first: int, last: int) -> tuple[int, int]:
    """Return a range's bounds as Python has them; an empty one is (0, 0)."""
    first = max(first + length if first < 0 else first, 0)
    last = last + length if last < 0 else last
    return (0, 0) if first > last or first >= length else (first, min(last, length - 1) + 1)


@command("lrange", 4, "reads", _ONE, "list slow")
def lrange(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LRANGE key first last"""
    first, last = whole_number(argv[2]), whole_number(argv[3])
    found = server.keyspace.list(argv[1])
    if found is None:
        return []
    begin, end = _range(len(found), first, last)
    return found[begin:end]


@command("lset", 4, _GROWS, _ONE, "list slow")
def lset(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LSET key index element"""
    found = server.keyspace.list(argv[1])
    if found is None:
        raise RefusalError(NO_SUCH_KEY)
    index = whole_number(argv[2])
    if not -len(found) <= index < len(found):
        raise RefusalError(OUT_OF_RANGE)
    found[index] = argv[3]
    server.executor.dirty += 1
    return OK


@command("ltrim", 4, "writes", _ONE, "list slow")
def ltrim(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LTRIM key first last"""
    first, last = whole_number(argv[2]), whole_number(argv[3])
    found = server.keyspace.list(argv[1])
    if found is None:
        return OK
    begin, end = _range(len(found), first, last)
    server.executor.dirty += len(found) - (end - begin)  # a trim of nothing is not replicated
    if begin == end:
        server.keyspace.delete(argv[1])
    else:
        del found[end:]
        del found[:begin]
    return OK


@command("lrem", 4, "writes", _ONE, "list slow")
def lrem(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LREM key count element"""
    count = whole_number(argv[2])
    found = server.keyspace.list(argv[1])
    if found is None:
        return 0
    at = [index for index, each in enumerate(found) if each == argv[3]]
    removed = at[:count] if count > 0 else at[count:] if count < 0 else at
    for index in reversed(removed):
        del found[index]
    if removed:
        server.executor.dirty += len(removed)
        if not found:
            server.keyspace.delete(argv[1])
    return len(removed)


def _lpos_options(server: Server, argv: list[bytes]) -> tuple[int, int | None, int]:
    rank, count, longest = 1, None, 0
    if len(argv) % 2 == 0:
        raise RefusalError("ERR syntax error")
    for name, text in zip(argv[3::2], argv[4::2], strict=True):
        word = name.upper()
        if word == b"RANK":
            rank = whole_number(text)
            if rank == 0:
                more = ", ..." if server.version < (7, 0) else " ... or use negative to start from the end of the list"
                raise RefusalError(
                    f"ERR RANK can't be zero: use 1 to start from the first match, 2 from the second{more}"
                )
        elif word == b"COUNT":
            count = whole_number(text, "ERR COUNT can't be negative")
            if count < 0:
                raise RefusalError("ERR COUNT can't be negative")
        elif word == b"MAXLEN":
            longest = whole_number(text, "ERR MAXLEN can't be negative")
            if longest < 0:
                raise RefusalError("ERR MAXLEN can't be negative")
        else:
            raise RefusalError("ERR syntax error")
    return rank, count, longest


def _first(found: list[bytes], element: bytes, longest: int, *, from_end: bool) -> int | None:
    """Return where an element is, from one end; the library's own way to ask, so without a loop in Python."""
    length = len(found)
    looked_at = found[: -longest - 1 : -1] if from_end and longest else found[::-1] if from_end else found
    try:
        at = looked_at.index(element, 0, longest or length)
    except ValueError:
        return None
    return length - 1 - at if from_end else at


@command("lpos", -3, "reads", _ONE, "list slow")
def lpos(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """LPOS key element [RANK rank] [COUNT count] [MAXLEN most]"""
    rank, count, longest = _lpos_options(server, argv)
    found = server.keyspace.list(argv[1])
    if found is None:
        return [] if count is not None else None
    if rank in (1, -1) and count is None:
        return _first(found, argv[2], longest, from_end=rank < 0)
    order = range(len(found)) if rank > 0 else range(len(found) - 1, -1, -1)
    looked_at = islice(order, longest) if longest else order
    matches = (index for index in looked_at if found[index] == argv[2])
    if count is None:
        return next(islice(matches, abs(rank) - 1, None), None)
    return list(islice(matches, abs(rank) - 1, abs(rank) - 1 + count if count else None))
