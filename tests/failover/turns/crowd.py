"""Many workers on one session, whose primary is killed, and some of which are killed in their turns."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents_redis_ha import SessionStore, session_keys
from agents_redis_ha.lab import Lab, Node, wait_until
from agents_redis_ha.lab.conversations import Conversation, Turn, load_conversations
from tests.failover.turns.player import PATIENCE_SECONDS, Player, undisturbed
from tests.failover.turns.queues import Change, QueueLog, order_of_arrival, ticket_of
from tests.failover.turns.worker import Delivery, Done, Halted

__all__ = ["Result", "run_crowd"]

VICTIMS = ("begun", "ran 1", "called 1", "saved 1", "answered")
"""Where each of the workers is killed that are: they have processes of their own."""

_SHARING, _SHARED_BY = 5, 9  # so many processes more, with so many workers each: 50 in all
_SESSION = "crowd"
_LEASE_SECONDS = 5.0


@dataclass
class Result:
    """What became of a crowd.

    Attributes:
        turns: How many were to be answered.
        wrong: What was wrong with the history, or with an answer.
        judged: How many turns had a place in the queue, on the server that was promoted, that they kept: those are in
            order.
        lapsed: How many lost it: they had not asked for longer than a place holds.
        errors: The deliveries that failed, before they were answered.
        repeated: How many were answered by an attempt whose reply did not arrive.
    """

    turns: int = 0
    wrong: list[str] = field(default_factory=list)
    judged: int = 0
    lapsed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    repeated: int = 0


def run_crowd(servers: Lab, log: Path, *, each: int, seed: int, replicas: int = 0) -> Result:
    """Let 50 workers answer so many turns each, kill the primary in between, and judge what is stored then.

    Args:
        servers: A Sentinel lab.
        log: Where tools write down that they ran.
        each: How many turns a worker answers.
        seed: Decides which of its turns a worker is killed in, and when the primary is.
        replicas: Of `durability`.
    """
    crew = [
        [_delivery(worker, number) for number in range(each)] for worker in range(len(VICTIMS) + _SHARING * _SHARED_BY)
    ]
    by_process = [[turns] for turns in crew[: len(VICTIMS)]]
    by_process += [crew[at : at + _SHARED_BY] for at in range(len(VICTIMS), len(crew), _SHARED_BY)]
    chance, config = (
        random.Random(seed),
        servers.config(retry={"deadline_seconds": _LEASE_SECONDS}, durability={"replicas": replicas}),
    )
    keys = session_keys("agents:ha", _SESSION)
    with ExitStack() as stack:
        queues = {node: stack.enter_context(QueueLog(servers, node, keys)) for node in servers.nodes}
        players = [stack.enter_context(Player(config, log)) for _ in by_process]
        threads = stack.enter_context(ThreadPoolExecutor(len(players)))
        halts = [*((chance.randrange(each), point) for point in VICTIMS), *[None] * _SHARING]
        driven = [threads.submit(_drive, *those) for those in zip(players, by_process, halts, strict=True)]
        promoted = _kill_primary(servers, chance.uniform(0.1, 0.7) * len(crew) * each)
        ends = [done for each_ in driven for done in each_.result()]
    result = Result(len(crew) * each, errors=Counter(done.status for done in ends if not done.is_answered))
    result.repeated = sum(done.status == "repeated" for done in ends)
    disturbed = {turns[halt[0]].turn_id for turns, halt in zip(crew, halts, strict=False) if halt}
    disturbed |= {done.turn_id for done in ends if not done.is_answered}
    published = _judge_history(servers, [turn for turns in crew for turn in turns], ends, result)
    _judge_order(published, queues[promoted].changes, disturbed, result)
    return result


def _delivery(worker: int, number: int) -> Delivery:
    recorded = [
        turn
        for one in load_conversations(None, 8)
        for turn in one.turns
        if turn.responses == 2 and turn.items[-1].get("role") == "assistant"
    ]
    turn = recorded[(worker + number) % len(recorded)]
    name = f"{worker}.{number}"
    said = {**turn.user_message, "content": f"{name}: {turn.user_message['content']}"}
    return Delivery(
        session=_SESSION,
        turn_id=name,
        conversation=Conversation(name, (Turn((said, *turn.items[1:])),)),
        number=0,
        mark=2 + worker * 1000 + number,
        options={"lease_seconds": _LEASE_SECONDS, "wait_seconds": PATIENCE_SECONDS},
    )


def _drive(player: Player, workers: Sequence[Sequence[Delivery]], halt: tuple[int, str] | None) -> list[Done]:
    """Let a process answer its workers' turns, each worker's one after another; return all that was said."""
    said: list[Done] = []
    left = {turn.turn_id: [*turns[at:]] for turns in workers for at, turn in enumerate(turns)}
    for turns in workers:
        player.send(_with_halt(turns[0], turns, halt))
    open_ = len(workers)
    while open_:
        heard = player.receive()
        turn, *later = left[heard.turn_id]
        if isinstance(heard, Halted):
            player.restart()
            player.send(turn)
            continue
        said.append(heard)
        if not heard.is_answered:
            player.send(turn)
        elif later:
            player.send(_with_halt(later[0], workers[0], halt))
        else:
            open_ -= 1
    return said


def _with_halt(turn: Delivery, turns: Sequence[Delivery], halt: tuple[int, str] | None) -> Delivery:
    return replace(turn, halts=frozenset({halt[1]})) if halt and turns[halt[0]] is turn else turn


def _kill_primary(servers: Lab, after_turns: float) -> Node:
    """Kill the primary when so many turns are published; return the server that was promoted."""
    old = servers.primary()
    client, ops = servers.client(old), session_keys("agents:ha", _SESSION).meta
    wait_until(lambda: int(client.hget(ops, "version") or 0) >= after_turns, "turns to be published", PATIENCE_SECONDS)
    servers.kill(old)
    return servers.wait_for_new_primary(old, PATIENCE_SECONDS)


def _judge_history(servers: Lab, turns: Sequence[Delivery], ends: Sequence[Done], result: Result) -> list[str]:
    """Judge what is stored; return the turns in its order."""
    items, version = asyncio.run(_stored(servers))
    expected = {turn.turn_id: undisturbed(turn) for turn in turns}
    order = list(_split(items, {turn.turn_id: expected[turn.turn_id][0] for turn in turns}, result))
    for turn_id, count in Counter({turn.turn_id: 0 for turn in turns} | Counter(order)).items():
        if count != 1:
            result.wrong.append(f"turn {turn_id} is stored {count} times")
    if version != len(order):
        result.wrong.append(f"{len(order)} turns were published in {version} changes")
    for done in ends:
        if done.is_answered and done.output != expected[done.turn_id][1][0]:
            result.wrong.append(f"turn {done.turn_id} has another result")
    return order


def _split(items: Sequence[Any], expected: dict[str, list[Any]], result: Result) -> Iterator[str]:
    """Yield the turns of a history, in order."""
    at = 0
    while at < len(items):
        turn_id = str(items[at].get("content")).partition(":")[0]
        block = expected.get(turn_id, [])
        if not block or items[at : at + len(block)] != block:
            result.wrong.append(f"from item {at} on, the history is not whole turns: {turn_id}")
            return
        yield turn_id
        at += len(block)


async def _stored(servers: Lab) -> tuple[list[Any], int]:
    async with SessionStore(servers.config()) as store:
        session = store.session(_SESSION)
        return list(await session.get_items()), int((await session.info()).version)


def _judge_order(published: Sequence[str], changes: Sequence[Change], disturbed: set[str], result: Result) -> None:
    """Judge the order of the turns that had a place on the promoted server, and kept it."""
    names = {ticket_of(turn_id): turn_id for turn_id in published}
    arrived, lapsed = order_of_arrival(changes)
    kept = [
        names[ticket]
        for ticket in arrived
        if ticket in names and ticket not in lapsed and names[ticket] not in disturbed
    ]
    found = [turn_id for turn_id in published if turn_id in set(kept)]
    result.judged, result.lapsed = len(kept), len(lapsed)
    if found != kept:
        first = next(at for at, pair in enumerate(zip(found, kept, strict=True)) if pair[0] != pair[1])
        result.wrong.append(f"published in the order {found[first : first + 4]}, arrived as {kept[first : first + 4]}")
