"""What observers see: every span, attribute, event and metric; the only importer of OpenTelemetry.

With the API alone, or with no SDK set up, an operation pays for one span that records nothing and one call per metric.
"""

from .instruments import counters, note_corrupt, note_failovers, watch_pools
from .observation import FailedAttempt, Observation, hashed

__all__ = ["FailedAttempt", "Observation", "counters", "hashed", "note_corrupt", "note_failovers", "watch_pools"]
