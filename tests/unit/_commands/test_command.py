"""A command is a value: what it writes, how it is confirmed, and which session it is for."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from agents_redis_ha import ConfigurationError, HAConfig, session_keys
from agents_redis_ha._commands import (
    NO_POSITION,
    REPLICATION_INFO,
    Command,
    Confirmation,
    EarlierAttempts,
    LogPosition,
    SessionSpec,
    load_script,
)
from tests.support.fakes import reply

KEYS = session_keys("p", "u")
SPEC = SessionSpec(KEYS, "u")
POSITION = LogPosition(4, b"digest")
NONE_BEFORE = EarlierAttempts()
TWO_REPLICAS = Confirmation(2, False, 500)


def command(**fields: Any) -> Command[Any]:
    return Command("append", load_script("append"), SPEC, (b"item",), ("head",), **fields)


@pytest.mark.parametrize(
    ("confirmation", "command"),
    [
        (Confirmation(2, False, 500), ("WAIT", 2, 500)),
        (Confirmation(0, True, 1000), ("WAITAOF", 1, 0, 1000)),
        (Confirmation(3, True, 1), ("WAITAOF", 1, 3, 1)),
    ],
)
def test_a_confirmation_is_one_command(confirmation: Confirmation, command: tuple[Any, ...]) -> None:
    assert confirmation.command == command


@pytest.mark.parametrize(
    ("confirmation", "answer", "text"),
    [
        (TWO_REPLICAS, 2, ""),
        (TWO_REPLICAS, 3, ""),
        (TWO_REPLICAS, 1, "within 500 ms the change was in memory on 1 of 2 replicas"),
        (TWO_REPLICAS, 0, "within 500 ms the change was in memory on 0 of 2 replicas"),
        (Confirmation(0, True, 9), [1, 0], ""),
        (Confirmation(0, True, 9), [0, 0], "within 9 ms the change was not on the primary's disk"),
        (Confirmation(2, True, 9), [1, 2], ""),
        (Confirmation(2, True, 9), [1, 1], "within 9 ms the change was on disk on 1 of 2 replicas"),
        (
            Confirmation(2, True, 9),
            [0, 0],
            "within 9 ms the change was not on the primary's disk, on disk on 0 of 2 replicas",
        ),
    ],
)
def test_a_shortfall_says_what_is_missing(confirmation: Confirmation, answer: Any, text: str) -> None:
    assert confirmation.shortfall(answer) == text


@pytest.mark.parametrize(
    ("durability", "confirmation"),
    [
        ("primary", None),
        ("replicas=2", Confirmation(2, False, 1000)),
        ("fsync", Confirmation(0, True, 2500)),
        ({"replicas": 1, "fsync": True, "timeout_seconds": 0.25}, Confirmation(1, True, 250)),
        ({"replicas": 1, "timeout_seconds": 0.001}, Confirmation(1, False, 1)),
        # WAIT with a timeout of 0 would wait for ever.
        ({"replicas": 1, "timeout_seconds": 0.0014}, Confirmation(1, False, 1)),
    ],
)
def test_a_confirmation_is_what_the_durability_asks_for(durability: Any, confirmation: Confirmation | None) -> None:
    assert Confirmation.of(HAConfig(nodes=["h"], durability=durability).durability) == confirmation


def test_every_change_sends_its_id_retention_ttl_and_session_first() -> None:
    assert SessionSpec(KEYS, "u", ttl_ms=5000).head(b"id") == (b"id", 120_000, 5000, b"u")


def test_an_id_with_a_lone_surrogate_is_sent_as_its_own_bytes() -> None:
    assert SessionSpec.of(HAConfig(nodes=["h"]), "\ud800").head(b"id")[3] == b"\xed\xa0\x80"


def test_a_spec_is_what_the_configuration_says_of_a_session() -> None:
    config = HAConfig(
        nodes=["h"], key_prefix="p", ttl=60, op_retention_seconds=300, durability="replicas=1", trace_session_id="off"
    )
    assert SessionSpec.of(config, "u") == SessionSpec(KEYS, "u", "off", 60_000, 300_000, Confirmation(1, False, 1000))
    assert SessionSpec.of(HAConfig(nodes=["h"], key_prefix="p"), "u") == SPEC


def test_an_id_that_cannot_be_used_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        SessionSpec.of(HAConfig(nodes=["h"]), 5)  # type: ignore[arg-type]


def test_a_script_stands_behind_the_prelude_and_is_read_once() -> None:
    script = load_script("append")
    assert script is load_script("append")
    assert script.source.startswith(b"-- Prefixed to every script")
    assert b"-- Adds items to the end" in script.source
    assert script.sha == hashlib.sha1(script.source, usedforsecurity=False).hexdigest().encode()


def test_a_command_on_the_wire_is_the_script_with_its_keys_head_position_and_arguments() -> None:
    (written,) = command().on_wire(POSITION, NONE_BEFORE, key_count=3)
    sha = load_script("append").sha
    assert written == ("EVALSHA", sha, 3, KEYS.items, KEYS.meta, KEYS.ops, "head", 4, b"digest", 4, b"", b"item")


@pytest.mark.parametrize(
    ("earlier", "told"),
    [
        (EarlierAttempts(), (4, b"")),  # none: this one makes a version above the one that is known
        (EarlierAttempts(LogPosition(2, b"two")), (2, b"")),
        (EarlierAttempts(LogPosition(2, b"two"), True), (2, b"!two")),
        (EarlierAttempts(LogPosition(4, b"other"), True), (4, b"!other")),  # the first one knew another history
        (EarlierAttempts(LogPosition(9, b"nine")), (4, b"")),  # what is known was forgotten meanwhile
        (EarlierAttempts(LogPosition(9, b"nine"), True), (0, b"!")),  # the elements may be from before that
        (EarlierAttempts(NO_POSITION, True), (0, b"!")),
    ],
)
def test_a_change_tells_since_which_version_it_may_have_been_made_and_whether_it_may(
    earlier: EarlierAttempts, told: tuple[int, bytes]
) -> None:
    (written,) = command().on_wire(POSITION, earlier, key_count=3)
    assert written[9:11] == told


def test_what_changes_nothing_tells_nothing_of_earlier_attempts() -> None:
    read = dataclasses.replace(command(), head=())
    (written,) = read.on_wire(POSITION, EarlierAttempts(POSITION, True), key_count=3)
    assert written[6:] == (4, b"digest", b"item")


def test_no_attempt_was_made_before_a_first_one_at_any_version() -> None:
    # Beyond 2**53, Lua would not tell two versions apart.
    assert (NONE_BEFORE.since.version, NONE_BEFORE.may_be_applied) == (2**53, False)


@pytest.mark.parametrize("key_count", [1, 2, 3])
def test_so_many_keys_are_declared_as_are_asked_for(key_count: int) -> None:
    (written,) = command().on_wire(NO_POSITION, NONE_BEFORE, key_count=key_count)
    assert written[2 : 3 + key_count] == (key_count, *(KEYS.items, KEYS.meta, KEYS.ops)[:key_count])
    assert written[3 + key_count :] == ("head", 0, b"", 0, b"", b"item")


def test_a_node_that_does_not_know_the_script_can_be_sent_its_source() -> None:
    (by_sha,), (by_source,) = (
        command().on_wire(POSITION, NONE_BEFORE, key_count=3, with_source=each) for each in (False, True)
    )
    assert (by_source[:2], by_source[2:]) == (("EVAL", load_script("append").source), by_sha[2:])


def test_what_trails_a_command_comes_behind_it_and_the_confirmation_last() -> None:
    trailing = (REPLICATION_INFO, ("LLEN", KEYS.items))
    written = command(trailing=trailing, confirmation=TWO_REPLICAS).on_wire(POSITION, NONE_BEFORE, key_count=3)
    assert written[1:] == [*trailing, ("WAIT", 2, 500)]
    assert len(command(trailing=trailing).on_wire(POSITION, NONE_BEFORE, key_count=3)) == 3


def test_a_command_is_equal_by_its_values() -> None:
    assert command() == command()
    assert command() != command(batch_size=1)


def test_each_kind_of_command_says_itself_how_its_reply_is_read() -> None:
    with pytest.raises(NotImplementedError):
        command().decode(reply([1]))
