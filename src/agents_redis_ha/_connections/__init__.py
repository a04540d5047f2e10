"""Where to send: the connection factory, the nodes and the three topologies, which no other room knows."""

from __future__ import annotations

from .._config import HAConfig
from .cluster import ClusterLocator
from .factory import Client, create_client
from .failures import AttemptError, ShortfallError, chained, classify
from .health import Health, PrimaryHealth, ReplicaHealth, check_health
from .locator import Locator
from .request import Request
from .sentinel import SentinelLocator
from .standalone import StandaloneLocator
from .user_client import adopt, check_client, check_settings, placeholder

__all__ = [
    "AttemptError",
    "Client",
    "Health",
    "Locator",
    "PrimaryHealth",
    "ReplicaHealth",
    "Request",
    "ShortfallError",
    "adopt",
    "chained",
    "check_client",
    "check_health",
    "check_settings",
    "classify",
    "create_client",
    "create_locator",
    "placeholder",
]


def create_locator(config: HAConfig) -> Locator:
    """Return the locator for a configuration's topology. It does no I/O before its first attempt."""
    if config.topology == "sentinel":
        return SentinelLocator(config)
    if config.topology == "cluster":
        return ClusterLocator(config)
    return StandaloneLocator(config)
