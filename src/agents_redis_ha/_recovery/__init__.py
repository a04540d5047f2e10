"""Lost writes, noticed and replayed: what this process knows of its sessions, and how it puts that back."""

from .busy import OWN_TURNS
from .coordinator import RecoveryCoordinator
from .journal import Journal
from .session_operations import CoordinatorSource, SessionOperations

__all__ = ["OWN_TURNS", "CoordinatorSource", "Journal", "RecoveryCoordinator", "SessionOperations"]
