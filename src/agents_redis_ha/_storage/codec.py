"""Item ↔ bytes: one JSON object an element, nothing wrapped around it. Pure.

Writing uses the standard library: exact for big integers, refuses what is not JSON, also NaN and infinities,
which other readers refuse to read. Reading takes them: earlier versions wrote them. Non-ASCII text is stored as
UTF-8 (half the bytes of escapes for Chinese or Japanese). An item with a lone surrogate is escaped: UTF-8 cannot hold
one. Reading uses pydantic-core's parser, which the SDK brings. It is as exact and takes a third of the time. What it
refuses (lone surrogates, nesting over 200) is given to the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from typing import Any

from agents.items import TResponseInputItem
from pydantic import BaseModel
from pydantic_core import from_json, to_jsonable_python

from ..errors import InvalidItemError

__all__ = ["decode_item", "decode_joined", "encode_items", "encode_value"]


def _dump_model(value: object) -> object:
    if isinstance(value, BaseModel):
        # In its JSON mode pydantic makes a null of such a number in a field of type Any.
        _check_numbers(value.model_dump(mode="python", exclude_unset=True, warnings=False))
        return value.model_dump(mode="json", exclude_unset=True, warnings=False)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _check_numbers(value: Any) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number is not finite, which JSON cannot say")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _check_numbers(part)


_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_dump_model)
_ESCAPED = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_dump_model)


def encode_items(items: Iterable[TResponseInputItem]) -> list[bytes]:
    """Return each item as the JSON that is stored for it.

    Args:
        items: Mappings of JSON values; the OpenAI SDK's pydantic models are taken too, as the fields that were set.

    Raises:
        InvalidItemError: An item is no JSON object. Nothing was sent.
    """
    return [_encode(index, item) for index, item in enumerate(items)]


def _encode(index: int, item: object) -> bytes:
    try:
        value = _dump_model(item) if isinstance(item, BaseModel) else item
        if not isinstance(value, dict):
            raise InvalidItemError(index, f"it is a {type(item).__name__}, not a JSON object")
        _check_keys(value)
        return _READABLE.encode(value).encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(value).encode()
    except InvalidItemError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        # The text of json's own errors names types and positions, never a value.
        raise InvalidItemError(index, str(error)) from None


def _check_keys(value: Any) -> None:
    """Refuse keys that are not strings: json would turn them into strings, and two that become equal would be one."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is a {type(key).__name__}, not a text")
            if isinstance(part, (dict, list, tuple)):
                _check_keys(part)
    else:
        for part in value:
            if isinstance(part, (dict, list, tuple)):
                _check_keys(part)


def encode_value(value: object, *, whole: bool = False) -> bytes:
    """Return a value as JSON; a pydantic model as its fields.

    Args:
        value: The value.
        whole: Whether the fields of a model are all of them, also those that were not set; dataclasses are taken then,
            too.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        plain = to_jsonable_python(value) if whole else _dump_model(value) if isinstance(value, BaseModel) else value
        if isinstance(plain, (dict, list, tuple)):
            _check_keys(plain)
        return _READABLE.encode(plain).encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(plain).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def decode_item(element: bytes) -> TResponseInputItem | None:
    """Return the item of one stored element, or None if the element is not a JSON object."""
    try:
        value = from_json(element)
    except ValueError:
        try:
            value = json.loads(element.decode())
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None  # type: ignore[return-value]  # a dict is all a TypedDict is


def decode_joined(joined: bytes, count: int, separator: bytes) -> list[TResponseInputItem | None]:
    """Return the items of ``count`` elements that were joined by ``,<number>,``; None for each corrupt one.

    One parse of the whole reply takes a third of the time that one parse for each element takes. Elements that are not
    JSON by themselves could be JSON once they are joined. The number between them prevents it: no writer knew it.

    Args:
        joined: The elements, in order, with the separator between two of them.
        count: How many elements were joined.
        separator: ``,<number>,`` with a number drawn at random for this one read.
    """
    if not count:
        return []
    marker = int(separator[1:-1])
    try:
        values: Any = from_json(b"[" + joined + b"]")
    except ValueError:
        return [decode_item(element) for element in joined.split(separator)]
    items, markers = values[::2], values[1::2]
    if len(items) == count and markers.count(marker) == len(markers) == count - 1 and set(map(type, items)) == {dict}:
        return items  # type: ignore[no-any-return]
    return [decode_item(element) for element in joined.split(separator)]
