"""The connection factory and the three topologies: the only place that knows one."""

from __future__ import annotations

from ..config import HAConfig
from .adopted import adopt, check_client
from .cluster import ClusterLocator
from .factory import Client, create_client
from .locator import Locator
from .sentinel import SentinelLocator
from .standalone import StandaloneLocator

__all__ = ["Client", "Locator", "adopt", "check_client", "create_client", "create_locator"]


def create_locator(config: HAConfig) -> Locator:
    """Return the locator for a configuration's topology. It does no I/O before its first attempt."""
    if config.topology == "sentinel":
        return SentinelLocator(config)
    if config.topology == "cluster":
        return ClusterLocator(config)
    return StandaloneLocator(config)
