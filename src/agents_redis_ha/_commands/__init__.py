"""What can be done to a session: each command a value and one script, with what it answers."""

from .change import (
    KEEP_ALL,
    NO_POSITION,
    OPERATION_ID_BYTES,
    Change,
    ListEdit,
    LogEntry,
    LogPosition,
    Positioned,
    ReplicationHistory,
    Status,
)
from .command import REPLICATION_INFO, Argument, Command, Confirmation, Reply, Script, SessionSpec, load_script
from .commands import ChangeCommand, append, clear, info, inspect, new_operation_id, pop, read, replace, restore
from .state import Description, Member, Reading, ServerState

__all__ = [
    "KEEP_ALL",
    "NO_POSITION",
    "OPERATION_ID_BYTES",
    "REPLICATION_INFO",
    "Argument",
    "Change",
    "ChangeCommand",
    "Command",
    "Confirmation",
    "Description",
    "ListEdit",
    "LogEntry",
    "LogPosition",
    "Member",
    "Positioned",
    "Reading",
    "ReplicationHistory",
    "Reply",
    "Script",
    "ServerState",
    "SessionSpec",
    "Status",
    "append",
    "clear",
    "info",
    "inspect",
    "load_script",
    "new_operation_id",
    "pop",
    "read",
    "replace",
    "restore",
]
