"""What all operations of one session object have in common: a span, retries, and the end of a change."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, TypeVar

from .._asyncio import run_shielded
from .._commands import (
    Change,
    ChangeCommand,
    Command,
    Description,
    Reading,
    SessionSpec,
    Status,
    SuspendedTurns,
    TurnReply,
)
from .._config import HAConfig, Topology
from .._telemetry import OperationSpan
from ..errors import ClosedError
from .coordinator import RecoveryCoordinator

__all__ = ["CoordinatorSource", "SessionOperations"]

CoordinatorSource: TypeAlias = Callable[[], RecoveryCoordinator]
"""Returns the coordinator to use in the running event loop."""

_Result = TypeVar("_Result", Change, Reading, Description, TurnReply, SuspendedTurns)


class SessionOperations:
    """Executes the commands of one session object.

    Attributes:
        spec: The session.
        config: Its configuration.
        closed: Whether the session object was closed.
        is_of_subclass: Whether it is of a subclass, whose own methods must not be bypassed.
    """

    def __init__(
        self, config: HAConfig, session_id: str, source: CoordinatorSource, *, is_of_subclass: bool = False
    ) -> None:
        """Make it without I/O.

        Args:
            config: The session's configuration.
            session_id: Its id.
            source: Where the connections are.
            is_of_subclass: Whether the session object is of a subclass.

        Raises:
            ConfigurationError: The id cannot be used.
        """
        self.spec = SessionSpec.of(config, session_id)
        self.config = config
        self.closed = False
        self.is_of_subclass = is_of_subclass
        self._options = config.client_options()
        self._source = source

    def of_turn(self) -> SessionOperations:
        """Return the same for a turn, which ends although the session object is closed in its block."""
        return copy.copy(self)

    @property
    def topology(self) -> Topology:
        """The topology's name."""
        return self._source().executor.locator.topology

    def check_open(self) -> None:
        """Raise ClosedError if the session object was closed."""
        if self.closed:
            raise ClosedError("the session was closed")

    async def execute(self, command: Command[_Result], *, again: bool = False, report_loss: bool = True) -> _Result:
        """Execute a command under a span, with retries; a change to its end, also when the caller is cancelled.

        A cancelled change is sent again under the same id, by a task that is not cancelled, also if
        the session was closed meanwhile. Only then is a task of its own paid for.

        Args:
            command: What to do.
            again: Whether it is a cancelled change.
            report_loss: Whether the user sees its error. If not, what is lost is left to be said by the next operation.
        """
        if not again:
            self.check_open()
        recovery = self._source()
        executor, spec = recovery.executor, self.spec
        topology = executor.locator.topology
        span = OperationSpan(command.name, topology, spec.session_id, spec.show_id, command.batch_size)
        operation = executor.begin(span, changes=command.changes, options=self._options)
        try:
            result = await recovery.execute(operation, command, report_loss=report_loss and not again)
        except BaseException as error:
            span.finish(error)
            if isinstance(error, asyncio.CancelledError) and isinstance(command, ChangeCommand) and not again:
                await run_shielded(self.execute(replace(command, repeats=True), again=True))
            raise
        if isinstance(result, Change) and result.status is Status.REPEAT:
            span.repeated()
        span.finish()
        return result
