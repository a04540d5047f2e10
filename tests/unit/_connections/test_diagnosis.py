"""Why a first contact failed: the language that is spoken at the other end, and files that are not there."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import exceptions as redis_errors

from agents_redis_ha import Address, HAConfig, TLSConfig
from agents_redis_ha._connections import diagnosis
from agents_redis_ha._connections.diagnosis import permanent_cause
from agents_redis_ha._connections.factory import node_client
from agents_redis_ha._connections.failures import AttemptError
from agents_redis_ha._connections.node import Node
from agents_redis_ha.errors import TLSError
from tests.support.fake_nodes import LOST, listening

TLS = TLSConfig(verify=False, check_hostname=False)


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def pong(piece: bytes) -> bytes:
    return b"+PONG\r\n"


def refused(piece: bytes) -> bytes:
    return b"-NOAUTH Authentication required.\r\n"


def close(piece: bytes) -> None:
    return None


def unanswered(piece: bytes) -> bytes:
    return b""


def attempt(cause: BaseException, context: BaseException | None = None) -> AttemptError:
    cause.__context__ = context
    return AttemptError(cause, node="h:1", sent=False)


def lost(context: BaseException | None = None) -> AttemptError:
    return attempt(redis_errors.ConnectionError("Connection closed by server."), context)


async def contact(address: Address, tls: TLSConfig | None) -> tuple[AttemptError, Any]:
    """Return how a first contact fails, and what is found out about it."""
    config = HAConfig(nodes=[address], tls=tls)
    node = Node(str(address), lambda: node_client(config, address))
    with pytest.raises(AttemptError) as caught:
        await node.call(("PING",))
    await node.aclose()
    return caught.value, await permanent_cause(caught.value, address, tls)


async def test_a_server_that_speaks_tls_is_told_from_one_that_crashes(context: ssl.SSLContext) -> None:
    async with listening(pong, context) as address:
        _, found = await contact(address, None)
    assert found is TLSError


ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal: handshake failure, such as without a client certificate


async def test_a_server_that_refuses_the_handshake_speaks_tls_all_the_same() -> None:
    async with listening(lambda piece: ALERT) as address:
        assert await permanent_cause(lost(), address, None) is TLSError


@pytest.mark.parametrize("answer", [pong, refused])
async def test_a_plain_server_that_failed_a_plain_client_may_serve_it_later(answer: Any) -> None:
    async with listening(answer) as address:
        assert await permanent_cause(lost(), address, None) is None


@pytest.mark.parametrize("answer", [close, unanswered])
async def test_a_plain_server_that_breaks_off_may_come_back(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_PROBE_SECONDS", 0.05)
    async with listening(answer) as address:
        assert await permanent_cause(lost(), address, None) is None


@pytest.mark.parametrize("answer", [pong, refused])
async def test_a_server_that_speaks_plain_text_to_a_tls_client_will_not_learn_it(answer: Any) -> None:
    async with listening(answer) as address:
        assert await permanent_cause(lost(), address, TLS) is TLSError


@pytest.mark.parametrize("answer", [close, unanswered])
async def test_a_server_that_is_silent_to_a_tls_client_may_come_back(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_PROBE_SECONDS", 0.05)
    async with listening(answer) as address:
        assert await permanent_cause(lost(), address, TLS) is None


async def test_a_tls_server_that_breaks_off_a_tls_client_may_come_back(context: ssl.SSLContext) -> None:
    async with listening(close, context) as address:
        assert await permanent_cause(lost(), address, TLS) is None


@pytest.mark.parametrize("tls", [None, TLS])
async def test_a_refused_connection_may_be_taken_later_and_is_not_looked_into(
    tls: TLSConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(pong) as address:
        pass  # its port is closed now
    error, found = await contact(address, tls)
    assert (type(error.cause.__context__), found) == (ConnectionRefusedError, None)
    monkeypatch.setattr(asyncio, "open_connection", _never)
    assert await permanent_cause(error, address, tls) is None


async def _never(*where: Any, **how: Any) -> Any:
    raise AssertionError("looked into")


@pytest.mark.parametrize("field", ["ca_file", "cert_file"])
async def test_a_certificate_file_that_is_not_there_is_said(field: str, tmp_path: Path) -> None:
    async with listening(close) as address:
        error, found = await contact(address, TLSConfig(**{field: tmp_path / "missing.pem"}))
    assert found is TLSError
    assert isinstance(error.cause.__context__, FileNotFoundError)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x"), PermissionError(13, "x"), IsADirectoryError(21, "x")])
async def test_a_certificate_file_that_cannot_be_read_needs_no_look(error: OSError) -> None:
    assert await permanent_cause(lost(error), Address("nowhere.invalid", 1), TLS) is TLSError


@pytest.mark.parametrize("cause", [redis_errors.ResponseError("no"), RuntimeError("a bug")])
async def test_what_a_server_said_needs_no_look(cause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "open_connection", _never)
    assert await permanent_cause(attempt(cause), Address("127.0.0.1", 1), None) is None


async def test_a_unix_socket_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "open_connection", _never)
    assert await permanent_cause(attempt(LOST), None, TLS) is None
