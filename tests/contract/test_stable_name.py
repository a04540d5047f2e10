"""Behind a name that stays, another server takes over: new connections reach it, old ones the one of before, unfenced.

So it goes with a proxy, a DNS name or a managed endpoint, and with names that Sentinels or a cluster announce.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from agents_redis_ha import RedisHASession, SessionStore, lab, session_keys
from agents_redis_ha.lab.servers import tls_contexts
from tests.support.history import PATIENT, say, texts

TURNS = 40


class Name:
    """The address of the primary of a session, which can be made to lead to another server."""

    def __init__(self, servers: lab.Lab, other: lab.Lab, session_id: str) -> None:
        self._keys = session_keys("agents:ha", session_id)
        self._before = servers.primary(self._keys.items)
        self._client = servers.client(self._before)
        self.other = other.client(other.nodes[0])
        self._address = (other.nodes[0].host, other.nodes[0].port)
        self._tls = tls_contexts(servers._settings)

    @property
    def proxy(self) -> lab.Proxy:
        assert self._before.proxy is not None
        return self._before.proxy

    def lead_to_the_other(self) -> None:
        """Lead new connections to the other server, which has what the one of before has by now."""
        for key in (self._keys.items, self._keys.meta, self._keys.ops):
            if dump := self._client.dump(key):
                self.other.restore(key, 0, dump)
        self.proxy.use_tls(self._tls[0], None)
        self.proxy.forward_to(*self._address)

    def lead_back(self) -> None:
        self.proxy.forward_to(self._before.host, self._before.port)
        self.proxy.use_tls(*self._tls)
        self.proxy.refuse()
        self.proxy.heal()

    def stored(self) -> int:
        """Return how many elements the other server has."""
        return self.other.llen(self._keys.items)

    def delete(self) -> None:
        self.other.delete(self._keys.items, self._keys.meta, self._keys.ops)


@pytest.fixture(scope="module")
def other() -> Iterator[lab.Lab]:
    with lab.start("standalone") as started:
        yield started


@pytest.fixture
def name(proxied: lab.Lab, other: lab.Lab, session_id: str) -> Iterator[Name]:
    found = Name(proxied, other, session_id)
    yield found
    found.lead_back()


async def two_at_once(ours: RedisHASession, text: str) -> None:
    """Append, and ask for something else at the same time: a second connection is made if there is only one."""
    await asyncio.gather(say(ours, text), ours.info())


async def test_turns_that_the_old_server_confirmed_meanwhile_are_put_back(
    proxied: lab.Lab, name: Name, session_id: str
) -> None:
    async with SessionStore(proxied.config(retry=PATIENT)) as store:
        ours = store.session(session_id)
        await say(ours, "first")
        name.lead_to_the_other()
        for number in range(TURNS):
            await two_at_once(ours, str(number))
        assert await texts(ours) == ["first", *map(str, range(TURNS))]
        assert name.stored() == TURNS + 1


async def test_old_connections_are_left_as_soon_as_a_new_one_has_found_another_server(
    proxied: lab.Lab, name: Name, session_id: str, new_id: Callable[[], str]
) -> None:
    async with SessionStore(proxied.config(retry=PATIENT)) as store:
        ours = store.session(session_id)
        await asyncio.gather(*(ours.info() for _ in range(6)))
        name.lead_to_the_other()
        await asyncio.gather(*(ours.info() for _ in range(12)))
        await say(ours, "one")
        # All connections at once: none of them leads to the server of before.
        await asyncio.gather(*(say(ours, "more") for _ in range(12)))
        assert name.stored() == 13


async def test_what_is_deleted_behind_a_name_that_led_elsewhere_stays_deleted(
    proxied: lab.Lab, name: Name, session_id: str
) -> None:
    async with SessionStore(proxied.config(retry=PATIENT)) as store:
        ours = store.session(session_id)
        await say(ours, "one")
        name.lead_to_the_other()
        await two_at_once(ours, "two")
        assert await texts(ours) == ["one", "two"]
        name.delete()
        assert await texts(ours) == []
