"""`ha_session`: what it takes for a configuration, and what it refuses before any operation."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import redis
from agents.memory import SessionSettings
from redis.asyncio import Redis

from agents_redis_ha import ConfigurationError, HAConfig, RedisHASession, ha_session
from agents_redis_ha._sessions.factory import resolve_config, sdk_settings

URL = "redis://h:7/0?ttl=60"


@pytest.mark.parametrize(
    "given", [URL, HAConfig.from_url(URL), {"nodes": ["h:7"], "ttl": 60}, UserDict({"nodes": ["h:7"], "ttl": 60})]
)
def test_a_configuration_is_taken_as_a_url_a_config_and_a_mapping(given: Any) -> None:
    assert resolve_config(given, None, {}) == HAConfig(nodes=["h:7"], ttl=60)
    assert resolve_config(given, None, {"ttl": 5, "key_prefix": "p"}) == HAConfig(nodes=["h:7"], ttl=5, key_prefix="p")


def test_a_url_is_read_once() -> None:
    assert resolve_config(URL, None, {}) is resolve_config(URL, None, {})


async def test_a_client_is_enough_and_may_come_with_a_configuration() -> None:
    client = Redis()
    assert resolve_config(None, client, {"ttl": 5}).ttl == 5
    assert resolve_config({"nodes": ["h"], "key_prefix": "p"}, client, {}).key_prefix == "p"
    assert isinstance(ha_session(client=client), RedisHASession)


@pytest.mark.parametrize("given", [None, 5, ["redis://h"], b"redis://h"])
def test_another_value_is_no_configuration(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ha_session(given)
    assert caught.value.field == "config"


@pytest.mark.parametrize("client", [redis.Redis(), object(), "redis://h"])
def test_a_client_that_cannot_be_used_is_refused_before_any_operation(client: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ha_session(URL, client=client)
    assert caught.value.field == "client"


@pytest.mark.parametrize(("options", "field"), [({"ttl": 0}, "ttl"), ({"nonsense": 1}, "nonsense")])
def test_an_option_that_cannot_work_names_its_field(options: dict[str, Any], field: str) -> None:
    for given in (URL, HAConfig.from_url(URL), {"nodes": ["h"]}):
        with pytest.raises(ConfigurationError) as caught:
            ha_session(given, **options)
        assert caught.value.field == field


def test_a_session_has_the_id_that_it_is_given() -> None:
    assert ha_session(URL, "u").session_id == "u"
    assert ha_session(URL).session_id != ha_session(URL).session_id


@pytest.mark.parametrize(
    ("given", "limit"), [(None, None), (SessionSettings(limit=3), 3), ({"limit": 3}, 3), ({}, None)]
)
def test_the_sdks_settings_are_taken_as_they_are_and_as_a_mapping(given: Any, limit: int | None) -> None:
    assert sdk_settings(given).limit == limit
    assert ha_session(URL, session_settings=given).session_settings == SessionSettings(limit=limit)


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"limit": "many"}, "session_settings.limit", "Input should be a valid integer"),
        ({"limt": 3}, "session_settings.limt", "there is no such field"),
        ({5: 1}, "session_settings.5", "there is no such field"),
        (5, "session_settings", "must be a mapping, not int"),
    ],
)
def test_settings_that_cannot_work_name_their_field(given: Any, field: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ha_session(URL, session_settings=given)
    assert caught.value.field == field
    assert caught.value.reason.startswith(reason)
