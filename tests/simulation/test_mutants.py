"""Every mutant still fits the code, and some of those that are found soonest are found."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import agents_redis_ha
from tests.simulation.mutants.table import MUTANTS, Mutant

PACKAGE = Path(inspect.getfile(agents_redis_ha)).parent


def test_there_are_forty_mutants_at_least_and_no_two_alike() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_of_the_code(mutant: Mutant) -> None:
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert f"\n{text}".count(f"\n{mutant.old}") == 1
    assert mutant.old != mutant.new
