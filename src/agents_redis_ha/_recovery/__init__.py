"""Lost writes, noticed and replayed: what this process knows of its sessions, and how it puts that back."""

from .coordinator import RecoveryCoordinator
from .journal import Journal

__all__ = ["Journal", "RecoveryCoordinator"]
