"""A worker that is stopped in its turn, and goes on after another one has taken the session, or none has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents_redis_ha import SessionStore, session_keys
from agents_redis_ha.lab import Lab, wait_until
from agents_redis_ha.lab.conversations import Conversation, load_conversations
from tests.failover.turns.player import PATIENCE_SECONDS, Player, undisturbed
from tests.failover.turns.worker import Delivery, Done

__all__ = ["POINTS", "Stop", "play_stop"]

POINTS = ("begun", "ran 1", "called 1", "saved 1", "answered")
_LEASE_SECONDS = 5.0


@dataclass(frozen=True)
class Stop:
    """What happens while a worker is stopped.

    Attributes:
        point: Where in its turn it is stopped.
        taken_by: Which turn another worker answers meanwhile: ``same``, ``other`` or ``none``; with ``running`` it has
            begun the same one, and has changed nothing yet.
        grant: What becomes of the server that granted the session: ``stays``, ``fails over`` after the replicas had
            the grant, or is ``lost`` with it.
    """

    point: str
    taken_by: str
    grant: str


def play_stop(servers: Lab, stop: Stop, session: str, log: Path) -> list[str]:
    """Stop a worker, and return what was wrong.

    Args:
        servers: A Sentinel lab; with links, if the grant is to be lost.
        stop: What happens.
        session: The session's id.
        log: Where tools write down that they ran.
    """
    conversation = next(one for one in load_conversations(None, 8) if one.turns[0].responses > 1)
    ours, theirs = (_delivery(session, conversation, name) for name in ("ours", "theirs"))
    config = servers.config(retry={"deadline_seconds": _LEASE_SECONDS})
    old = servers.primary()
    with Player(config, log) as stopped, Player(config, log) as other:
        other.answer(_delivery(session, conversation, "before"))
        servers.wait_replicated(old)
        if stop.grant == "lost":
            for replica in servers.replicas_of(old):
                servers.links.cut_replication(replica)
        stopped.halt_at(replace(ours, halts=frozenset({stop.point})), stop.point)
        stopped.freeze()
        if stop.grant != "stays":
            if stop.grant == "fails over":
                servers.wait_replicated(old)
            servers.kill(old)
            servers.wait_for_new_primary(old, PATIENCE_SECONDS)
        if stop.taken_by == "none":
            _wait_for_end_of_lease(servers, session)
        elif stop.taken_by == "running":
            other.halt_at(replace(ours, halts=frozenset({"begun"})), "begun")
        else:
            other.answer(ours if stop.taken_by == "same" else theirs)
        stopped.thaw()
        stopped.go(ours, stop.point)
        woken: Done = stopped.receive()
        if stop.taken_by == "running":
            other.go(ours, "begun")
            assert other.receive().status == "computed"
        again, _ = other.answer(ours)
    return _judge(servers, conversation, stop, session, (woken, again))


def _delivery(session: str, conversation: Conversation, name: str) -> Delivery:
    mark = ("", "", "before", "ours", "theirs").index(name)
    options = {"lease_seconds": _LEASE_SECONDS}
    return Delivery(session=session, turn_id=name, conversation=conversation, number=0, mark=mark, options=options)


def _wait_for_end_of_lease(servers: Lab, session: str) -> None:
    meta = session_keys("agents:ha", session).meta

    def is_over() -> bool:
        client: Any = servers.client(servers.primary())
        holder = client.hget(meta, "holder")
        return holder is None or int(holder.split()[1]) < client.time()[0] * 1000

    wait_until(is_over, "the lease to end", PATIENCE_SECONDS)


def _judge(servers: Lab, conversation: Conversation, stop: Stop, session: str, said: Sequence[Done]) -> list[str]:
    woken, again = said
    order = ["theirs", "ours"] if stop.taken_by == "other" else ["ours"]
    expected = [item for name in ["before", *order] for item in undisturbed(_delivery(session, conversation, name))[0]]
    wrong = []
    if stop.taken_by == "none" and woken.status != "computed":
        wrong.append(f"no other turn took the session, and it did not go on: {woken}")
    if stop.taken_by != "none" and (woken.status, woken.outcome) != ("TurnLostError", "not_applied"):
        wrong.append(f"another turn took the session, and it was not refused: {woken}")
    if again.status != ("computed" if stop.taken_by == "other" else "repeated"):
        wrong.append(f"delivered again, it was {again}")
    if asyncio.run(_items(servers, session)) != expected:
        wrong.append("the history is not that of the turns one after another")
    return [f"{stop}: {each}" for each in wrong]


async def _items(servers: Lab, session: str) -> list[Any]:
    async with SessionStore(servers.config()) as store:
        return list(await store.session(session).get_items())
