"""Many claims of one turn that waits for an approval, from several processes, while the primary is killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents_redis_ha import SessionStore
from agents_redis_ha.lab import Lab
from agents_redis_ha.lab.conversations import load_conversations
from tests.failover.turns.player import PATIENCE_SECONDS, Player, undisturbed
from tests.failover.turns.worker import Claim, Delivery, Done, Go, Halted, Tools

__all__ = ["MOMENTS", "Result", "claim_all"]

MOMENTS = ("among the claims", "begun", "ran 1", "answered")
"""When the primary is killed: while the claims arrive, or while the one that got the turn is at a point of it."""

_LEASE_SECONDS = 60.0


@dataclass
class Result:
    """What became of the claims.

    Attributes:
        ends: How many ended how: ``computed``, ``repeated``, or the name of the error.
        wrong: What was wrong.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def claim_all(
    servers: Lab, session: str, log: Path, *, moment: str, seed: int, processes: int = 4, each: int = 50
) -> Result:
    """Claim a turn that often, kill the primary meanwhile, and judge.

    Args:
        servers: A Sentinel lab.
        session: The session's id.
        log: Where tools write down that they ran.
        moment: One of `MOMENTS`.
        seed: Decides how long after the first claim the primary is killed, if among them.
        processes: How many claim it.
        each: How many claims each of them makes at once.
    """
    conversation = next(one for one in load_conversations(None, 8) if one.turns[0].responses > 1)
    halts = frozenset({moment} - {MOMENTS[0]})
    turn = Delivery(
        session=session, turn_id="approval", conversation=conversation, number=0, halts=halts, needs_approval=True,
        options={"lease_seconds": _LEASE_SECONDS},
    )  # fmt: skip
    config = servers.config(retry={"deadline_seconds": _LEASE_SECONDS}, durability={"replicas": 1})
    old = servers.primary()
    with ExitStack() as stack:
        players = [stack.enter_context(Player(config, log)) for _ in range(processes)]
        players[0].send(replace(turn, halts=frozenset()))
        suspended = players[0].receive()
        assert suspended.status == "suspended", suspended
        for number, player in enumerate(players):
            player.send(Claim(turn, number * each, each))
        if not halts:
            time.sleep(random.Random(seed).uniform(0, 0.3))
            servers.kill(old)
        dones: list[Done] = []
        while len(dones) < processes * each:
            for player in players:
                for said in player.heard(0.02):
                    if isinstance(said, Halted):
                        _kill_once(servers, old)
                        player.send(Go(said.turn_id, said.point))
                    else:
                        dones.append(said)
    return _judge(servers, turn, dones, Tools(log))


def _kill_once(servers: Lab, old: Any) -> None:
    if old.alive:
        servers.kill(old)
        servers.wait_for_new_primary(old, PATIENCE_SECONDS)


def _judge(servers: Lab, turn: Delivery, dones: list[Done], tools: Tools) -> Result:
    result = Result(Counter(done.status for done in dones))
    history, (output,) = undisturbed(turn)
    if result.ends["computed"] != 1:
        result.wrong.append(f"{result.ends['computed']} claims got the turn")
    result.wrong += [f"a claim ended by {done}" for done in dones if not done.is_answered and not _is_refused(done)]
    result.wrong += [f"a claim was answered {done}" for done in dones if done.is_answered and done.output != output]
    runs = Counter(call for what, _, call in tools.noted(turn.session) if what == "ran")
    if runs != Counter(call for round_ in turn.rounds for call in round_):
        result.wrong.append(f"tools ran {runs}")
    items, version = asyncio.run(_stored(servers, turn.session))
    if (items, version) != (history, 1):
        result.wrong.append(f"{len(items)} items are stored in {version} changes, not {len(history)} in one")
    return result


def _is_refused(done: Done) -> bool:
    return (done.status, done.outcome) == ("TurnBusyError", "not_applied")


async def _stored(servers: Lab, session: str) -> tuple[list[Any], int]:
    async with SessionStore(servers.config()) as store:
        stored = store.session(session)
        return list(await stored.get_items()), int((await stored.info()).version)
