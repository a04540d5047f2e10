"""Faults between clients and servers: credentials, connections, limits, replies."""

from __future__ import annotations

import contextlib

from agents_redis_ha import acl_rule
from agents_redis_ha.lab import Node, fail_saves, fill_memory, limit_clients
from tests.failover.campaign.strike import Strike

USER = "campaign"


def allow_worker(node: Node, prefix: str, password: str) -> None:
    """Make the workers' ACL user on a node, with no more than the documented rule."""
    node.ask("ACL", "SETUSER", USER, "on", f">{password}", *acl_rule(prefix), "+client|setname")


def password_rotated(strike: Strike) -> None:
    """The ACL user gets a second password, the workers' source changes, the first one goes; three times."""
    for _ in range(3):
        old = strike.secret.read_text()
        new = f"secret-{strike.random.randrange(10**9)}"
        for node in strike.servers.nodes:
            node.ask("ACL", "SETUSER", USER, f">{new}")
        strike.secret.write_text(new)
        for node in strike.servers.nodes:
            node.ask("ACL", "SETUSER", USER, f"<{old}")
            strike.drop_connections(node)
        strike.pause(0.7)


def certificate_rotated(strike: Strike) -> None:
    """The servers get new certificates of the same authority, and the workers have to connect anew."""
    for _ in range(2):
        strike.servers.credentials.rotate_certificates()
        for node in strike.servers.nodes:
            strike.drop_connections(node)
        strike.pause(0.7)


def client_kill_storm(strike: Strike) -> None:
    """CLIENT KILL of all the workers' connections, to every node, five times a second."""
    dropped = 0
    for _ in range(15):
        dropped += sum(strike.drop_connections(node) for node in strike.servers.nodes)
        strike.pause(0.2)
    strike.notes.append(f"{dropped} connections dropped")


def maxclients(strike: Strike) -> None:
    """The primary is full: of all the workers' connections only one finds a place, and it is closed again and again."""
    victim = strike.victim
    with limit_clients(victim, more=1 - len(strike.connections(victim))):
        with strike.throughout(lambda: strike.drop_connections(victim), 0.3):
            strike.pause(3.0)
    strike.notes.append(f"rejected: {victim.ask('INFO', 'stats')['rejected_connections']}")


def out_of_memory(strike: Strike) -> None:
    """OOM under noeviction: the primaries take no more data."""
    with contextlib.ExitStack() as undo:
        for node in strike.servers.primaries():
            undo.enter_context(fill_memory(node))
        strike.pause(2.5)


def disk_full(strike: Strike) -> None:
    """MISCONF: the primary cannot save, and refuses to write until it can."""
    with fail_saves(strike.victim):
        strike.pause(2.5)


def script_flush(strike: Strike) -> None:
    """SCRIPT FLUSH on every node, ten times a second."""
    for _ in range(30):
        for node in strike.servers.nodes:
            node.ask("SCRIPT", "FLUSH")
        strike.pause(0.1)


def replies_cut(strike: Strike) -> None:
    """The proxies execute one request of eight and lose its reply."""
    proxies = [node.proxy for node in strike.servers.nodes if node.proxy]
    for proxy in proxies:
        proxy.cut_replies(lambda _: strike.random.random() < 1 / 8)
    strike.pause(5.0)
    strike.notes.append(f"{sum(proxy.replies_cut for proxy in proxies)} replies cut")
    for proxy in proxies:
        proxy.heal()
