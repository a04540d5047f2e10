"""What can be configured, and from which text. No I/O happens here."""

from .model import ClientOptions, HAConfig, Topology
from .parts import Address, DurabilityConfig, PoolConfig, RepairConfig, RetryConfig, SentinelConfig, TLSConfig

__all__ = [
    "Address",
    "ClientOptions",
    "DurabilityConfig",
    "HAConfig",
    "PoolConfig",
    "RepairConfig",
    "RetryConfig",
    "SentinelConfig",
    "TLSConfig",
    "Topology",
]
