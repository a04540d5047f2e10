"""On a slow link a transfer takes as long as it takes: what is bounded is silence, and the whole by the deadline."""

from __future__ import annotations

from typing import Any

import pytest
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio import ConnectionPool, Redis
from redis.utils import HIREDIS_AVAILABLE

from agents_redis_ha import PoolConfig, ha_session, lab, session_keys
from tests.support.history import PATIENT, message

BYTES_PER_SECOND = 500_000
# 4 s, more than twice what redis-py would let a whole request or a whole reply take. A busy machine is silent for less.
HISTORY = [message(f"{number:02}" * 10_000) for number in range(100)]
IMPATIENT = PoolConfig(response_timeout_seconds=1.5)


def throttle(proxied: lab.Lab, session_id: str) -> None:
    proxy = proxied.primary(session_keys("agents:ha", session_id).items).proxy
    assert proxy is not None
    proxy.throttle(BYTES_PER_SECOND)


async def test_a_long_history_is_written_and_read_over_a_slow_link(proxied: lab.Lab, session_id: str) -> None:
    session = ha_session(proxied.config(pool=IMPATIENT, retry=PATIENT), session_id)
    await session.add_items(HISTORY[:1])  # the server knows the script then
    throttle(proxied, session_id)
    await session.add_items(HISTORY[1:])
    assert await session.get_items() == HISTORY


@pytest.mark.parametrize("topology", ["standalone"], indirect=True)
@pytest.mark.parametrize("parser", [_AsyncHiredisParser, _AsyncRESP2Parser, _AsyncRESP3Parser])
async def test_whatever_parser_reads_it(proxied: lab.Lab, session_id: str, parser: Any) -> None:
    if parser is _AsyncHiredisParser and not HIREDIS_AVAILABLE:
        pytest.skip("hiredis is not installed")
    address = proxied.config().nodes[0]
    pool = ConnectionPool(host=address.host, port=address.port, socket_timeout=1.5, parser_class=parser)
    async with Redis.from_pool(pool) as own:
        session = ha_session(session_id=session_id, client=own, retry=PATIENT)
        await session.add_items(HISTORY[:1])
        throttle(proxied, session_id)
        await session.add_items(HISTORY[1:])
        assert await session.get_items() == HISTORY
