"""The chat service as its clients see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from docket import Docket, Worker
from fleet.app import app
from fleet.jobs import answer_later

from agents_redis_ha import DeadlineExceededError, Outcome, SessionStore, TurnLostError, ha_turn, lab
from agents_redis_ha._recovery import SessionOperations
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


ANSWER = {"text": expected(LONGEST[:1])[-1]["content"][0]["text"]}


def body(conversation: str, name: str = "m1", text: str = LONGEST[0]) -> dict[str, object]:
    return {"conversation": conversation, "id": name, "text": text}


def events(text: str) -> list[tuple[str, Any]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def failure(outcome: Outcome) -> DeadlineExceededError:
    return DeadlineExceededError(
        "too late", operation="turn_finish", topology="sentinel", outcome=outcome, node="redis-1:6379"
    )


@pytest.fixture
def broken_finish(monkeypatch: Any) -> SimpleNamespace:
    """Lets the last step of a turn fail with ``outcome`` as long as there is one: made, unless that says no."""
    state = SimpleNamespace(outcome=None)
    execute = SessionOperations.execute

    async def execute_or_fail(operations: SessionOperations, command: Any, **options: Any) -> Any:
        fails = state.outcome if command.name == "turn_finish" else None
        reply = None if fails is Outcome.NOT_APPLIED else await execute(operations, command, **options)
        if fails:
            raise failure(fails)
        return reply

    monkeypatch.setattr(SessionOperations, "execute", execute_or_fail)
    return state


async def test_a_turn_is_answered(service: Any, conversation: Any, stored: Any) -> None:
    response = await service.post("/turns", json=body(conversation))
    assert response.json() == ANSWER
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


async def test_a_turn_is_streamed_and_ends_with_what_is_stored(service: Any, conversation: Any, stored: Any) -> None:
    response = await service.post("/turns/stream", json=body(conversation))
    *deltas, (last, answer) = events(response.text)
    assert len(deltas) > 3
    assert {name for name, _ in deltas} == {"delta"}
    assert last == "answer"
    assert answer == ANSWER
    assert "".join(str(text) for _, text in deltas).strip().endswith(answer["text"]), "behind what was said on the way"
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


async def test_a_turn_is_answered_by_a_worker(
    service: Any, conversation: Any, stored: Any, labs: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", labs.get("standalone").url)
    job = (await service.post("/jobs", json=body(conversation))).json()["job"]
    waiting = await service.get(f"/jobs/{job}")
    assert (waiting.status_code, waiting.json()) == (202, {"state": "queued"})
    async with Worker(app.state.queue) as worker:
        await worker.run_until_finished()
    assert (await service.get(f"/jobs/{job}")).json() == ANSWER
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))
    assert (await service.post("/turns", json=body(conversation))).json() == ANSWER, "asked for directly"
    assert (await service.get("/jobs/unknown")).status_code == 404


async def test_a_job_that_is_delivered_twice_is_run_once(
    service: Any, conversation: Any, stored: Any, labs: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", labs.get("standalone").url)
    jobs = [(await service.post("/jobs", json=body(conversation))).json()["job"] for _ in range(2)]
    assert jobs[0] != jobs[1]
    async with Worker(app.state.queue) as one, Worker(app.state.queue) as other:
        await asyncio.gather(one.run_until_finished(), other.run_until_finished())
    assert [(await service.get(f"/jobs/{job}")).json() for job in jobs] == [ANSWER, ANSWER]
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


@pytest.mark.parametrize("path", ["/turns", "/turns/stream"])
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_who_meets_a_failure_is_told_to_come_again(
    service: Any, conversation: Any, stored: Any, broken_finish: Any, outcome: Outcome, path: str
) -> None:
    broken_finish.outcome = outcome
    refused = await service.post(path, json=body(conversation))
    told = {"status": 503, "detail": "the turn was not finished: send it again", "outcome": outcome.value}
    if path == "/turns":
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json() == told
    else:
        assert events(refused.text)[-1] == ("error", told)
    assert conversation not in refused.text
    assert "redis-1" not in refused.text

    broken_finish.outcome = None
    assert (await service.post("/turns", json=body(conversation))).json() == ANSWER
    assert shapes(await stored()) == shapes(expected(LONGEST[:1]))


async def test_what_is_of_no_use_to_send_again_has_a_status_of_its_own(
    service: Any, conversation: Any, store: Any
) -> None:
    await service.post("/turns", json=body(conversation))
    other = await service.post("/turns", json=body(conversation, text="something else"))
    assert (other.status_code, "Retry-After" in other.headers) == (409, False)

    session = store.session(conversation)
    with suppress(TurnLostError):
        async with ha_turn(session, "m2", LONGEST[1]) as turn:
            async with ha_turn(store.session(conversation), None, if_busy="rollback"):
                pass
            await turn.session.get_items()
    cancelled = await service.post("/turns", json=body(conversation, "m2", LONGEST[1]))
    assert (cancelled.status_code, "Retry-After" in cancelled.headers) == (409, False)

    await session.clear_session()
    cleared = await service.post("/turns", json=body(conversation))
    assert (cleared.status_code, "Retry-After" in cleared.headers) == (410, False)


async def test_a_stream_that_cannot_begin_tells_the_status_of_its_failure(service: Any, conversation: Any) -> None:
    await service.post("/turns", json=body(conversation))
    other = body(conversation, text="something else")
    streamed = events((await service.post("/turns/stream", json=other)).text)
    assert streamed == [("error", (await service.post("/turns", json=other)).json())]
    assert streamed[0][1]["status"] == 409


@pytest.mark.parametrize("wrong", [{"id": ""}, {"id": 7}, {"text": ""}, {"conversation": "secret id"}])
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
