"""What can be configured, and from which text. No I/O happens here."""

from .model import HAConfig, Topology
from .parts import Address, DurabilityConfig, PoolConfig, RepairConfig, RetryConfig, SentinelConfig, TLSConfig

__all__ = [
    "Address",
    "DurabilityConfig",
    "HAConfig",
    "PoolConfig",
    "RepairConfig",
    "RetryConfig",
    "SentinelConfig",
    "TLSConfig",
    "Topology",
]
