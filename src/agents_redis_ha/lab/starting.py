"""`lab.start`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .binaries import find_server
from .certificates import Issuer
from .cluster import ClusterLab
from .errors import LabError, PortTakenError
from .lab import Lab
from .sentinel import SentinelLab
from .settings import Directives, Settings, Topology
from .standalone import StandaloneLab

_LABS: Mapping[str, type[Lab]] = {lab.topology: lab for lab in (StandaloneLab, SentinelLab, ClusterLab)}
_ATTEMPTS = 4


def start(
    topology: Topology,
    *,
    tls: bool = False,
    mutual_tls: bool = False,
    proxies: bool = False,
    links: bool = False,
    password: str | None = None,
    sentinel_password: str | None = None,
    server: str | os.PathLike[str] | None = None,
    config: Directives | None = None,
    persist: bool = True,
    down_after_ms: int = 1_000,
    node_timeout_ms: int = 1_000,
) -> Lab:
    """Start a real topology on free ports of 127.0.0.1 and return it when it is ready.

    "standalone" is one server; "sentinel" a primary, two replicas and three Sentinels (quorum 2,
    service `mymaster`); "cluster" three primaries with a replica each.

    Args:
        topology: Which one.
        tls: Have clients, replicas, Sentinels and the cluster bus speak TLS. A server built without
            TLS gets a proxy in front that ends it; what the servers say to each other is then
            plain.
        mutual_tls: Demand a client certificate too; implies `tls`.
        proxies: Put a `Proxy` in front of every data server, for faults on the wire.
        links: Put a relay between any two servers, for the faults of `Lab.links`; from 7.0 on.
        password: The data servers' password.
        sentinel_password: The Sentinels' own.
        server: The executable; None looks at AGENTS_REDIS_HA_SERVER, on PATH, then for an
            installed wheel (see `find_server`).
        config: More directives for the data servers' redis.conf; a list repeats one. They win over
            the lab's.
        persist: Keep an append-only file, so that a server that is killed comes back with its data.
        down_after_ms: Milliseconds without an answer until a Sentinel calls a server down; at least
            2500 before 7.0.
        node_timeout_ms: The same for the members of a cluster.

    Raises:
        LabError: There is no suitable server, `trustme` is missing, or a server does not start;
        nothing is left running.
    """
    if topology not in _LABS:
        raise LabError(f"there is no topology {topology!r}; choose one of {', '.join(_LABS)}")
    options = {
        "server": find_server(server),
        "mutual_tls": mutual_tls,
        "proxies": proxies,
        "links": links,
        "persist": persist,
        "down_after_ms": down_after_ms,
        "node_timeout_ms": node_timeout_ms,
        "password": password,
        "sentinel_password": sentinel_password,
        "config": dict(config or {}),
    }
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(PortTakenError):
            return _start_once(topology, with_tls=tls or mutual_tls, options=options)
    return _start_once(topology, with_tls=tls or mutual_tls, options=options)


def _start_once(topology: Topology, *, with_tls: bool, options: Mapping[str, Any]) -> Lab:
    """Start the lab with new ports and a new directory, or leave nothing behind."""
    with contextlib.ExitStack() as undo:
        directory = tempfile.TemporaryDirectory(prefix="agents-redis-ha-lab-", ignore_cleanup_errors=True)
        undo.callback(directory.cleanup)
        issuer = Issuer(Path(directory.name)) if with_tls else None
        certificates = issuer.issue() if issuer else None
        settings = Settings(directory=directory, certificates=certificates, issuer=issuer, **options)
        lab = _LABS[topology](settings)
        undo.callback(lab.close)
        lab.start_servers()
        undo.pop_all()
        return lab
