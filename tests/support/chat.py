"""What the chat service is asked, and what it stores then."""

from __future__ import annotations

from fleet.chat import recorded_model

from agents_redis_ha.lab.conversations import Item

LONGEST = max(recorded_model().said, key=lambda messages: len(recorded_model().turns_of(messages)[0]))
"""The recorded conversation with the longest first turn: it calls functions several times."""


def expected(messages: list[str]) -> list[Item]:
    return [item for turn in recorded_model().turns_of(messages) for item in turn]
