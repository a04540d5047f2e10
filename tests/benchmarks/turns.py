"""What turns are made to do, beside the same runs without one; each function returns one sample, as in `loads`."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from agents import RunConfig, Runner

from agents_redis_ha import ha_turn
from agents_redis_ha.demo.scripted import ScriptedModel, scripted_agent
from agents_redis_ha.lab.conversations import Conversation, Turn, load_conversations
from tests.benchmarks.contenders import Contender
from tests.benchmarks.loads import Load, new_id

WAITING = 50
TOOL_ROUNDS = 2
RUNS = 8
_HOLD_SECONDS = 0.05
_ROUND = ["function_call", "function_call_output"]
_QUIET = RunConfig(tracing_disabled=True)


def _recorded(tool_rounds: int) -> tuple[Conversation, Turn]:
    """Return the first packaged turn with so many rounds of one tool call each, and then the answer."""
    wanted = ["user", *_ROUND * tool_rounds, "message"]
    return next(
        (conversation, turn)
        for conversation in load_conversations(None)
        for turn in conversation.turns
        if [item.get("type") or item["role"] for item in turn.items] == wanted
    )


async def _with_runner(contender: Contender, tool_rounds: int) -> float:
    """One run by the SDK's Runner, of a model and of tools that answer at once: the mean of `RUNS`, on new sessions."""
    conversation, turn = _recorded(tool_rounds)

    async def run(message: Any, session: Any) -> Any:
        agent = scripted_agent(conversation, turn, ScriptedModel(turn))
        result = await Runner.run(agent, message, session=session, run_config=_QUIET)
        return result.final_output

    started = time.perf_counter()
    for _ in range(RUNS):
        await _in_turn(contender, turn, run)
    return (time.perf_counter() - started) / RUNS


async def _without_runner(contender: Contender, tool_rounds: int) -> float:
    """The calls that the Runner makes of a session in such a run, and nothing else: the median of `RUNS`."""
    _, turn = _recorded(tool_rounds)
    items: list[Any] = [*turn.items[1:]]

    async def run(message: Any, session: Any) -> Any:
        await session.get_items()
        await session.add_items(message)
        for at in range(0, len(items), 2):  # a call and its output; the answer comes alone
            await session.add_items(items[at : at + 2])
        return "answered"

    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        await _in_turn(contender, turn, run)
        took.append(time.perf_counter() - started)
    return statistics.median(took)


async def _in_turn(contender: Contender, recorded_turn: Turn, run: Callable[[Any, Any], Awaitable[Any]]) -> None:
    """Run on a new session: in a turn, or without one where the contender has none."""
    session, message = contender.open(new_id()), [recorded_turn.user_message]
    if contender.save is None:
        await run(message, session)
        return
    async with ha_turn(session, "request-1", message, save=contender.save) as turn:  # type: ignore[arg-type]
        turn.answer(await run(turn.input, turn.session))


class Queue:
    """Workers that wait for one session, each with a session object of its own, while a turn has it."""

    def __init__(self) -> None:
        """Make it empty."""
        self._let_go = asyncio.Event()
        self._times: list[tuple[float, float]] = []  # begin and end of each turn, in the order in which they ended
        self._workers: list[asyncio.Task[None]] = []

    async def form(self, name: str, contender: Contender, load: Load) -> float:
        """Let a turn begin, and all workers wait behind it; return how many these are."""
        id_, has_begun = new_id(), asyncio.Event()
        self._let_go.clear()
        self._workers = [asyncio.create_task(self._take_turn(contender, id_, has_begun))]
        await has_begun.wait()
        self._workers += (asyncio.create_task(self._take_turn(contender, id_, has_begun)) for _ in range(WAITING))
        return WAITING

    async def hand_over(self, name: str, contender: Contender, load: Load) -> float:
        """Let the turns go on, one after the other; return the median from one's end to the next one's begin."""
        self._times.clear()
        self._let_go.set()
        await asyncio.gather(*self._workers)
        return statistics.median(begin - end for (_, end), (begin, _) in pairwise(self._times))

    async def _take_turn(self, contender: Contender, session_id: str, has_begun: asyncio.Event) -> None:
        async with ha_turn(contender.open(session_id), None, wait_seconds=600) as turn:
            began = time.perf_counter()
            has_begun.set()
            await self._let_go.wait()
            await asyncio.sleep(_HOLD_SECONDS)
            turn.answer("answered")
            self._times.append((began, time.perf_counter()))


async def processor_seconds(name: str, contender: Contender, load: Load) -> float:
    """How much of a processor this process has used."""
    return time.process_time()


LOADS: dict[str, Callable[[str, Contender, Load], Awaitable[float]]] = {
    "run": lambda name, contender, load: _with_runner(contender, 0),
    "run_with_tools": lambda name, contender, load: _with_runner(contender, TOOL_ROUNDS),
    "calls": lambda name, contender, load: _without_runner(contender, 0),
    "calls_with_tools": lambda name, contender, load: _without_runner(contender, TOOL_ROUNDS),
    "processor_seconds": processor_seconds,
}
