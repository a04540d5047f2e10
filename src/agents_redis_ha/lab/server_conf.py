"""The configuration files of the servers."""

from __future__ import annotations

from collections.abc import Iterator

from .node import Node
from .ports import BUS_OFFSET, HOST
from .settings import Directives, Settings

SERVICE = "mymaster"
QUORUM = 2
FAILOVER_TIMEOUT_MS = 3_000


def data_directives(settings: Settings, node: Node) -> list[str]:
    """Return the directives of a data server; the caller's own come last, so that they win."""
    return [
        *_common(settings, node, settings.password),
        'save ""',
        f"appendonly {_yes(settings.persist)}",
        "appendfsync everysec",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "repl-ping-replica-period 1",
        *([f"masterauth {_quoted(settings.password)}"] if settings.password else []),
        *_announcing(node, "replica-announce"),
        *_lines(settings.config),
    ]


def cluster_directives(settings: Settings, node: Node) -> list[str]:
    """Return the directives of a member of a cluster."""
    return [
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-announce-ip {HOST}",
        f"cluster-node-timeout {settings.node_timeout_ms}",
        "cluster-replica-validity-factor 0",
        "cluster-migration-barrier 99",  # a replica stays with its shard
        *(["tls-cluster yes"] if settings.native_certificates else []),
        *_lines(address_directives(settings, node, with_bus=True)),
        *data_directives(settings, node),
    ]


def address_directives(settings: Settings, node: Node, *, with_bus: bool) -> dict[str, str]:
    """Return the directives of a data server that change when its address does."""
    kind = "tls-port" if settings.native_certificates else "port"
    directives = {kind: str(node.port)}
    if node.source:
        directives["replica-announce-port"] = str(node.announced_port)
        if with_bus:
            directives[f"cluster-announce-{kind}"] = str(node.announced_port)
            directives["cluster-announce-bus-port"] = str(node.announced_port + BUS_OFFSET)
    return directives


def sentinel_directives(settings: Settings, node: Node, primary: Node) -> list[str]:
    """Return the directives of a Sentinel, without what it is told about its peers."""
    lines = [
        *_common(settings, node, settings.sentinel_password),
        *_announcing(node, "sentinel announce"),
        f"sentinel monitor {SERVICE} {HOST} {primary.announced_port} {QUORUM}",
        f"sentinel down-after-milliseconds {SERVICE} {_down_after_ms(settings)}",
        f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}",
        f"sentinel parallel-syncs {SERVICE} 2",
    ]
    if settings.password:
        lines.append(f"sentinel auth-pass {SERVICE} {_quoted(settings.password)}")
    if settings.sentinel_password:
        lines.append(f"sentinel sentinel-pass {_quoted(settings.sentinel_password)}")
    return lines


def _down_after_ms(settings: Settings) -> int:
    # Before 7.0 a Sentinel reconnects once a second and cannot be told otherwise. A promotion
    # closes its connections, so with less than this it would take the new primary for down, and
    # fail over again.
    return settings.down_after_ms if settings.server.version >= (7, 0, 0) else max(settings.down_after_ms, 2_500)


def _common(settings: Settings, node: Node, password: str | None) -> Iterator[str]:
    yield f"bind {HOST}"
    if node.source:
        yield f"bind-source-addr {node.source}"
    yield "daemonize no"
    yield 'logfile ""'
    certificates = settings.native_certificates
    yield f"port {0 if certificates else node.port}"
    if certificates:
        yield f"tls-port {node.port}"
        yield f"tls-ca-cert-file {_quoted(certificates.server_ca_file)}"
        yield f"tls-cert-file {_quoted(certificates.server_cert_file)}"
        yield f"tls-key-file {_quoted(certificates.server_key_file)}"
        yield f"tls-auth-clients {'yes' if settings.mutual_tls else 'optional'}"
        yield "tls-replication yes"  # of a Sentinel: how it dials the servers
    if password:
        yield f"requirepass {_quoted(password)}"


def _announcing(node: Node, prefix: str) -> Iterator[str]:
    if node.announced_port != node.port:
        yield f"{prefix}-ip {HOST}"
        yield f"{prefix}-port {node.announced_port}"


def _lines(config: Directives) -> Iterator[str]:
    for name, value in config.items():
        values = [value] if isinstance(value, (str, int)) else value
        for each in values:
            yield f"{name} {each}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
