"""No two sessions share a key, and all keys of one share a slot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from agents_redis_ha import ConfigurationError, ha_session
from agents_redis_ha._storage.keys import SessionKeys, acl_rule, session_keys

# Any text, lone surrogates included, with the characters that have a meaning in a key more often.
ids = st.one_of(st.text(), st.text(st.sampled_from("{}%:25ab7BD\ud800\udc00\x00")))
prefixes = st.text().filter(lambda text: "{" not in text and "}" not in text)


def of(keys: SessionKeys) -> tuple[bytes, bytes, bytes]:
    return keys.items, keys.meta, keys.ops


@given(ids, ids, prefixes)
@example("", "%", "p")
@example("a}b", "a%7Db", "p")
@example("%7B", "{", "p")
@example("%25", "%", "p")
@example("u", "u:items", "p")
@example("\ud800", "\udc00", "p")
@example("\ud800", "?", "p")
@example("u}:items", "u", "p")
@example("\ud83d\ude00", "😀", "p")
def test_two_different_ids_never_share_a_key(one: str, other: str, prefix: str) -> None:
    shared = set(of(session_keys(prefix, one))) & set(of(session_keys(prefix, other)))
    assert bool(shared) is (one == other)


@given(ids, prefixes, prefixes)
def test_one_id_under_two_prefixes_never_shares_a_key(id_: str, one: str, other: str) -> None:
    shared = set(of(session_keys(one, id_))) & set(of(session_keys(other, id_)))
    assert bool(shared) is (one == other)


@given(ids, prefixes)
def test_all_keys_of_a_session_are_three_and_in_the_slot_that_it_names(id_: str, prefix: str) -> None:
    keys = session_keys(prefix, id_)
    assert len(set(of(keys))) == 3
    assert {key_slot(key) for key in of(keys)} == {keys.slot}
    assert 0 <= keys.slot < 16384


@given(ids)
def test_the_slot_does_not_depend_on_the_prefix(id_: str) -> None:
    assert session_keys("a", id_).slot == session_keys("b:c", id_).slot


def test_sessions_spread_over_the_slots() -> None:
    assert len({session_keys("p", f"user-{n}").slot for n in range(1000)}) > 900


def test_keys_read_as_the_documentation_says() -> None:
    keys = session_keys("agents:ha", "user-123")
    assert of(keys) == (b"agents:ha:{user-123}:items", b"agents:ha:{user-123}:meta", b"agents:ha:{user-123}:ops")
    assert session_keys("p", "a{b}c%").items == b"p:{a%7Bb%7Dc%25}:items"
    assert session_keys("p", "ü").items == "p:{ü}:items".encode()


def test_the_scripts_derive_the_other_keys_from_the_first() -> None:
    keys = session_keys("p", "u")  # prelude.lua: string.sub(items, 1, -6) .. 'meta'
    base = keys.items[: -len("items")]
    assert (base + b"meta", base + b"ops") == (keys.meta, keys.ops)


@pytest.mark.parametrize("prefix", ["{", "}", "a{b}c", "{}"])
def test_a_prefix_with_braces_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        session_keys(prefix, "u")
    assert caught.value.field == "key_prefix"


@pytest.mark.parametrize("id_", [None, 5, b"u", ["u"]])
def test_an_id_that_is_no_text_is_refused(id_: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        session_keys("p", id_)
    assert caught.value.field == "session_id"


def test_a_session_refuses_such_an_id_before_any_io() -> None:
    with pytest.raises(ConfigurationError):
        ha_session("redis://nowhere.invalid", 5)  # type: ignore[arg-type]


def test_the_acl_rule_covers_just_the_prefix() -> None:
    rule = acl_rule("my:app")
    assert rule[:2] == ("~my:app:*", "-@all")
    assert all(part.startswith("+") and "@" not in part for part in rule[2:])
    assert len(set(rule)) == len(rule)


@pytest.mark.parametrize(("prefix", "pattern"), [("a*", "~a\\*:*"), ("app[1]", "~app\\[1\\]:*"), ("a?", "~a\\?:*")])
def test_an_acl_rule_escapes_what_a_pattern_would_read_otherwise(prefix: str, pattern: str) -> None:
    assert acl_rule(prefix)[0] == pattern
