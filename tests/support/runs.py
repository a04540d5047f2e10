"""Runs of the SDK's real Runner with a model that says what a test tells it to, and tools that answer at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from agents import Agent, ModelResponse, RunConfig, Runner, RunState, Usage, function_tool
from agents.memory import Session
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

QUIET = RunConfig(tracing_disabled=True)
SUMMARY: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what was said"}]}


def says(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id=f"msg_{text}", type="message", role="assistant", status="completed", content=[content]
    )


def calls(name: str, call_id: str, arguments: str = "{}") -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        id=f"fc_{call_id}", type="function_call", call_id=call_id, name=name, arguments=arguments, status="completed"
    )


class ScriptedModel(Model):
    """Answers with the given outputs, one list a call, and remembers what it was asked."""

    def __init__(self, *outputs: list[Any]) -> None:
        self.outputs = list(outputs)
        self.inputs: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.inputs.append(input)
        return ModelResponse(output=self.outputs.pop(0), usage=Usage(), response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        self.inputs.append(input)
        response = Response(
            id="resp", created_at=0, model="scripted", object="response", output=self.outputs.pop(0),
            parallel_tool_calls=False, tool_choice="auto", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)


@function_tool
def weather(city: str) -> str:
    return f"sunny in {city}"


@function_tool(needs_approval=True)
def transfer(amount: int) -> str:
    return f"sent {amount}"


async def interrupted_and_resumed(session: Session) -> Any:
    model = ScriptedModel([calls("transfer", "t1", '{"amount":5}')], [says("done")])
    agent = Agent(name="a", model=model, tools=[transfer])
    result = await Runner.run(agent, "pay", session=session, run_config=QUIET)
    assert result.interruptions
    state = await RunState.from_json(agent, result.to_state().to_json())
    state.approve(state.get_interruptions()[0])
    await Runner.run(agent, state, session=session, run_config=QUIET)
    return model.inputs


def compaction_client(output: list[Any]) -> Any:
    async def compact(**request: Any) -> Any:
        requests.append(request)
        return SimpleNamespace(output=output, usage=None)

    requests: list[Any] = []
    return SimpleNamespace(responses=SimpleNamespace(compact=compact), requests=requests)
