from __future__ import annotations

from itertools import chain, repeat

import pytest

from agents_redis_ha import lab
from agents_redis_ha.lab.waiting import wait_until_complete


def test_wait_until_returns_the_first_true_answer() -> None:
    answers = iter([None, "", "yes", "no"])
    assert lab.wait_until(lambda: next(answers), "a true answer", 5) == "yes"


def test_wait_until_names_the_condition_that_did_not_come_true() -> None:
    with pytest.raises(lab.LabError, match=r"in vain for: the impossible"):
        lab.wait_until(lambda: False, "the impossible", 0.05)


def test_wait_until_takes_an_error_of_the_network_for_not_yet_and_reports_the_last_one() -> None:
    def fail() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(lab.LabError, match="nobody there") as caught:
        lab.wait_until(fail, "an answer", 0.05)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_wait_until_passes_other_errors_on_at_once() -> None:
    def fail() -> bool:
        raise KeyError("a mistake in the test")

    with pytest.raises(KeyError):
        lab.wait_until(fail, "an answer", 5)


def test_wait_until_complete_ends_when_nothing_is_missing() -> None:
    answers = iter(["a replica", "a Sentinel", None])
    wait_until_complete(lambda: next(answers), 5)
    assert list(answers) == []


def test_wait_until_complete_names_what_was_missing_last() -> None:
    answers = chain(["a replica"], repeat("a Sentinel"))
    with pytest.raises(lab.LabError, match="in vain for: a Sentinel"):
        wait_until_complete(lambda: next(answers), 0.05)
