"""Each part of a configuration says what it takes, names the field that it does not, and never shows a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agents_redis_ha import (
    Address,
    ConfigurationError,
    DurabilityConfig,
    PoolConfig,
    RepairConfig,
    RetryConfig,
    SentinelConfig,
    TLSConfig,
)
from agents_redis_ha._config.parts import to_address

SECRET = "s3cr3t-passw0rd"
PARTS = [TLSConfig, PoolConfig, RetryConfig, DurabilityConfig, RepairConfig, SentinelConfig]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h", ("h", 6379)),
        ("h:1", ("h", 1)),
        (" h:65535 ", ("h", 65535)),
        ("h:", ("h", 6379)),
        ("10.0.0.1:7", ("10.0.0.1", 7)),
        ("[::1]", ("::1", 6379)),
        ("[fe80::1]:7", ("fe80::1", 7)),
    ],
)
def test_an_address_is_read_from_its_text_and_written_so_that_it_can_be_read(text: str, address: Any) -> None:
    parsed = Address.parse(text)
    assert parsed == address
    assert Address.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", ":1", "h:0", "h:65536", "h:x", "h:-1", "h:1_0", "::1", "[::1", "[::1]1", "[]:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|port|IPv6"):
        Address.parse(text)


def test_an_address_has_the_default_port_that_it_is_given() -> None:
    assert Address.parse("h", 26379) == ("h", 26379)
    assert Address.parse("h:7", 26379) == ("h", 7)


@pytest.mark.parametrize("value", ["h:1", ("h", 1), ["h", 1], Address("h", 1)])
def test_an_address_is_taken_as_a_text_or_a_pair(value: Any) -> None:
    assert to_address(value) == Address("h", 1)


@pytest.mark.parametrize("value", [None, 5, ("h",), ("h", 1, 2), ("h", 0), {"h": 1}, object()])
def test_another_value_is_no_address(value: Any) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        to_address(value)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("key_file", {"key_file": "k"}),
        ("key_password", {"key_password": "k"}),
        ("check_hostname", {"verify": False}),
        ("min_version", {"min_version": "1.1"}),
    ],
)
def test_tls_settings_that_cannot_work_name_their_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSConfig(**values)
    assert caught.value.field == field


def test_backoffs_that_cannot_work_name_their_field() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryConfig(initial_backoff_seconds=2, max_backoff_seconds=1)
    assert caught.value.field == "initial_backoff_seconds"


@pytest.mark.parametrize("model", [PoolConfig, RetryConfig, SentinelConfig])
def test_times_and_sizes_are_above_zero(model: Any) -> None:
    numbers = [name for name, field in model.model_fields.items() if field.annotation in (int, float)]
    assert numbers
    for name in numbers:
        for value in (0, -1, float("nan")):
            with pytest.raises(ConfigurationError) as caught:
                model(**{name: value})
            assert caught.value.field == name


def test_paths_are_taken_as_paths() -> None:
    assert TLSConfig(ca_file=Path("/x/ca.pem")).ca_file == str(Path("/x/ca.pem"))


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (RepairConfig, {"max_changes": -1}),
        (RepairConfig, {"max_bytes": -1}),
        (RepairConfig, {"patience_seconds": -0.1}),
        (RepairConfig, {"on_loss": "ignore"}),
        (RepairConfig, {"on_divergence": "merge"}),
        (DurabilityConfig, {"replicas": -1}),
        (DurabilityConfig, {"timeout_seconds": 0.0009}),
        (DurabilityConfig, {"on_shortfall": "ignore"}),
    ],
)
def test_a_value_out_of_range_names_its_field(model: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        model(**fields)
    assert caught.value.field == next(iter(fields))


def test_a_part_of_nothing_is_allowed_where_it_switches_something_off() -> None:
    assert RepairConfig(max_changes=0, max_bytes=0, patience_seconds=0).max_changes == 0
    assert DurabilityConfig(replicas=0, timeout_seconds=0.001).timeout_seconds == 0.001


@pytest.mark.parametrize("model", PARTS)
def test_an_unknown_field_is_refused_by_its_name(model: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        model(nonsense=SECRET)
    assert (caught.value.field, caught.value.reason) == ("nonsense", "there is no such field")
    assert SECRET not in f"{caught.value!r} {caught.value.__context__}"


@pytest.mark.parametrize("model", PARTS)
def test_a_part_is_a_frozen_value(model: Any) -> None:
    assert (model(), hash(model())) == (model(), hash(model()))
    for name in model.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model(), name, getattr(model(), name))


def test_a_copy_is_validated_as_a_whole_and_keeps_what_was_not_given_open() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryConfig(max_backoff_seconds=1).replace(initial_backoff_seconds=2)
    assert caught.value.field == "initial_backoff_seconds"
    # What was left to its default still follows the other fields.
    assert DurabilityConfig(replicas=1).replace(fsync=True).timeout_seconds == 2.5
    assert DurabilityConfig(timeout_seconds=1.0).replace(fsync=True).timeout_seconds == 1.0


def test_a_secret_is_shown_by_no_part() -> None:
    parts = [TLSConfig(cert_file="c.pem", key_password=SECRET), SentinelConfig(password=SECRET)]
    assert SECRET not in f"{parts} {[str(part) for part in parts]} {[part.model_dump_json() for part in parts]}"
    assert parts[0] != TLSConfig(cert_file="c.pem", key_password="another")
