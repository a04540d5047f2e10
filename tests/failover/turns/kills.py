"""A worker that is killed at each step of a turn, which is delivered again until it is answered."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents_redis_ha import HAConfig, SessionStore, session_keys
from agents_redis_ha._commands import load_script
from agents_redis_ha.lab import Lab, Proxy, wait_until
from agents_redis_ha.lab.conversations import Conversation
from tests.failover.turns.player import PATIENCE_SECONDS, Player, undisturbed
from tests.failover.turns.worker import Delivery, Tools

__all__ = ["MODES", "Kill", "Mode", "killable", "kills_of", "play_all"]

_LEASE_SECONDS = 2.0
_SENT_NEXT = {"arrived": "turn_begin", "called": "turn_save", "answered": "turn_finish"}
_AT_ONCE = 16  # plays: most of the time they wait for the end of a lease


@dataclass(frozen=True)
class Mode:
    """The arguments of `ha_turn` under which a worker is killed."""

    if_unanswered: str
    save: str


MODES = tuple(itertools.starmap(Mode, itertools.product(("resume", "restart"), ("steps", "end"))))


@dataclass(frozen=True)
class Kill:
    """Where a worker is killed.

    Attributes:
        point: Where in the turn: ``arrived``, ``begun``, then of each round ``ran`` (in the tool), ``called`` (before
            it is saved) and ``saved``, then ``answered`` (before the finish) and ``left`` (after it).
        held: Whether it goes on from there, and is killed when the server has made what it sends next (the begin, a
            save, the finish), of which it gets no reply.
    """

    point: str
    held: bool = False

    @property
    def publishes(self) -> bool:
        """Whether the turn is published by then."""
        return self.point == "left" or (self.point == "answered" and self.held)

    def runs_again(self, rounds: int, mode: Mode) -> range:
        """Return the rounds, from 1, whose tools the next attempt runs again."""
        name, _, number = self.point.partition(" ")
        ran = int(number or 0) if name != "answered" else rounds
        saved = ran if name in ("saved", "answered") or self.held else ran - 1
        keeps = mode == Mode("resume", "steps")
        return range(0) if self.publishes else range(max(saved, 0) + 1 if keeps else 1, ran + 1)


def kills_of(delivery: Delivery, mode: Mode) -> list[Kill]:
    """Return every place in a turn at which a worker can be killed."""
    rounds = range(1, len(delivery.rounds) + 1)
    inner = [Kill(f"{name} {number}") for number in rounds for name in ("ran", "called", "saved")]
    held = [Kill(f"called {number}", held=True) for number in rounds if mode.save == "steps"]
    ends = [Kill("answered"), Kill("answered", held=True), Kill("left")]
    return [Kill("arrived"), Kill("arrived", held=True), Kill("begun"), *inner, *held, *ends]


def killable(conversation: Conversation) -> int | None:
    """Return a turn of a conversation that calls tools, in three rounds at most, and answers then; None without one."""
    fitting = [
        (turn.responses, number)
        for number, turn in enumerate(conversation.turns)
        if 1 < turn.responses <= 4 and turn.items[-1].get("role") == "assistant"
    ]
    return max(fitting)[1] if fitting else None


@dataclass(frozen=True)
class Play:
    """One conversation, in one of whose turns a worker is killed once."""

    session: str
    conversation: Conversation
    victim: int
    kill: Kill
    mode: Mode

    def __str__(self) -> str:
        return f"{self.session}: {self.kill}, {self.mode}"

    def delivery(self, number: int) -> Delivery:
        """Return a delivery of one of its turns."""
        options = {**vars(self.mode), "lease_seconds": _LEASE_SECONDS}
        return Delivery(
            session=self.session,
            turn_id=f"{self.session}/{number}",
            conversation=self.conversation,
            number=number,
            options=options,
        )

    @property
    def deliveries(self) -> list[Delivery]:
        """All of them, in order."""
        return [self.delivery(number) for number in range(len(self.conversation.turns))]


def plays(conversations: Sequence[Conversation]) -> Iterator[Play]:
    """Yield all plays of these conversations."""
    for conversation, mode in itertools.product(conversations, MODES):
        victim = killable(conversation)
        assert victim is not None, conversation.conversation_id
        some = Play("", conversation, victim, Kill(""), mode)
        for number, kill in enumerate(kills_of(some.delivery(victim), mode)):
            name = f"{conversation.conversation_id}-{mode.if_unanswered}-{mode.save}-{number}"
            yield replace(some, session=name, kill=kill)


def play_all(servers: Lab, conversations: Sequence[Conversation], log: Path) -> tuple[int, list[str]]:
    """Play all on a single server; return how many plays there were, and what was wrong."""
    found = list(plays(conversations))
    expected = {one.session: undisturbed(*one.deliveries) for one in _first_of_each(found)}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        _warm_up(servers, found[0], log)
        results = threads.map(lambda one: _play(servers, one, expected[_name(one)], log), found)
        return len(found), list(itertools.chain.from_iterable(results))


def _name(play: Play) -> str:
    return play.conversation.conversation_id


def _first_of_each(found: Sequence[Play]) -> list[Play]:
    return [replace(one, session=name) for name, one in {_name(one): one for one in found}.items()]


def _config(servers: Lab, *addresses: str) -> HAConfig:
    fields: dict[str, Any] = {"nodes": list(addresses)} if addresses else {}
    return servers.config(retry={"deadline_seconds": _LEASE_SECONDS}, **fields)


def _warm_up(servers: Lab, play: Play, log: Path) -> None:
    """Let the server know all scripts: what is held back is the reply of a script then, not of a lookup."""
    calm = replace(play, session="warm-up", mode=Mode("resume", "steps"))
    with Player(_config(servers), log) as player:
        for delivery in calm.deliveries:
            player.answer(delivery)


def _play(servers: Lab, play: Play, expected: tuple[list[Any], list[Any]], log: Path) -> list[str]:
    """Return what was wrong."""
    primary = servers.primary()
    results, errors = [], []
    with Proxy(primary.host, primary.port) as proxy, Player(_config(servers, proxy.address), log) as player:
        for delivery in play.deliveries:
            if delivery.number == play.victim:
                _kill(servers, play, player, proxy, log)
            done, failed = player.answer(delivery)
            results.append(done)
            errors += failed
    items, version = asyncio.run(_stored(servers, play))
    history, outputs = expected
    wrong = []
    if items != history:
        wrong.append(f"the history has {len(items)} items, not {len(history)}, or others")
    if version != len(results):
        wrong.append(f"{len(results)} turns were published in {version} changes")
    if [done.output for done in results] != outputs:
        wrong.append("a result is another one than that of the undisturbed run")
    if play.kill.publishes and results[play.victim].status != "repeated":
        wrong.append("the turn was published, and ran again")
    wrong += _wrong_runs(play, Tools(log), is_exact=not errors)
    return [f"{play}: {each}" for each in wrong]


def _kill(servers: Lab, play: Play, player: Player, proxy: Proxy, log: Path) -> None:
    delivery = replace(play.delivery(play.victim), halts=frozenset({play.kill.point}))
    player.halt_at(delivery, play.kill.point)
    if play.kill.held:
        script = load_script(_SENT_NEXT[play.kill.point.partition(" ")[0]]).sha
        proxy.cut_replies(lambda request: script in request)
        before = _progress(servers, play)
        player.go(delivery, play.kill.point)
        wait_until(lambda: _progress(servers, play) != before, "the server to make the change", PATIENCE_SECONDS)
    player.restart()
    proxy.heal()
    if play.kill.held and play.kill.point.startswith("called"):
        Tools(log).note("saved", delivery, delivery.rounds[int(play.kill.point.split()[1]) - 1])


def _progress(servers: Lab, play: Play) -> Any:
    """Return what no renewal of a lease changes: the holder, how much is saved, how much is published."""
    keys = session_keys("agents:ha", play.session)
    client: Any = servers.client(servers.primary())
    saved = sum(name.startswith(b"piece:") for name in client.hkeys(keys.turns))
    return (client.hget(keys.meta, "holder") or b"").split()[:1], saved, client.llen(keys.items)


async def _stored(servers: Lab, play: Play) -> tuple[list[Any], int]:
    async with SessionStore(servers.config()) as store:
        session = store.session(play.session)
        return list(await session.get_items()), int((await session.info()).version)


def _wrong_runs(play: Play, tools: Tools, *, is_exact: bool) -> Iterator[str]:
    """Yield what tools did that they should not.

    Args:
        play: What was played.
        tools: What they wrote down.
        is_exact: Whether no delivery failed but the one that was killed.
    """
    delivery = play.delivery(play.victim)
    noted = [(what, call) for what, turn, call in tools.noted(play.session) if turn == delivery.turn_id]
    if play.mode == Mode("resume", "steps"):
        for at, (what, call) in enumerate(noted):
            if what == "ran" and ("saved", call) in noted[:at]:
                yield f"{call} ran again after its output was saved"
    runs = Counter(call for what, call in noted if what == "ran")
    again = play.kill.runs_again(len(delivery.rounds), play.mode)
    for number, calls in enumerate(delivery.rounds, start=1):
        found = {runs[call] for call in calls}
        # Of tools that run side by side, the process may be killed before the last one has begun.
        wanted = [{2}, {1, 2}] if number in again and play.kill.point == f"ran {number}" else [{1 + (number in again)}]
        if is_exact and found not in wanted:
            yield f"the tools of round {number} ran {sorted(found)} times"
