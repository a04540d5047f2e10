"""The cluster bus: what the members of a cluster tell each other, elections, and the slots."""

from .forming import form
from .member import Member

__all__ = ["Member", "form"]
