"""Any JSON object comes back exactly, and a corrupt element neither hides nor changes another."""

from __future__ import annotations

import json
import math
import random
import struct
import warnings
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseOutputMessage
from pydantic import BaseModel, RootModel
from pydantic_core import from_json

from agents_redis_ha import InvalidItemError
from agents_redis_ha._storage.codec import decode_item, decode_joined, encode_items


def halves_stand_alone(text: str) -> bool:
    """Whether no two surrogates in it are a pair: JSON cannot tell such a pair from the character that it spells."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text


texts = st.text().filter(halves_stand_alone)  # with lone surrogates
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
items = st.dictionaries(texts, values, max_size=4)
SEPARATOR = b",4711471147114711,"


def same(one: object, other: object) -> bool:
    """Equal in types too: 1, 1.0 and True differ, and so do 0.0 and -0.0, and the order of keys."""
    return repr(one) == repr(other)


def joined(elements: list[bytes], separator: bytes = SEPARATOR) -> list[Any]:
    return decode_joined(separator.join(elements), len(elements), separator)


@given(items)
@example({"\ud800": "\udfff", "ü": "\ude00\ud83d😀"})
@example({"n": 10**400, "m": -(2**63) - 1, "f": 5e-324, "g": 1.7976931348623157e308, "z": -0.0})
@example({"nul": "\x00", "sep": "\u2028\u2029", "": ""})
@example({"1": 1, "1.0": 1.0, "true": True})
def test_any_json_object_comes_back_exactly(item: dict[str, Any]) -> None:
    (element,) = encode_items([item])
    assert same(decode_item(element), item)
    assert same(json.loads(element), item)
    assert b"\n" not in element  # redis-cli shows it on one line


@given(st.lists(items, max_size=4))
@settings(max_examples=50)
def test_any_json_objects_come_back_exactly_from_one_reply(batch: list[Any]) -> None:
    assert same(joined(encode_items(batch)), batch)


def test_two_halves_of_a_character_come_back_as_the_character() -> None:
    assert decode_item(encode_items([{"a": "\ud83d\ude00"}])[0]) == {"a": "😀"}  # the one limit that JSON sets


class Measured(BaseModel):
    value: float
    more: Any = None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda number: {"x": number},
        lambda number: {"x": [{"y": number}], "lone": "\ud800"},
        lambda number: Measured(value=number),
        lambda number: Measured(value=1, more=[{"deep": number}]),
        lambda number: {"x": Measured(value=number)},
    ],
)
def test_what_is_no_json_number_is_refused(wrapped: Any, number: float) -> None:
    with pytest.raises(InvalidItemError) as caught:
        encode_items([{}, wrapped(number)])
    assert caught.value.index == 1


def test_what_an_earlier_version_wrote_as_nan_is_still_read() -> None:
    element = b'{"x":NaN}'
    assert math.isnan(cast("Any", decode_item(element))["x"])
    assert math.isnan(joined([element, b"{}"])[0]["x"])


def test_text_is_stored_as_utf_8_unless_only_an_escape_can_carry_it() -> None:
    assert encode_items([{"a": "日本"}]) == ['{"a":"日本"}'.encode()]
    assert encode_items([{"a": "日\ud800"}]) == [rb'{"a":"\u65e5\ud800"}']


def test_nothing_is_wrapped_around_an_item() -> None:
    item: Any = {"role": "user", "content": [1, 2.5, None]}
    assert encode_items([item]) == [b'{"role":"user","content":[1,2.5,null]}']


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z"))
@example("1e400")
@example("-1e400")
@example("1e-400")
@example("9007199254740993.0")
@example("2.2250738585072011e-308")
@example("0.1e-5")
@example("-0")
@example("-0.0")
def test_the_fast_parser_reads_numbers_as_the_standard_library_does(number: str) -> None:
    assert same(from_json(number), json.loads(number))


def test_the_fast_parser_reads_random_doubles_exactly() -> None:
    drawn = random.Random(1)
    for _ in range(20_000):
        (value,) = struct.unpack("<d", drawn.randbytes(8))
        if math.isfinite(value):
            assert same(from_json(repr(value)), value)


@given(st.binary(max_size=40))
@example(b'{"a":1}x')
@example(b'{"a":1')
@example(b'{"a":"\xff"}')
@example(b"[]")
@example(b"5")
@example(b"")
@example(b'\xef\xbb\xbf{"a":1}')
@example(b'{"a":"\n"}')
@example(b'{"a":0x10}')
@example(b"{'a':1}")
def test_an_element_is_an_object_or_none_and_never_an_error(element: bytes) -> None:
    found = decode_item(element)
    try:
        expected = json.loads(element.decode())
    except (ValueError, RecursionError):
        expected = None
    assert same(found, expected if isinstance(expected, dict) else None)


@pytest.mark.parametrize("nested", [199, 200, 250, 900, 100_000])
def test_a_deep_element_is_read_or_none_and_hides_no_other(nested: int) -> None:
    deep = b'{"a":' + b"[" * nested + b"]" * nested + b"}"
    found = joined([b'{"n":1}', deep, b'{"n":2}'])
    assert (found[0], found[2]) == ({"n": 1}, {"n": 2})
    assert (found[1] is None) is (nested > 10_000)


corrupt = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"",
            b",",
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b'{"a":[',
            b"]}",
            b'{"a":"',
            b'"}',
            b"{},{}",
            b"1",
            b"null",
            b"[{}]",
            b'{"a":1},',
            b"{}]",
            b"\\",
            b"\xff",
            b"/*",
            b" ",
        ]
    ),
)


@given(st.lists(st.one_of(items.map(lambda item: encode_items([item])[0]), corrupt), max_size=6))
@example([b'{"a":[1', b"2]}"])
@example([b'{"a":"', b'"}'])
@example([b'{"a":[', b"]},{}"])
@example([b"{},{}", b""])
@example([b"{}", b"{},5,{}", b"{}"])
@example([b'{"a":[{}', b'{}]},1,{"b":2}', b"{}"])
@example([b"{}", b"null", b"[{}]", b"1"])  # JSON, and no object
@settings(max_examples=120)
def test_corrupt_elements_never_hide_change_or_complete_one_another(elements: list[bytes]) -> None:
    assert same(joined(elements), [decode_item(element) for element in elements])


def test_an_element_that_holds_another_readings_separator_changes_nothing() -> None:
    elements = [b"{}", b"{},123,{}", b'{"a":",123,"}']
    assert joined(elements) == [{}, None, {"a": ",123,"}]


def test_a_marker_that_is_not_the_one_drawn_is_not_believed() -> None:
    # As if an element had been made to look like two with a separator between them: the drawn number does not match.
    forged = b'{"a":1},99,{"b":2}'
    assert decode_joined(forged, 1, b",4711,") == [None]
    assert decode_joined(forged, 2, b",4711,") != [{"a": 1}, {"b": 2}]
    assert decode_joined(b'{"a":1},1.5,{"b":2}', 2, b",1,") != [{"a": 1}, {"b": 2}]


def test_an_empty_reply_is_no_items_and_one_empty_element_is_one() -> None:
    assert decode_joined(b"", 0, SEPARATOR) == []
    assert decode_joined(b"", 1, SEPARATOR) == [None]


class Part(BaseModel):
    text: str
    extra: str | None = None


def test_models_are_stored_as_the_fields_that_were_set() -> None:
    part = Part(text="ü")
    assert encode_items([part, {"inner": [part]}]) == [
        '{"text":"ü"}'.encode(),
        '{"inner":[{"text":"ü"}]}'.encode(),
    ]
    message = ResponseOutputMessage(id="m", content=[], role="assistant", status="completed", type="message")
    assert decode_item(encode_items([message])[0]) == message.model_dump(exclude_unset=True)


def test_a_model_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidItemError):
        encode_items([RootModel[list[int]]([1])])


def test_storing_a_model_that_was_built_without_validation_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode_items([Part.model_construct(text=["s3cr3t"])])
    assert [str(warning.message) for warning in caught] == []


class Stubborn(Mapping[str, str]):
    def __getitem__(self, key: str) -> str:
        return "s3cr3t"

    def __iter__(self) -> Any:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


circular: dict[str, Any] = {"text": "s3cr3t"}
circular["self"] = circular
deep: Any = "s3cr3t"
for _ in range(200_000):
    deep = [deep]


@pytest.mark.parametrize(
    "bad",
    [
        "s3cr3t",
        ["s3cr3t"],
        None,
        5,
        b"s3cr3t",
        ("s3cr3t",),
        Stubborn(),
        {"s3cr3t": object()},
        {"s3cr3t": {1, 2}},
        {"s3cr3t": b"s3cr3t"},
        {("s3cr3t",): 1},
        {"a": Stubborn()},
        Part.model_construct(text=object()),
        Part.model_construct(text=b"s3cr3t\xff"),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_json_object_is_refused_by_its_position_and_without_its_value(bad: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidItemError) as caught:
            encode_items([{"fine": 1}, bad, {"fine": 2}])
    assert caught.value.index == 1
    assert "item 1" in str(caught.value)
    assert "nothing was sent" in str(caught.value)
    for error in (caught.value, caught.value.__cause__):
        assert "s3cr3t" not in f"{error} {error!r} {getattr(error, '__dict__', '')}"


@pytest.mark.parametrize("bad", [circular, {"a": deep}], ids=["circular", "deep"])
def test_an_item_without_an_end_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidItemError) as caught:
        encode_items([bad])
    assert caught.value.index == 0
    assert "s3cr3t" not in str(caught.value)


def test_an_item_whose_keys_are_no_texts_is_refused() -> None:
    with pytest.raises(InvalidItemError):
        encode_items([{1: "a", "1": "b"}])
