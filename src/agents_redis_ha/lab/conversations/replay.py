"""What a model and its functions said in a recording, as the SDK's own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents import FunctionTool
from agents.items import TResponseOutputItem
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from .recordings import Item

_ANY_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}


class ReplayError(RuntimeError):
    """A model or a function was asked something that the recording holds no answer to."""


def as_output(item: Item) -> TResponseOutputItem:
    """The recorded item as the class in which a model returns it."""
    kind = ResponseFunctionToolCall if item["type"] == "function_call" else ResponseOutputMessage
    return kind.model_validate(item)


def replay_tool(name: str, output_of: Callable[[str], str]) -> FunctionTool:
    """A function that returns what it returned when the conversation was recorded.

    Args:
        name: Its name.
        output_of: Returns the recorded output of a call, by the call's id; a ``KeyError`` means that there was no such
            call, and ends the run with a ``ReplayError``.
    """

    async def invoke(context: ToolContext[Any], arguments: str) -> str:  # noqa: ARG001 (the SDK gives it)
        try:
            return output_of(context.tool_call_id)
        except KeyError:
            raise ReplayError(f"{name} was not called like that in the recording") from None

    return FunctionTool(
        name=name,
        description=f"Replays what {name} returned.",
        params_json_schema=_ANY_ARGUMENTS,
        on_invoke_tool=invoke,
        strict_json_schema=False,
    )
