"""The chat service as its clients see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from docket import Docket, Worker
from fleet.app import app
from fleet.jobs import answer_later
from fleet.turns import Turn

from agents_redis_ha import DeadlineExceededError, Outcome, SessionStore, lab
from agents_redis_ha.lab.conversations import shapes
from tests.support.chat import LONGEST, expected


@pytest.fixture
async def service(store: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The service over a store of the test's, with a queue in memory."""
    async with Docket("test", "memory://") as queue:
        queue.register(answer_later)
        app.state.store, app.state.queue = store, queue
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


def body(conversation: str, position: int = 0, text: str = LONGEST[0]) -> dict[str, object]:
    return {"conversation": conversation, "position": position, "text": text}


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def failure(outcome: Outcome, operation: str = "append") -> DeadlineExceededError:
    return DeadlineExceededError(
        "too late", operation=operation, topology="sentinel", outcome=outcome, node="redis-1:6379"
    )


@pytest.fixture
def broken_appends(monkeypatch: Any) -> SimpleNamespace:
    """Lets additions fail with ``error`` as long as there is one."""
    state = SimpleNamespace(error=None)
    add_items = Turn.add_items

    async def add_or_fail(turn: Turn, items: list[Any]) -> None:
        if state.error:
            raise state.error
        await add_items(turn, items)

    monkeypatch.setattr(Turn, "add_items", add_or_fail)
    return state


async def test_a_turn_is_answered(service: Any, conversation: Any, stored: Any) -> None:
    response = await service.post("/turns", json=body(conversation))
    items = expected(LONGEST[:1])
    assert response.json() == {"text": items[-1]["content"][0]["text"], "position": len(items)}
    assert shapes(await stored()) == shapes(items)


async def test_a_turn_is_streamed_and_ends_with_what_is_stored(service: Any, conversation: Any, stored: Any) -> None:
    response = await service.post("/turns/stream", json=body(conversation))
    *deltas, (last, answer) = events(response.text)
    assert len(deltas) > 3
    assert {name for name, _ in deltas} == {"delta"}
    assert last == "answer"
    assert "".join(str(text) for _, text in deltas).strip().endswith(answer["text"]), "behind what was said on the way"
    assert answer["position"] == len(await stored())


async def test_a_turn_is_answered_by_a_worker(
    service: Any, conversation: Any, stored: Any, labs: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", labs.get("standalone").url)
    job = (await service.post("/jobs", json=body(conversation))).json()["job"]
    waiting = await service.get(f"/jobs/{job}")
    assert (waiting.status_code, waiting.json()) == (202, {"state": "queued"})
    async with Worker(app.state.queue) as worker:
        await worker.run_until_finished()
    answered = await service.get(f"/jobs/{job}")
    assert answered.json()["position"] == len(await stored())
    assert (await service.post("/turns", json=body(conversation))).json() == answered.json(), "asked for directly"
    assert (await service.get("/jobs/unknown")).status_code == 404


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_who_meets_a_failure_is_told_to_come_again(
    service: Any, conversation: Any, stored: Any, broken_appends: Any, outcome: Outcome
) -> None:
    broken_appends.error = failure(outcome)
    plain = await service.post("/turns", json=body(conversation))
    assert (plain.status_code, plain.headers["Retry-After"]) == (503, "1")
    streamed = events((await service.post("/turns/stream", json=body(conversation))).text)[-1]
    assert streamed == ("error", plain.json())
    assert plain.json()["outcome"] == outcome.value
    assert conversation not in plain.text
    assert "redis-1" not in plain.text

    broken_appends.error = None
    assert (await service.post("/turns", json=body(conversation))).status_code == 200
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


async def test_a_stream_that_cannot_begin_has_the_status_of_its_failure(service: Any, conversation: Any) -> None:
    response = await service.post("/turns/stream", json=body(conversation, position=7))
    assert (response.status_code, response.json()["position"]) == (409, 0)


@pytest.mark.parametrize("wrong", [{"position": -1}, {"position": "x"}, {"text": ""}, {"conversation": "secret id"}])
async def test_a_bad_request_is_told_what_is_wrong_but_not_what_it_sent(
    service: Any, conversation: Any, wrong: dict[str, Any]
) -> None:
    response = await service.post("/turns", json=body(conversation) | wrong)
    assert response.status_code == 422
    assert next(iter(wrong)) in response.text
    assert "secret" not in response.text


async def test_it_is_ready_while_turns_can_be_stored(service: Any) -> None:
    assert (await service.get("/health")).status_code == 200
    assert (await service.get("/ready")).json() == {"ready": True, "problems": 0}


async def test_it_lives_but_is_not_ready_without_a_primary(service: Any) -> None:
    with lab.start("standalone") as servers:
        async with SessionStore(servers.config()) as store:
            app.state.store = store
            assert (await service.get("/ready")).status_code == 200
            await asyncio.to_thread(servers.nodes[0].kill)
            unready = await service.get("/ready")
            assert (unready.status_code, unready.json()) == (503, {"ready": False, "problems": 1})
            assert (await service.get("/health")).status_code == 200
