"""What observers see: every span, attribute, event and metric; the only importer of OpenTelemetry.

With the API alone, or with no SDK set up, an operation pays for one span that records nothing and one call per metric.
"""

from .instruments import PoolUse, counters, note_corrupt, note_failovers, watch_pools
from .operation_span import FailedAttempt, OperationSpan, hash_session_id

__all__ = [
    "FailedAttempt",
    "OperationSpan",
    "PoolUse",
    "counters",
    "hash_session_id",
    "note_corrupt",
    "note_failovers",
    "watch_pools",
]
