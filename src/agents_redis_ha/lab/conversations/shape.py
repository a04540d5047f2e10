"""The one place that says when two items are the same item.

An item that went through a run and a store is compared with the recorded one in its *shape*:

* Fields whose value is ``None`` count as absent: the SDK's models print some of their optional
  fields as nulls, a recording leaves them out.
* The ids of a turn that was sent again carry a mark (``call_7`` becomes ``call_7~2``), because a
  model never gives an id out twice. Without the mark the SDK itself would drop the second copy from
  the model's input, as a repeated id, and a doubled history would go unnoticed. For the comparison
  the mark is taken off again.

Nothing else is forgiven. The ids, the texts, the arguments, the outputs, the ``status``, the
annotations and the order of the items all count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from .recordings import Item

ID_FIELDS = ("id", "call_id")
_MARK = re.compile(r"~\d+$")


def mark_attempt(item: Item, attempt: int) -> Item:
    """Give an item the ids of a later attempt.

    Args:
        item: A recorded item.
        attempt: 1 for the first time that the turn is sent, which leaves the ids as they are.
    """
    if attempt == 1:
        return dict(item)
    fresh = dict(item)
    for field in ID_FIELDS:
        if field in fresh:
            fresh[field] = f"{fresh[field]}~{attempt}"
    return fresh


def unmarked(identifier: str) -> str:
    """The recorded id behind one that ``mark_attempt`` may have changed."""
    return _MARK.sub("", identifier)


def shape(item: Any) -> str:
    """What of an item counts, as text: two items are the same if their shapes are equal."""
    if not isinstance(item, dict):
        return json.dumps(item, ensure_ascii=False, sort_keys=True)
    bare = _without_nulls(item)
    for field in ID_FIELDS:
        if isinstance(bare.get(field), str):
            bare[field] = unmarked(bare[field])
    return json.dumps(bare, ensure_ascii=False, sort_keys=True)


def shapes(items: Iterable[Any]) -> list[str]:
    """The shapes of a history, in its order."""
    return [shape(item) for item in items]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value
