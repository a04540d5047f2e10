"""A worker process: runs the turns that it is delivered, with the SDK's Runner, and halts where it was told to."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents import Agent, FunctionTool, RunConfig, Runner, TResponseInputItem
from agents.memory import Session
from agents.tool_context import ToolContext

from agents_redis_ha import HAConfig, claim_turn, close_shared_connections, ha_session, ha_turn
from agents_redis_ha.demo.scripted import ScriptedModel, scripted_agent
from agents_redis_ha.lab.conversations import Conversation
from agents_redis_ha.lab.workers import Parent

__all__ = ["PRELOAD", "Claim", "Delivery", "Done", "Go", "Halted", "Setup", "Tools", "agent_of", "serve"]

PRELOAD = ("agents", "agents_redis_ha", "agents_redis_ha.demo.scripted", "tests.failover.turns.worker")
QUIET = RunConfig(tracing_disabled=True)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is told.

    Attributes:
        config: The servers.
        log: The file in which tools write down that they have run.
    """

    config: HAConfig
    log: Path


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message to answer in a turn.

    Attributes:
        session: The session's id.
        turn_id: The turn's id.
        conversation: What is said.
        number: Which of its turns, from 0.
        mark: What sets its ids apart from those of other deliveries of this turn of the recording.
        options: Arguments of `ha_turn`.
        halts: The points at which to tell the parent, and to wait for its word.
        needs_approval: Whether its tools wait for an approval.
    """

    session: str
    turn_id: str
    conversation: Conversation
    number: int
    mark: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    halts: frozenset[str] = frozenset()
    needs_approval: bool = False

    @property
    def rounds(self) -> list[list[str]]:
        """The ids of the calls of each round of tools."""
        found: list[list[str]] = []
        was_call = False
        for item in self.conversation.turns[self.number].items:
            is_call = item.get("type") == "function_call"
            if is_call:
                found += [] if was_call else [[]]
                found[-1].append(item["call_id"])
            was_call = is_call
        return found


@dataclass(frozen=True)
class Claim:
    """Claims of a turn that waits for an approval, all at once.

    Attributes:
        delivery: The turn.
        first: The number of the first one.
        count: How many.
    """

    delivery: Delivery
    first: int
    count: int


@dataclass(frozen=True)
class Go:
    """The parent's word to go on from a point."""

    turn_id: str
    point: str


@dataclass(frozen=True)
class Halted:
    """A delivery has come to a point, and waits there."""

    turn_id: str
    point: str


