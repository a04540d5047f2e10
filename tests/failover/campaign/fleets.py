"""How each worker reaches the servers: all alike, or each in a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents_redis_ha import HAConfig
from agents_redis_ha.lab import Lab, Node, Proxy
from tests.failover.campaign.credentials import SecretFile
from tests.failover.campaign.faults_clients import allow_worker

PREFIX = "agents:ha"  # the library's default


@dataclass(frozen=True, kw_only=True)
class Member:
    """One worker of a fleet.

    Attributes:
        config: The servers, and how it wants them.
        hiredis: Whether it reads as with hiredis.
    """

    config: HAConfig
    hiredis: bool = True


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the workers are to be.

    Attributes:
        servers: The lab.
        victim: The primary that is to be struck.
        name: The only address that the workers know, and what it leads to; None where they know the servers.
        secret: The file that holds the password.
        password: What it says at first.
        fields: Of every worker's configuration.
    """

    servers: Lab
    victim: Node
    name: Proxy | None
    secret: Path
    password: str
    fields: Mapping[str, Any]

    def config(self, **fields: Any) -> HAConfig:
        """Return the configuration of a worker that reaches all servers, or their name."""
        wanted: dict[str, Any] = {**self.fields, **fields}
        if self.name is not None:
            wanted.update(topology="standalone", nodes=[self.name.address])
            wanted.update(service_name=None, sentinel=None, address_map={})
        return self.servers.config(**wanted)


Fleet = Callable[[Site, int], list[Member]]
"""Returns so many members."""


def alike(site: Site, count: int) -> list[Member]:
    """All alike."""
    return [Member(config=site.config())] * count


def with_login(site: Site, count: int) -> list[Member]:
    """All are an ACL user of their own, with the password that a file holds."""
    for node in site.servers.nodes:
        allow_worker(node, PREFIX, site.password)
    return [Member(config=site.config(password=None, credential_provider=SecretFile(site.secret)))] * count


def one_beside_victim(site: Site, count: int) -> list[Member]:
    """The first one is on the primary's side of a partition, the others on the other side."""
    links = site.servers.links
    inside = Member(config=links.config_inside(site.victim, **site.fields))
    return [inside] + [Member(config=links.config_outside(**site.fields))] * (count - 1)


def one_in_minority(site: Site, count: int) -> list[Member]:
    """Likewise, and the first one is told of the first Sentinel alone."""
    inside, *others = one_beside_victim(site, count)
    return [Member(config=inside.config.replace(nodes=inside.config.nodes[:1])), *others]


def mixed(site: Site, count: int) -> list[Member]:
    """In the midst of a change of the configuration: no two keep ids or sessions for as long, or read the same way."""
    kinds = (
        Member(config=site.config()),
        Member(config=site.config(ttl=3600, op_retention_seconds=6, retry={"deadline_seconds": 3}), hiredis=False),
        Member(config=site.config(ttl=600, op_retention_seconds=40)),
    )
    return [kinds[number % len(kinds)] for number in range(count)]


def behind_nat(site: Site, count: int) -> list[Member]:
    """All reach the Sentinels through proxies."""
    for sentinel in site.servers.sentinels:
        sentinel.put_proxy(None, None)
    return alike(site, count)


def impatient(site: Site, count: int) -> list[Member]:
    """All give a reply up after 0.8 s."""
    return [Member(config=site.config(pool={"response_timeout_seconds": 0.8}))] * count
