"""What cannot be a turn is refused with a clear error, and loses nothing."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from agents.extensions.memory import EncryptedSession

from agents_redis_ha import (
    HAConfig,
    InvalidResultError,
    OperationError,
    RedisHASession,
    TurnMismatchError,
    WrongKeyTypeError,
    ha_session,
    ha_turn,
    lab,
)
from tests.support.history import History, message, texts
from tests.support.turns import run, whole

QUICK: Any = {"retry": {"deadline_seconds": 1.0}}
standalone = pytest.mark.parametrize("topology", ["standalone"], indirect=True)


@standalone
async def test_the_same_id_with_another_message_is_refused(servers: lab.Lab, session_id: str) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await run(session, "t1")
    with pytest.raises(TurnMismatchError):
        await run(session, "t1", "something else")
    assert await session.get_items() == whole("hello")


class Decision:
    """A decision that would have to be awaited."""

    async def __call__(self, error: BaseException) -> str:
        return "rollback"


async def test_what_cannot_be_is_refused_before_anything_is_sent(session_id: str) -> None:
    session = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    for wrong in (
        {"if_busy": "wait"},
        {"if_unanswered": "go on"},
        {"save": "never"},
        {"on_error": "forget"},
        {"on_error": Decision().__call__},
        {"on_error": functools.partial(Decision().__call__)},
        {"on_error": Decision()},
        {"lease_seconds": 1.0},
        {"wait_seconds": -1.0},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            ha_turn(session, "t1", **wrong)
    for wrong_id in ("", "x" * 513, 7):
        with pytest.raises(ValueError, match="turn_id"):
            ha_turn(session, wrong_id)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="session"):
        ha_turn(object(), "t1")
    with pytest.raises(OperationError):
        await run(ha_session(HAConfig(nodes=["127.0.0.1:1"], **QUICK), session_id), "t1")


@standalone
async def test_a_key_of_another_type_is_met_before_the_first_write(
    servers: lab.Lab, session_id: str, history: History
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    await session.add_items([message("one")])
    keys = session._operations.spec.keys
    servers.client(servers.primary(keys.items)).set(keys.turns, "another application's")
    with pytest.raises(WrongKeyTypeError):
        await session.clear_session()
    with pytest.raises(WrongKeyTypeError):
        await run(session, "t1")
    assert await texts(session) == ["one"]


async def test_sessions_whose_methods_would_be_bypassed_are_refused(session_id: str) -> None:
    class Own(RedisHASession):
        pass

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner, self.session_id = inner, inner.session_id

    session: Any = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    own = Own(HAConfig(nodes=["127.0.0.1:1"]), session_id, session._operations._source)
    with pytest.raises(ValueError, match="bypassed"):
        ha_turn(own, "t1")
    with pytest.raises(ValueError, match="underlying_session"):
        ha_turn(session, "t1", wrap=Wrapper)  # type: ignore[arg-type]


async def test_a_message_and_an_encrypted_session_that_cannot_be_are_refused(session_id: str) -> None:
    session: Any = ha_session(HAConfig(nodes=["127.0.0.1:1"]), session_id)
    encrypted = EncryptedSession(session_id, session, encryption_key="a-test-key")
    with pytest.raises(ValueError, match="message"):
        ha_turn(session, "t1", [{1, 2}])
    with pytest.raises(ValueError, match="wrap"):
        ha_turn(encrypted, "t1", wrap=lambda inner: inner)


@standalone
async def test_a_result_that_is_no_json_or_too_large_leaves_the_turn_as_it_is(
    servers: lab.Lab, session_id: str
) -> None:
    session = ha_session(servers.config(), session_id, ttl=600)
    async with ha_turn(session, "t1") as turn:
        for wrong in (object(), float("nan"), "x" * 65_536):
            with pytest.raises(InvalidResultError):
                turn.answer(wrong)
        assert not turn.is_answered
        turn.answer("\ud800 is no UTF-8")
    assert turn.result == "\ud800 is no UTF-8"
    async with ha_turn(session, "t1") as turn:
        with pytest.raises(ValueError, match="suspend"):
            await turn.suspend(None)  # type: ignore[arg-type]
