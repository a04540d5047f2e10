"""What can be done to a session: each command a value and one script, with what it answers."""

from .change import NO_POSITION, Change, ListEdit, LogEntry, LogPosition, Positioned, ReplicationHistory, Status
from .command import REPLICATION_INFO, Argument, Command, Confirmation, Reply, Script, SessionSpec, load_script
from .commands import (
    Description,
    Reading,
    ServerState,
    append,
    clear,
    info,
    inspect,
    new_operation_id,
    pop,
    read,
    replace,
    restore,
)

__all__ = [
    "NO_POSITION",
    "REPLICATION_INFO",
    "Argument",
    "Change",
    "Command",
    "Confirmation",
    "Description",
    "ListEdit",
    "LogEntry",
    "LogPosition",
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
