"""What a server evicts: told by its keyspace notifications, and judged as calls of the server.

A session of which every key was evicted cannot be told from one that was deleted, and counts as that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from redis.client import PubSub

from agents_redis_ha.lab import Node, configure
from tests.failover.campaign.history import Call, Op, Status
from tests.failover.campaign.strike import Strike

_CHANNELS = "__keyevent@0__:"
_LAST = "end of listening"
_GONE = frozenset({"evicted", "del", "expired"})
_ROUNDS = 15
# Other keys on the same servers, so that it takes few keys of the sessions to give back what the connections' buffers
# take and give at random.
_OTHERS = 60
_OTHER_BYTES = 10_000
_EVICTED_BYTES = 100_000


def evict_any(strike: Strike) -> None:
    """The primaries are short of memory 15 times, and evict whatever keys they choose; one reply of eight is lost."""
    _evict(strike, strike.random.choice(("allkeys-random", "allkeys-lru")))


def evict_volatile(strike: Strike) -> None:
    """Likewise, and they evict only keys that expire: what they remember of repeats, and of deletions."""
    _evict(strike, strike.random.choice(("volatile-random", "volatile-lru", "volatile-ttl")))


def _evict(strike: Strike, policy: str) -> None:
    nodes = strike.servers.primaries()
    with ExitStack() as undo:
        told = [undo.enter_context(Evictions(node, strike.prefix).heard()) for node in nodes]
        for node in nodes:
            undo.enter_context(configure(node, maxmemory_policy=policy, maxmemory=0))
        undo.enter_context(strike.replies_cut(strike.one_of_eight))
        for _ in range(_ROUNDS):
            for node in nodes:
                _write_others(node)
                used = int(node.ask("INFO", "memory")["used_memory"])
                node.ask("CONFIG", "SET", "maxmemory", used - _EVICTED_BYTES)
            strike.pause(0.1)
            for node in nodes:
                node.ask("CONFIG", "SET", "maxmemory", 0)
            strike.pause(0.2)
    strike.removals += [removal for each in told for removal in each.removals]
    keys = sum(each.keys for each in told)
    strike.notes.append(f"{policy}: {keys} keys of sessions evicted, {len(strike.removals)} times all of one")


def _write_others(node: Node) -> None:
    with node.client().pipeline(transaction=False) as pipeline:
        for number in range(_OTHERS):
            pipeline.set(f"other:{number}", bytes(_OTHER_BYTES), ex=600)
        pipeline.execute(raise_on_error=False)  # of a cluster's slots, the node has some


class Evictions:
    """Hears which keys a server evicts.

    Attributes:
        keys: How many were evicted.
        removals: The moments at which a session had lost its last key, as calls that removed everything.
    """

    def __init__(self, node: Node, prefix: str) -> None:
        self.keys = 0
        self.removals: list[Call] = []
        self._node = node
        self._prefix = prefix
        self._began = time.monotonic()
        self._present: dict[str, set[str]] = {}
        self._written: dict[str, str] = {}  # by the latest event

    @contextmanager
    def heard(self) -> Iterator[Evictions]:
        """Hear them for the duration of the block, to the last."""
        with (
            configure(self._node, notify_keyspace_events="EA"),
            self._node.client(decode_responses=True) as client,
            client.pubsub() as subscription,
        ):
            subscription.psubscribe(f"{_CHANNELS}*")
            subscription.get_message(timeout=10.0)
            for key in client.scan_iter(f"{self._prefix}:*", count=1_000):
                self.take("found", key)
            thread = threading.Thread(target=self._listen, args=(subscription,), name="evictions", daemon=True)
            thread.start()
            try:
                yield self
            finally:
                client.publish(f"{_CHANNELS}{_LAST}", "")  # in one order with what the server tells by itself
                thread.join()

    def _listen(self, subscription: PubSub) -> None:
        for message in subscription.listen():
            event = message["channel"].removeprefix(_CHANNELS)
            if event == _LAST:
                return
            self.take(event, message["data"])

    def take(self, event: str, key: str) -> None:
        """Follow which keys of a session there are."""
        if not key.startswith(f"{self._prefix}:{{"):
            return
        session, _, part = key.removeprefix(f"{self._prefix}:{{").rpartition("}:")
        present = self._present.setdefault(session, set())
        before = self._written.get(session)
        self._written[session] = "" if event in _GONE else part
        if event not in _GONE:
            # A change writes ops just before. Else a meta that is new is but the fence of a process that misses it.
            if part != "meta" or before == "ops" or event == "found":
                present.add(part)
            return
        was_there = part in present
        present.discard(part)
        if event == "evicted":
            self.keys += 1
            if was_there and not present:
                self.removals.append(self._removal(session))

    def _removal(self, session: str) -> Call:
        """Return a call that removed everything, at some time since the listening began.

        It is heard later than it happens. Nothing says that it stays removed: a process may put the session back.
        """
        return Call(
            worker=self._node.name,
            number=len(self.removals),
            session=session,
            handle=self._node.name,
            op=Op.CLEAR,
            begin=self._began,
            end=time.monotonic(),
            status=Status.UNCONFIRMED,
        )
