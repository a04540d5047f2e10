"""Faults between clients and servers: credentials, connections, limits, replies."""

from __future__ import annotations

import contextlib

from agents_redis_ha import acl_rule
from agents_redis_ha.lab import Node, Proxy, fail_saves, fill_memory, limit_clients, wait_until
from tests.failover.campaign.faults_servers import kill
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
    with strike.replies_cut(strike.one_of_eight):
        strike.pause(5.0)


def slow_link(strike: Strike) -> None:
    """Each link is slow in its own way, three times some requests are late by more than a timeout; a kill meanwhile.

    What was late arrives although the process that sent it has given it up and sent it again.
    """
    for _ in range(3):
        for proxy in strike.proxies:
            proxy.delay(0.0)
            proxy.delay(1.2, requests=True)
        strike.pause(1.0)
        for proxy in strike.proxies:
            proxy.delay(strike.random.choice((0.01, 0.04, 0.1)))
            proxy.delay(strike.random.choice((0.0, 0.05)), requests=True)
        strike.pause(1.0)
    kill(strike)
    strike.pause(1.0)
    for proxy in strike.proxies:
        proxy.heal()


def mixed_memory(strike: Strike) -> None:
    """The first worker gets no reply to what it adds to shared sessions for 8 s; then the primary is killed.

    It sends the same again and again. Another worker, which goes on in the same sessions, keeps ids for 6 s.
    """
    first = strike.workers.names[0]
    with strike.replies_cut(lambda request: f"{first}.shared-".encode() in request):
        strike.pause(8.0)
    kill(strike)


def deaf_listener(strike: Strike) -> None:
    """A NAT forgets all connections to the Sentinels; a failover by hand then, and one when they are heard again."""
    proxies = [sentinel.proxy for sentinel in strike.servers.sentinels if sentinel.proxy]
    for proxy in proxies:
        proxy.reset_counters()
        proxy.forget()
    strike.servers.promote(strike.replica())
    count = len(strike.workers.names)
    heard = "all workers to listen to all Sentinels again"
    wait_until(lambda: all(_subscriptions(proxy) >= count for proxy in proxies), heard, 30.0)
    strike.servers.promote(strike.replica())


def _subscriptions(proxy: Proxy) -> int:
    return sum(b"SUBSCRIBE" in chunk for chunk in proxy.commands)
