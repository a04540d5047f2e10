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
    assert len({mutant.edits for mutant in MUTANTS}) == len(MUTANTS)
    assert all(bool(mutant.topologies) is not bool(mutant.equivalent) for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_of_the_code(mutant: Mutant) -> None:
    for edit in mutant.edits:
        text = (PACKAGE / edit.file).read_text(encoding="utf-8")
        assert f"\n{text}".count(f"\n{edit.old}") == 1
        assert edit.old != edit.new