@dataclass(frozen=True)
class Done:
    """What became of a delivery.

    Attributes:
        turn_id: The turn's id.
        status: ``computed``, ``repeated``, ``suspended``, or the name of the error.
        output: The turn's result; the error's text.
        attempt: The turn's attempt.
        outcome: The error's.
        number: Of a claim, which one.
    """

    turn_id: str
    status: str
    output: Any = None
    attempt: int = 0
    outcome: str | None = None
    number: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether the turn has its answer."""
        return self.status in ("computed", "repeated")


class Tools:
    """Writes down, outside of the session, which tool calls ran, and which outputs were saved."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def note(self, what: str, delivery: Delivery, calls: Sequence[str]) -> None:
        """Add lines, in one write each: a process that is killed leaves no half of one."""
        file = os.open(self._log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        for call in calls:
            os.write(file, (json.dumps([what, delivery.session, delivery.turn_id, call]) + "\n").encode())
        os.close(file)

    def noted(self, session: str) -> list[tuple[str, str, str]]:
        """Return what was noted of a session, in order: ``ran`` or ``saved``, the turn's id, the call's."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(what, turn, call) for what, where, turn, call in map(json.loads, lines) if where == session]


class Desk:
    """What the deliveries of one process share."""

    def __init__(self, setup: Setup, parent: Parent | None) -> None:
        self.setup, self.tools = setup, Tools(setup.log)
        self._parent = parent
        self._gates: dict[Go, asyncio.Event] = {}

    async def halt(self, delivery: Delivery, point: str) -> None:
        """Wait for the parent's word, if it wants that at this point."""
        if self._parent is not None and point in delivery.halts:
            key = Go(delivery.turn_id, point)
            if key not in self._gates:
                self._parent.send(Halted(delivery.turn_id, point))
            await self._gates.setdefault(key, asyncio.Event()).wait()

    def go(self, word: Go) -> None:
        """Let what waits at a point go on."""
        self._gates.setdefault(word, asyncio.Event()).set()

    def done(self, done: Done) -> None:
        """Tell the parent what became of a delivery."""
        if self._parent is not None:
            self._parent.send(done)


class HaltingSession:
    """The session of a run, which halts around each save of a round."""

    def __init__(self, inner: Session, desk: Desk, delivery: Delivery) -> None:
        self.session_id, self.session_settings = inner.session_id, inner.session_settings
        self._inner, self._desk, self._delivery = inner, desk, delivery

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        return await self._inner.get_items(limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        added: list[Any] = list(items)
        outputs = [item["call_id"] for item in added if item.get("type") == "function_call_output"]
        round_ = _round_of(self._delivery, outputs)
        if round_:
            await self._desk.halt(self._delivery, f"called {round_}")
        await self._inner.add_items(items)
        if round_ and self._delivery.options.get("save") != "end":
            self._desk.tools.note("saved", self._delivery, outputs)
        if round_:
            await self._desk.halt(self._delivery, f"saved {round_}")

    async def pop_item(self) -> TResponseInputItem | None:
        return await self._inner.pop_item()

    async def clear_session(self) -> None:
        await self._inner.clear_session()


def _round_of(delivery: Delivery, calls: Sequence[str]) -> int:
    """Return the number of the round of these calls, from 1; 0 for none."""
    recorded = [call.partition("~")[0] for call in calls]
    return next((number for number, ids in enumerate(delivery.rounds, 1) if set(recorded) & set(ids)), 0)


def agent_of(delivery: Delivery, desk: Desk | None = None, *, needs_approval: bool = False) -> Agent[Any]:
    """Return the agent that says what was recorded, and whose tools write down that they ran."""
    turn = delivery.conversation.turns[delivery.number]
    agent = scripted_agent(delivery.conversation, turn, ScriptedModel(turn, delivery.mark))
    tools = [tool for tool in agent.tools if isinstance(tool, FunctionTool)]
    agent.tools = [_noting(tool, delivery, desk, needs_approval) for tool in tools] if desk else [*tools]
    return agent


def _noting(tool: FunctionTool, delivery: Delivery, desk: Desk, needs_approval: bool) -> FunctionTool:
    async def invoke(context: ToolContext[Any], arguments: str) -> Any:
        desk.tools.note("ran", delivery, [context.tool_call_id])
        await desk.halt(delivery, f"ran {_round_of(delivery, [context.tool_call_id])}")
        return await tool.on_invoke_tool(context, arguments)

    return replace(tool, on_invoke_tool=invoke, needs_approval=needs_approval)


async def run(delivery: Delivery, session: Session, agent: Agent[Any], given: Any) -> Any:
    """Run the agent; return the SDK's result."""
    most = len(delivery.conversation.turns[delivery.number].items) + 1
    return await Runner.run(agent, given, session=session, max_turns=most, run_config=QUIET)


async def serve(setup: Setup, parent: Parent) -> None:
    """Run what is delivered until the parent has no more."""
    for name in ("openai.agents", "agents_redis_ha", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    desk = Desk(setup, parent)
    running: set[asyncio.Task[None]] = set()
    parent.ready()
    async for message in parent.messages():
        if isinstance(message, Go):
            desk.go(message)
            continue
        work = [_deliver(message, desk)] if isinstance(message, Delivery) else _claims(message, desk)
        running.update(asyncio.ensure_future(each) for each in work)
    for task in running:
        task.cancel()
    await asyncio.wait_for(close_shared_connections(), 10)


async def _deliver(delivery: Delivery, desk: Desk) -> None:
    try:
        session = ha_session(desk.setup.config, delivery.session)
        await session.info()  # from here on it is connected
        await desk.halt(delivery, "arrived")
        done = await _answer(delivery, desk, session)
        await desk.halt(delivery, "left")
    except Exception as error:  # noqa: BLE001 (the parent judges it)
        done = _failed(delivery, error)
    desk.done(done)


async def _answer(delivery: Delivery, desk: Desk, session: Any) -> Done:
    message: Any = [delivery.conversation.turns[delivery.number].user_message]
    async with ha_turn(session, delivery.turn_id, message, **delivery.options) as turn:
        if turn.is_answered:
            return Done(delivery.turn_id, "repeated", turn.result, turn.attempt)
        await desk.halt(delivery, "begun")
        agent = agent_of(delivery, desk, needs_approval=delivery.needs_approval)
        result = await run(delivery, HaltingSession(turn.session, desk, delivery), agent, turn.input)
        if result.interruptions:
            await turn.suspend(result.to_state())
            return Done(delivery.turn_id, "suspended", None, turn.attempt)
        turn.answer(result.final_output)
        await desk.halt(delivery, "answered")
    return Done(delivery.turn_id, "computed", turn.result, turn.attempt)


def _claims(claim: Claim, desk: Desk) -> list[Any]:
    return [_claim(claim.delivery, desk, claim.first + number) for number in range(claim.count)]


async def _claim(delivery: Delivery, desk: Desk, number: int) -> None:
    try:
        done = replace(await _approve(delivery, desk), number=number)
    except Exception as error:  # noqa: BLE001 (the parent judges it)
        done = replace(_failed(delivery, error), number=number)
    desk.done(done)


async def _approve(delivery: Delivery, desk: Desk) -> Done:
    agent = agent_of(delivery, desk, needs_approval=True)
    session = ha_session(desk.setup.config, delivery.session)
    async with claim_turn(session, delivery.turn_id, agent, **delivery.options) as turn:
        if turn.is_answered:
            return Done(delivery.turn_id, "repeated", turn.result, turn.attempt)
        await desk.halt(delivery, "begun")
        given = turn.state
        while given is not None:
            for call in given.get_interruptions():
                given.approve(call)
            result = await run(delivery, HaltingSession(turn.session, desk, delivery), agent, given)
            given = result.to_state() if result.interruptions else None
        turn.answer(result.final_output)
        await desk.halt(delivery, "answered")
    return Done(delivery.turn_id, "computed", turn.result, turn.attempt)


def _failed(delivery: Delivery, error: Exception) -> Done:
    outcome = getattr(error, "outcome", None)
    return Done(delivery.turn_id, type(error).__name__, f"{error}"[:300], 0, outcome and str(outcome.value))
