"""Connections: HELLO, CLIENT, transactions, and what else concerns one client alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.resp import NullArray, Simple

from ..connection import Connection
from ..registry import OK, Command, RefusalError, Reply, command, whole_number

if TYPE_CHECKING:
    from ..server import Server

_ALWAYS = "loading stale"
_CLIENT = "no_script loading stale"


@command("ping", -1, categories="fast connection")
def ping(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """PING [message]"""
    if len(argv) > 2:
        raise RefusalError("ERR wrong number of arguments for 'ping' command")
    if client.channels and client.protocol == 2:
        return [b"pong", argv[1] if len(argv) == 2 else b""]
    return argv[1] if len(argv) == 2 else Simple(b"PONG")


@command("echo", 2, _ALWAYS, categories="fast connection")
def echo(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """ECHO message"""
    return argv[1]


@command("select", 2, _ALWAYS, categories="fast connection")
def select(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """SELECT database: only the first one is simulated."""
    if whole_number(argv[1]) != 0:
        raise RefusalError("ERR DB index is out of range")
    return OK


@command("quit", -1, "no_script loading stale no_auth allow_busy", categories="fast connection")
def quit_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """QUIT"""
    client.end_after_reply()
    return OK


@command("reset", 1, "no_script loading stale no_auth allow_busy", categories="fast connection")
def reset(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """RESET"""
    client.reset()
    return Simple(b"RESET")


@command("hello", -1, "no_script loading stale no_auth allow_busy", categories="fast connection")
def hello(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """HELLO [protocol [AUTH user password] [SETNAME name]]"""
    protocol = whole_number(argv[1], "ERR Protocol version is not an integer or out of range") if len(argv) > 1 else 0
    if len(argv) > 1 and protocol not in (2, 3):
        raise RefusalError("NOPROTO unsupported protocol version")
    at = 2
    while at < len(argv):
        word = argv[at].upper()
        if word == b"AUTH" and at + 2 < len(argv):
            client.sign_in(argv[at + 1], argv[at + 2])
            at += 3
        elif word == b"SETNAME" and at + 1 < len(argv):
            client.name = argv[at + 1]
            at += 2
        else:
            raise RefusalError(f"ERR Syntax error in HELLO option '{argv[at].decode()}'")
    if not client.is_authenticated:
        raise RefusalError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version "
            "at the same time"
        )
    client.protocol = protocol or client.protocol
    return {
        b"server": b"redis",
        b"version": server.full_version.encode(),
        b"proto": client.protocol,
        b"id": client.id,
        b"mode": b"standalone" if server.cluster is None else b"cluster",
        b"role": b"master" if server.replication.primary is None else b"replica",
        b"modules": [],
    }


@command("client|setname", 3, _CLIENT, categories="slow connection")
def client_setname(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT SETNAME name"""
    client.name = argv[2]
    return OK


