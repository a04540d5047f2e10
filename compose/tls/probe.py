"""Says what the client of ``tls.yml`` may not do; exits with 1 if it may do any of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from agents_redis_ha import AgentsRedisError, HAConfig, TLSConfig, TLSError, create_client, ha_session


async def refused(what: str, by: tuple[type[Exception], ...], attempt: Callable[[], Awaitable[Any]]) -> bool:
    """Whether an attempt ends in one of these errors; says so."""
    try:
        await attempt()
    except by as error:
        print(f"{what}: refused ({type(error).__name__})")
        return True
    except (RedisError, AgentsRedisError) as error:
        print(f"{what}: ended otherwise: {error!r}")
        return False
    print(f"{what}: PERMITTED")
    return False


FORBIDDEN = (("GET", "another-key"), ("LRANGE", "other:items", "0", "-1"), ("FLUSHALL",), ("CONFIG", "GET", "*"))


async def main() -> int:
    """Try what must be refused, after something that must not."""
    config = HAConfig.from_env()
    assert config.tls is not None
    bare = config.replace(tls=TLSConfig(ca_file=config.tls.ca_file))
    async with ha_session(config, "probe") as session:
        print(f"a client with its certificate: served ({len(await session.get_items())} items)")
    async with ha_session(bare, "probe") as session:
        kept_out = await refused("a client without a certificate", (TLSError,), session.get_items)
    client: Any = create_client(config)
    try:
        await client.llen("agents:ha:{probe}:items")
        narrow = [
            await refused(
                f"user app, {' '.join(command)}", (NoPermissionError,), partial(client.execute_command, *command)
            )
            for command in FORBIDDEN
        ]
    finally:
        await client.aclose()
    return 0 if kept_out and all(narrow) else 1


sys.exit(asyncio.run(main()))
