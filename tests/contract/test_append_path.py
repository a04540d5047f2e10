"""The way of one append down to the socket: which frames of the library are open when its bytes leave.

`pytest tests/contract/test_append_path.py -rP` prints it.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FrameType

import pytest
from redis.asyncio.connection import AbstractConnection

import agents_redis_ha
from agents_redis_ha import ha_session, lab

MOST_FRAMES = 10
PACKAGE = Path(inspect.getfile(agents_redis_ha)).parent
# From the user's call to the socket; a frame may lead on within its room, and never back up.
DOWNWARDS = ["_sessions", "_recovery", "_retry", "_connections"]
# Within the connections: the locator of the topology, the failover monitor, the node, the wire.
DEEPER = ["standalone", "sentinel", "cluster", "failover_monitor", "node", "wire"]


def frames_of(frame: FrameType | None) -> list[str]:
    """Return the library's open frames, the outermost first, each ``room/module:function``."""
    found = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            found.append(f"{path.relative_to(PACKAGE).with_suffix('')}:{frame.f_code.co_name}")
        frame = frame.f_back
    return found[::-1]


def depth(frame: str) -> tuple[int, int]:
    room, _, module = frame.partition(":")[0].partition("/")
    return DOWNWARDS.index(room), DEEPER.index(module) if room == "_connections" else 0


async def test_an_append_goes_straight_down(servers: lab.Lab, session_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ha_session(servers.config(), session_id)
    await session.add_items([{"role": "user", "content": "connect, learn the script"}])
    paths: list[list[str]] = []
    send = AbstractConnection.send_packed_command

    async def record(self: AbstractConnection, command: bytes, check_health: bool = True) -> None:
        if b"EVALSHA" in command and session_id.encode() in command:  # others may be looked at in the background
            paths.append(frames_of(sys._getframe()))
        await send(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", record)
    await session.add_items([{"role": "user", "content": "hello"}])
    (path,) = paths
    print("\n".join(f"{number:2} {frame}" for number, frame in enumerate(path, 1)))
    assert path[0] == "_sessions/session:add_items"
    assert path[-1] == "_connections/wire:send"
    assert len(path) <= MOST_FRAMES
    assert path == sorted(path, key=depth), "a frame leads back up"
    assert len(set(path)) == len(path)