@command("client|getname", 2, _CLIENT, categories="slow connection")
def client_getname(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT GETNAME"""
    return client.name or None


@command("client|setinfo", 4, _CLIENT, categories="slow connection", since=(7, 2))
def client_setinfo(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT SETINFO LIB-NAME | LIB-VER value"""
    client.library[argv[2]] = argv[3]
    return OK


@command("client|id", 2, _CLIENT, categories="slow connection")
def client_id(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT ID"""
    return client.id


@command("client|no-evict", 3, _CLIENT, categories="admin slow dangerous connection", since=(7, 0))
def client_no_evict(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT NO-EVICT ON | OFF"""
    return OK


@command("client|no-touch", 3, _CLIENT, categories="slow connection", since=(7, 2))
def client_no_touch(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT NO-TOUCH ON | OFF"""
    return OK


@command("client|tracking", -3, _CLIENT, categories="slow connection")
def client_tracking(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT TRACKING ON | OFF: nothing is cached at clients here."""
    return OK


@command("client|list", -2, _CLIENT, categories="admin slow dangerous connection")
def client_list(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT LIST"""
    return "".join(_described(each) for each in server.connections.values()).encode()


@command("client|info", 2, _CLIENT, categories="slow connection")
def client_info(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT INFO"""
    return _described(client).encode()


def _described(each: Connection) -> str:
    flags = "P" if each.channels else "x" if each.queue is not None else "b" if each.unblock else "N"
    name, user = each.name.decode(), each.user.name.decode()
    return f"id={each.id} addr={each.peer} name={name} flags={flags} db=0 sub={len(each.channels)} user={user}\n"


@command("client|kill", -3, _CLIENT, categories="admin slow dangerous connection")
def client_kill(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT KILL address, or by ID, TYPE, USER, ADDR, SKIPME"""
    if len(argv) == 3:
        found = [each for each in server.connections.values() if each.peer.encode() == argv[2]]
        if not found:
            raise RefusalError("ERR No such client")
        _kill(client, found)
        return OK
    options = {name.upper(): value for name, value in zip(argv[2::2], argv[3::2], strict=False)}
    chosen = [each for each in server.connections.values() if _is_meant(each, client, options)]
    count = len(chosen)
    if options.get(b"TYPE", b"").lower() in (b"replica", b"slave"):
        count = server.replication.drop_replicas()
        chosen = []
    _kill(client, chosen)
    return count


def _is_meant(each: Connection, caller: Connection, options: dict[bytes, bytes]) -> bool:
    kind = options.get(b"TYPE", b"").lower()
    return not (
        (each is caller and options.get(b"SKIPME", b"yes").lower() == b"yes")
        or (b"ID" in options and each.id != whole_number(options[b"ID"]))
        or (b"USER" in options and each.user.name != options[b"USER"])
        or (b"ADDR" in options and each.peer.encode() != options[b"ADDR"])
        or (kind == b"normal" and each.channels)
        or (kind == b"pubsub" and not each.channels)
    )


def _kill(caller: Connection, chosen: list[Connection]) -> None:
    for each in chosen:
        if each is caller:
            each.end_after_reply()
        else:
            each.end()


@command("client|unblock", -3, _CLIENT, categories="admin slow dangerous connection")
def client_unblock(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """CLIENT UNBLOCK id"""
    found = server.connections.get(whole_number(argv[2]))
    if found is None or found.unblock is None:
        return 0
    server.replication.waiting.give_up(found)
    return 1


@command("command|count", 2, _ALWAYS, categories="slow connection")
def command_count(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """COMMAND COUNT"""
    return 240


@command("command", -1, _ALWAYS, categories="slow connection")
def command_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """COMMAND: redis-py's own cluster client asks for it; no session does."""
    return []


# Transactions.


@command("multi", 1, "no_script loading stale allow_busy", categories="fast transaction")
def multi(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """MULTI"""
    if client.queue is not None:
        raise RefusalError("ERR MULTI calls can not be nested")
    client.queue = []
    return OK


@command("discard", 1, "no_script loading stale allow_busy", categories="fast transaction")
def discard(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """DISCARD"""
    if client.queue is None:
        raise RefusalError("ERR DISCARD without MULTI")
    client.discard()
    return OK


@command("exec", 1, "no_script loading stale", categories="slow transaction")
def exec_(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """EXEC"""
    if client.queue is None:
        raise RefusalError("ERR EXEC without MULTI")
    queue, aborts = client.queue, client.aborts
    was_changed = any(server.keyspace.get(key) != value for key, value in client.watched.items())
    client.discard()
    if aborts:
        raise RefusalError("EXECABORT Transaction discarded because of previous errors.")
    if was_changed:
        return NullArray()
    server.executor.in_exec = True
    try:
        return [_reply(server, client, found, words) for found, words in queue]
    finally:
        server.executor.in_exec = False


def _reply(server: Server, client: Connection, found: Command, words: list[bytes]) -> Reply:
    try:
        return server.executor.call(client, found, words)
    except RefusalError as error:
        return error.reply


@command("watch", -2, "no_script loading stale allow_busy", (1, -1, 1), "fast transaction")
def watch(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """WATCH key …"""
    if client.queue is not None:
        raise RefusalError("ERR WATCH inside MULTI is not allowed")
    for key in argv[1:]:
        value = server.keyspace.get(key)
        client.watched[key] = value.copy() if isinstance(value, (list, dict)) else value
    return OK


@command("unwatch", 1, "no_script loading stale allow_busy", categories="fast transaction")
def unwatch(server: Server, client: Connection, argv: list[bytes]) -> Reply:
    """UNWATCH"""
    client.watched.clear()
    return OK
