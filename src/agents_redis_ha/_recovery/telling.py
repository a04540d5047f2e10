"""What the user of an operation is told of the history: once, and before anything more is done."""

from __future__ import annotations

from .._commands import Change, LogPosition, Status
from .._retry import Operation
from ..errors import HistoryLostError, Outcome, OutcomeLostError, lost_in_words
from .session_log import SessionLog

__all__ = ["Known", "check_told"]


class Known:
    """The position that an operation sends along with each attempt, once its user has been told of what is lost.

    Another task may find that, and go on from what the server has, while the operation waits between two attempts.
    """

    __slots__ = ("_log", "_operation", "_tells")

    def __init__(self, log: SessionLog, operation: Operation, *, tells: bool = True) -> None:
        """Take a log's position for an operation.

        Args:
            log: What is known of the session.
            operation: The operation; its options say whether its user wants an error.
            tells: Whether the user can be told: not the one of an operation that was cancelled.
        """
        self._log, self._operation, self._tells = log, operation, tells

    @property
    def position(self) -> LogPosition:
        """The log's position.

        Raises:
            HistoryLostError: Something was lost; no further attempt is made.
        """
        if self._log.lost:
            self.tell()
        return self._log.position

    def tell(self) -> None:
        """Tell the user of what is lost, once: by an operation of a client that wants an error.

        Raises:
            HistoryLostError: Something was.
        """
        log, operation = self._log, self._operation
        if self._tells and log.lost and operation.options.repair.on_loss == "raise":
            versions, log.lost = log.lost, ()
            raise operation.error(HistoryLostError, lost_in_words(versions), versions=versions)


def check_told(operation: Operation, change: object) -> None:
    """Raise the error for an outcome that the server has evicted."""
    if not isinstance(change, Change):
        return
    if change.status is Status.UNTOLD:
        reason = "the server evicted the ids of recent changes, so an earlier attempt may have been applied"
        raise operation.error(OutcomeLostError, reason, outcome=Outcome.UNKNOWN)
    if change.result_lost:
        reason = "the server has lost what the change returned: it was evicted, or dropped by a failover"
        raise operation.error(OutcomeLostError, reason, outcome=Outcome.APPLIED)
