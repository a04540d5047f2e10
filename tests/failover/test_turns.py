"""Turns in real processes: killed at each step, stopped, fifty on one session, two hundred claims of one approval.

The long form: `python -m tests.failover.turns`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agents_redis_ha import lab
from agents_redis_ha.lab.conversations import load_conversations
from tests.failover.turns.claims import MOMENTS, claim_all
from tests.failover.turns.crowd import run_crowd
from tests.failover.turns.kills import killable, play_all
from tests.failover.turns.queues import Change, order_of_arrival
from tests.failover.turns.stops import Stop, play_stop

faults, proof = pytest.mark.faults, pytest.mark.proof


@faults
@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_at_any_step_leaves_what_an_undisturbed_one_stores(tmp_path: Path) -> None:
    conversations = [one for one in load_conversations(None, 8) if killable(one) is not None]
    with lab.start("standalone") as servers:
        plays, wrong = play_all(servers, conversations[:1], tmp_path / "log")
    assert wrong == []
    assert plays > 40


@faults
@pytest.mark.timeout(600)
def test_fifty_workers_of_one_session_answer_each_turn_whole_once_and_in_order(tmp_path: Path) -> None:
    with lab.start("sentinel") as servers:
        result = run_crowd(servers, tmp_path / "log", each=2, seed=1, replicas=1)
    print(result)
    assert result.wrong == []
    assert result.judged > 0


@faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("grant", "taken_by"),
    [
        pytest.param("stays", "same", marks=proof),
        ("stays", "running"),
        ("stays", "other"),
        pytest.param("stays", "none", marks=proof),
        ("fails over", "other"),
        pytest.param("fails over", "none", marks=proof),
        ("lost", "running"),
        pytest.param("lost", "none", marks=proof),
    ],
)
def test_a_stopped_worker_is_refused_if_another_took_its_turn_and_goes_on_if_none_did(
    tmp_path: Path, grant: str, taken_by: str
) -> None:
    with lab.start("sentinel", links=grant == "lost") as servers:
        assert play_stop(servers, Stop("saved 1", taken_by, grant), "stopped", tmp_path / "log") == []


@faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", [MOMENTS[0], *(pytest.param(each, marks=proof) for each in MOMENTS[1:])])
def test_one_of_two_hundred_claims_gets_the_turn(tmp_path: Path, moment: str) -> None:
    with lab.start("sentinel") as servers:
        result = claim_all(servers, "claimed", tmp_path / "log", moment=moment, seed=1)
    assert result.wrong == []
    assert result.ends.total() == 200


def test_one_that_lost_its_place_without_a_grant_is_known() -> None:
    waiting = [(), ("a",), ("a", "b", "c"), ("b", "c"), ("b", "c"), ("c",), ("c", "d")]
    changes = [Change(each) for each in waiting]
    changes[4] = Change(waiting[4], "a")
    assert order_of_arrival(changes) == (["a", "b", "c", "d"], {"b"})
