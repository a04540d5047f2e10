"""How a client reaches a lab: as a URL and as an `HAConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from .server_conf import SERVICE
from .settings import Settings, Topology

if TYPE_CHECKING:
    from agents_redis_ha._config import HAConfig


def url_of(settings: Settings, topology: Topology, nodes: Sequence[str]) -> str:
    """Return the URL for `ha_session`, credentials included."""
    scheme = "rediss" if settings.certificates else "redis"
    suffix = "" if topology == "standalone" else f"+{topology}"
    login = f":{quote(settings.password, safe='')}@" if settings.password else ""
    path = f"/{SERVICE}" if topology == "sentinel" else ""
    options = _tls_files(settings)
    if settings.sentinel_password and topology == "sentinel":
        options["sentinel_password"] = settings.sentinel_password
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}{suffix}://{login}{','.join(nodes)}{path}{query}"


def config_of(
    settings: Settings,
    topology: Topology,
    nodes: Sequence[str],
    dialled: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> HAConfig:
    """Return the configuration for `ha_session`.

    Args:
        settings: The lab's.
        topology: Which one.
        nodes: `host:port` of the servers to ask first, as the client dials them.
        dialled: From the `host:port` that a server announces to the one to dial.
        overrides: What takes the place of its own fields.
    """
    from agents_redis_ha._config import HAConfig  # late: the lab also works without the rest

    tls = _tls_files(settings) or None
    fields: dict[str, Any] = {
        "topology": topology,
        "nodes": list(nodes),
        "password": settings.password,
        "tls": tls,
    }
    if topology == "sentinel":
        fields["service_name"] = SERVICE
        fields["sentinel"] = {"password": settings.sentinel_password, "tls": tls}
    elsewhere = {announced: address for announced, address in dialled.items() if announced != address}
    if elsewhere and topology != "standalone":
        fields["address_map"] = elsewhere
    return HAConfig(**{**fields, **overrides})


def _tls_files(settings: Settings) -> dict[str, str]:
    if settings.certificates is None:
        return {}
    files = {"ca_file": settings.certificates.ca_file}
    if settings.mutual_tls:
        files["cert_file"] = settings.certificates.cert_file
        files["key_file"] = settings.certificates.key_file
    return files
