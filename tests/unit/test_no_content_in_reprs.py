"""What a debugger, a log line or a crash report prints of the core's values holds no item, no session id, no key."""

from __future__ import annotations

from typing import Any

import pytest

from agents_redis_ha import HAConfig
from agents_redis_ha._commands import (
    ListEdit,
    LogEntry,
    LogPosition,
    ReplicationHistory,
    Reply,
    SessionSpec,
    append,
    clear,
    inspect,
    pop,
    read,
    replace,
)
from agents_redis_ha._recovery.replay import Plan
from agents_redis_ha._recovery.session_log import SessionLog, Snapshot
from agents_redis_ha._storage import session_keys

SECRET = "s3cr3t"
CONTENT = b'{"role":"user","content":"s3cr3t"}'
SPEC = SessionSpec.of(HAConfig.from_url("redis://localhost"), f"id-{SECRET}")
ENTRY = LogEntry(1, b"sixteen-bytes-id", b"0123456789ab", ListEdit(push=(CONTENT,)), CONTENT)
SNAPSHOT = Snapshot(1, b"0123456789ab", 0, 1, 1, CONTENT, b",1,")
VALUES: dict[str, Any] = {
    "spec": SPEC,
    "append": append(SPEC, [CONTENT]),
    "replace": replace(SPEC, [CONTENT]),
    "pop": pop(SPEC),
    "clear": clear(SPEC),
    "read": read(SPEC, 0),
    "inspect": inspect(SPEC, {"1:entry": CONTENT}),
    "reply": Reply([CONTENT], [CONTENT], ReplicationHistory("h:1", "id"), LogPosition(1, b"")),
    "entry": ENTRY,
    "snapshot": SNAPSHOT,
    "log": SessionLog(SPEC, whole=SNAPSHOT, entries={1: ENTRY}),
    "plan": Plan(LogPosition(1, b""), 0, (0, 0), (CONTENT,), results={1: CONTENT}),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_shows_no_content(value: Any) -> None:
    assert SECRET not in repr(value)


def test_the_content_would_be_found() -> None:
    assert SECRET in repr(session_keys("p", f"id-{SECRET}"))
    assert SECRET in repr(CONTENT)
