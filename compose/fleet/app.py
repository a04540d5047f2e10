"""The chat service: any replica takes any turn of any conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from docket import Docket
from docket.execution import ExecutionState
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from agents_redis_ha import (
    AgentsRedisError,
    HAConfig,
    OperationError,
    OutcomeLostError,
    SessionStore,
    TurnCancelledError,
    TurnMismatchError,
)

from . import chat
from .chat import Answer, Message
from .jobs import answer_later, open_queue
from .observability import instrument, telemetry

RETRY_AFTER_SECONDS = 1
TOLD: tuple[type[AgentsRedisError], ...] = (OperationError, TurnMismatchError, TurnCancelledError)
FINISHED = (ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the requests share; the server leaves when the last one was answered."""
    with telemetry():
        async with SessionStore(HAConfig.from_env()) as store, open_queue() as queue:
            app.state.store, app.state.queue = store, queue
            yield


app = FastAPI(title="Chat", lifespan=lifespan)
instrument(app)


def _store(request: Request) -> SessionStore:
    store: SessionStore = request.app.state.store
    return store


def _queue(request: Request) -> Docket:
    queue: Docket = request.app.state.queue
    return queue


Store = Annotated[SessionStore, Depends(_store)]
Queue = Annotated[Docket, Depends(_queue)]


@app.post("/turns")
async def answer(message: Message, store: Store) -> Answer:
    """Answer a message. Sent again under its id after whatever failure, it is answered once."""
    return await chat.answer(store, message)


@app.post("/turns/stream", response_class=EventSourceResponse)
async def stream(message: Message, store: Store) -> AsyncIterator[ServerSentEvent]:
    """Answer a message as it comes: ``delta`` events, then ``answer`` (it is stored) or ``error``."""
    try:
        async with aclosing(chat.stream(store, message)) as pieces:  # left with the client
            async for piece in pieces:
                yield ServerSentEvent(event="delta" if isinstance(piece, str) else "answer", data=piece)
    except TOLD as error:
        yield ServerSentEvent(event="error", data=_what_became(error))


@app.post("/jobs", status_code=202)
async def queue_job(message: Message, queue: Queue) -> dict[str, str]:
    """Have a message answered in the background; returns the job's id."""
    job = await queue.add(answer_later)(message)
    return {"job": job.key}


@app.get("/jobs/{job}", response_model=Answer)
async def fetch_job(job: str, queue: Queue) -> object:
    """Return a job's answer, or 202 while there is none."""
    execution = await queue.get_execution(job)
    if execution is None:
        raise HTTPException(404, "no such job, or its answer was dropped")
    if execution.state not in FINISHED:
        return JSONResponse({"state": execution.state.value}, 202)
    return await execution.get_result()


@app.get("/health")
async def health() -> dict[str, bool]:
    """Whether the process lives."""
    return {"ok": True}


@app.get("/ready")
async def ready(store: Store, response: Response) -> dict[str, object]:
    """Whether turns can be stored now. A lost replica is told as a problem, but turns are still taken."""
    found = await store.health()
    can_write = bool(found.primaries) and all(primary.role == "master" for primary in found.primaries)
    response.status_code = 200 if can_write else 503
    return {"ready": can_write, "problems": len(found.problems)}


async def say_what_became(_: Request, error: Exception) -> JSONResponse:
    """503 where the same request may be sent again, 409 or 410 where that is of no use."""
    told = _what_became(error)
    again = {"Retry-After": str(RETRY_AFTER_SECONDS)} if told["status"] == 503 else None
    return JSONResponse(told, int(told["status"]), again)


for kind in TOLD:
    app.add_exception_handler(kind, say_what_became)


@app.exception_handler(RequestValidationError)
async def say_what_is_wrong(_: Request, error: RequestValidationError) -> JSONResponse:
    """422, without what was sent: it holds the conversation's id."""
    return JSONResponse({"detail": [{"loc": each["loc"], "msg": each["msg"]} for each in error.errors()]}, 422)


def _what_became(error: Exception) -> dict[str, str | int]:
    """Return what became of the turn; the error's own text may go to a log, not to a user."""
    if isinstance(error, OutcomeLostError) and error.outcome == "applied":
        return {"status": 410, "detail": "the turn was answered; its answer is not known any more"}
    if not isinstance(error, OperationError):
        return {"status": 409, "detail": "the turn of this id has another message, or was cancelled"}
    return {"status": 503, "detail": "the turn was not finished: send it again", "outcome": error.outcome.value}
