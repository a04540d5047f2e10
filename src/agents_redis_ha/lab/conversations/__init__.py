"""Recorded conversations: what is said in demonstrations, tests and examples, and when two items are the same.

    from agents_redis_ha.lab.conversations import load_conversations

    for turn in load_conversations(None)[0].turns:
        print(turn.user_message["content"])

Needs nothing but what the package itself needs.
"""

from .recordings import (
    PACKAGED_COPIES,
    Conversation,
    ConversationError,
    Item,
    Turn,
    copies,
    distinct_call_ids,
    is_user_message,
    load_conversations,
    parse_conversations,
    split_turns,
    write_conversations,
)
from .replay import ReplayError, as_output, replay_tool
from .shape import mark_attempt, shape, shapes, unmarked

__all__ = [
    "PACKAGED_COPIES",
    "Conversation",
    "ConversationError",
    "Item",
    "ReplayError",
    "Turn",
    "as_output",
    "copies",
    "distinct_call_ids",
    "is_user_message",
    "load_conversations",
    "mark_attempt",
    "parse_conversations",
    "replay_tool",
    "shape",
    "shapes",
    "split_turns",
    "unmarked",
    "write_conversations",
]
