"""Spans, metrics and their names: everything that is observed. The only importer of OpenTelemetry.

Where no OpenTelemetry SDK is set up, an operation pays for one span that records nothing and one call for each metric.
"""

from .instruments import PoolUse, counters, note_corrupt, note_failovers, watch_pools
from .operation_span import FailedAttempt, OperationSpan, hash_session_id
from .turn_span import TurnEnd, TurnSpan

__all__ = [
    "FailedAttempt",
    "OperationSpan",
    "PoolUse",
    "TurnEnd",
    "TurnSpan",
    "counters",
    "hash_session_id",
    "note_corrupt",
    "note_failovers",
    "watch_pools",
]
