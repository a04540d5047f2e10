from __future__ import annotations

import pytest

from agents_redis_ha import lab


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
