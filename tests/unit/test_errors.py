"""Every error of ours says what state the data is in, survives pickling and stands in the tree. No servers."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest
from redis import exceptions as redis_errors

import agents_redis_ha
from agents_redis_ha import errors
from agents_redis_ha.errors import (
    AgentsRedisError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    HistoryLostError,
    InvalidItemError,
    InvalidResultError,
    NotPrimaryError,
    OperationError,
    Outcome,
    ServerRefusedError,
    TurnCancelledError,
    TurnMismatchError,
    TurnNotFoundError,
    lost_in_words,
)

OURS = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, AgentsRedisError)]
OPERATION_ERRORS = [c for c in OURS if issubclass(c, OperationError)]


def operation_error(kind: type[OperationError], **more: Any) -> OperationError:
    given: dict[str, Any] = {"operation": "append", "topology": "cluster", "outcome": Outcome.UNKNOWN, "node": "h:1"}
    versions = {"versions": (4, 6)} if kind is HistoryLostError else {}
    return kind("the reason", **{**given, "attempts": 3, **versions, **more})


@pytest.mark.parametrize("kind", OPERATION_ERRORS, ids=lambda kind: kind.__name__)
def test_a_message_names_operation_topology_node_reason_state_and_what_to_do(kind: type[OperationError]) -> None:
    text = str(operation_error(kind))
    for part in (
        "append failed",
        "cluster node h:1",
        "3 attempts",
        "the reason",
        "may or may not be stored",
        kind.hint,
    ):
        assert part in text
    unchanged = str(operation_error(kind, outcome=Outcome.NOT_APPLIED, node=None, attempts=1))
    for part in ("failed on cluster after 1 attempt:", "the data is unchanged by it"):
        assert part in unchanged
    assert "its change is stored on the primary: do not send it again" in str(
        operation_error(kind, outcome=Outcome.APPLIED)
    )
    assert "None" not in unchanged
    if kind not in (OperationError, ServerRefusedError):
        assert kind.hint.endswith(".")
        assert text.endswith(kind.hint)


@pytest.mark.parametrize("kind", OPERATION_ERRORS, ids=lambda kind: kind.__name__)
def test_an_operation_error_survives_pickling(kind: type[OperationError]) -> None:
    error = operation_error(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)
    assert copy.outcome is Outcome.UNKNOWN
    assert getattr(copy, "versions", (4, 6)) == (4, 6)


OTHERS = [
    ConfigurationError("tls.verify", "no"),
    InvalidItemError(4, "it is a set"),
    ConflictError(3, 4),
    ClosedError("closed"),
    InvalidResultError("no JSON"),
    TurnMismatchError("another message"),
    TurnNotFoundError("not there"),
    TurnCancelledError("cancelled"),
    AgentsRedisError("x"),
]


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_the_other_errors_survive_pickling(error: AgentsRedisError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_every_error_class_is_covered_by_the_pickling_tests() -> None:
    assert set(OURS) == {*map(type, OTHERS), *OPERATION_ERRORS}


def test_errors_are_what_their_callers_expect_to_catch() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidItemError, ValueError)
    assert issubclass(ClosedError, RuntimeError)
    assert not issubclass(NotPrimaryError, (OSError, redis_errors.RedisError))


def test_every_error_class_is_public() -> None:
    assert {kind.__name__ for kind in OURS} <= set(agents_redis_ha.__all__)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            drawn[found[2]] = parents[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in OURS}


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ((4,), "versions 4"),
        ((4, 5, 6), "versions 4-6"),
        ((1, 3, 4, 9), "versions 1, 3-4, 9"),
        (tuple(range(1, 17, 2)), "versions 1, 3, 5, 7, 9, 11, 13, 15"),
        (tuple(range(1, 99, 2)), "versions 1, 3, 5, 7, 9, 11, 13, 15, …"),
    ],
)
def test_versions_are_named_as_ranges_and_only_the_first_few(versions: tuple[int, ...], text: str) -> None:
    assert lost_in_words(versions).endswith(f"({text})")


def test_changes_are_counted_in_words() -> None:
    assert "lost 1 change that" in lost_in_words((7,))
    assert "lost 2 changes that" in lost_in_words((7, 9))
