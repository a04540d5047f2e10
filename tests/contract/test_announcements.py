"""The Sentinels' announcements are heard for as long as a session lives, also through a NAT that forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.sentinel import Sentinel

from agents_redis_ha import SessionStore, lab
from tests.support.waiting import eventually

ITEM: Any = {"role": "user", "content": "hello"}
SUBSCRIBE, SWITCH = b"SUBSCRIBE", b"+switch-master"


class Nat:
    """Passes connections on to a server; what it forgets is lost in both directions, and no end is told.

    Attributes:
        subscribed: How often a listener has subscribed.
        announced: How often +switch-master was passed on to a subscriber.
    """

    def __init__(self, node: lab.Node) -> None:
        self._node = node
        self._forgotten: list[list[bool]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.subscribed = 0
        self.announced = 0

    def forget(self) -> None:
        """Lose what comes from now on, on each connection that is open."""
        for flow in self._forgotten:
            flow[0] = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._forgotten.append(flow := [False])
        try:
            from_server, to_server = await asyncio.open_connection(self._node.host, self._node.port)
            self._writers += [writer, to_server]
            await asyncio.gather(self._pass(reader, to_server, flow), self._pass(from_server, writer, flow))
        except OSError:
            pass

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: list[bool]) -> None:
        while piece := await reader.read(65_536):
            if not flow[0]:
                self.subscribed += SUBSCRIBE in piece
                self.announced += SWITCH in piece and b"message" in piece
                writer.write(piece)
        if not flow[0]:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def nats(servers: lab.Lab) -> AsyncIterator[dict[str, Nat]]:
    """Put a NAT in front of each Sentinel; return them by the address to dial."""
    found: dict[str, Nat] = {}
    async with AsyncExitStack() as stack:
        for sentinel in servers.sentinels:
            nat = Nat(sentinel)
            listener = await stack.enter_async_context(await asyncio.start_server(nat.serve, "127.0.0.1", 0))
            found["{}:{}".format(*listener.sockets[0].getsockname())] = nat
            stack.callback(nat.close)
        yield found


@pytest.mark.parametrize("users_client", [False, True], ids=["ours", "users"])
async def test_announcements_are_heard_after_a_nat_forgot_the_listeners_connections(
    session_id: str, users_client: bool
) -> None:
    with lab.start("sentinel") as servers:
        async with nats(servers) as found, AsyncExitStack() as stack:
            config = servers.config(nodes=list(found))
            addresses: list[Any] = [tuple(address.rsplit(":", 1)) for address in found]
            if users_client:
                # It decodes, it retries by itself, and it would wait for ever.
                client = Sentinel(addresses, decode_responses=True).master_for(str(config.service_name))
                stack.push_async_callback(client.aclose)
                store = await stack.enter_async_context(SessionStore(client=client))
            else:
                store = await stack.enter_async_context(SessionStore(config))
            session = store.session(session_id)
            await session.add_items([ITEM])
            await eventually(lambda: all(nat.subscribed for nat in found.values()), "all are listened to")
            for nat in found.values():
                nat.forget()
                nat.subscribed = 0
            await eventually(lambda: all(nat.subscribed for nat in found.values()), "all are listened to again")
            old = servers.primary()
            await asyncio.to_thread(servers.promote, servers.replicas_of(old)[0])
            await eventually(lambda: all(nat.announced for nat in found.values()), "the failover was announced")
            await session.add_items([ITEM])
            assert await session.get_items() == [ITEM, ITEM]
