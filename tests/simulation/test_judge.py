"""The independent judge passes what holds, finds forged violations, and shares no code with the checker."""

from __future__ import annotations

import ast
import inspect
import random
from typing import Any

import pytest

from tests.simulation import judge as judges
from tests.simulation.judge import Event, Item, is_linearizable, judge


def item(name: str, place: int = 0) -> Item:
    return (name[0], int(name[1:]), place)


def call(kind: str, at: float, *, took: float = 0.5, who: str = "a", **details: Any) -> Event:
    return Event(process=who, kind=kind, begin=at, end=at + took, **details)


def append(name: str, at: float, size: int = 1, **details: Any) -> Event:
    return call("append", at, items=tuple(item(name, place) for place in range(size)), **details)


def read(at: float, *shown: Item, **details: Any) -> Event:
    return call("read", at, result=shown, **details)


A1, A2, A3, B1 = item("a1"), item("a2"), item("a3"), item("b1")


def kinds(events: list[Event], *stored: Item | None, may_lose: bool = False) -> set[str]:
    return {finding.kind for finding in judge(events, stored, may_lose=may_lose)}


def test_it_imports_neither_the_checker_nor_the_campaign() -> None:
    tree = ast.parse(inspect.getsource(judges))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert not {name for name in imported if name.startswith(("tests", "agents_redis_ha"))}


@pytest.mark.parametrize("may_lose", [False, True])
def test_a_history_in_order_passes(may_lose: bool) -> None:
    events = [
        append("a1", 1, 2),
        append("b1", 2, who="b"),
        read(3, A1, item("a1", 1), B1),
        call("pop", 4, result=(B1,)),
        read(5, item("a1", 1), limit=1),
        call("replace", 6, items=(A2,)),
        call("clear", 7),
        call("pop", 8),
        append("a3", 9),
    ]
    assert kinds(events, A3, may_lose=may_lose) == set()


def test_calls_at_the_same_time_have_either_order() -> None:
    at_once = [append("a1", 1, took=2), append("b1", 1, took=2, who="b")]
    assert kinds([*at_once, read(4, B1, A1)], B1, A1) == set()
    assert kinds([*at_once, read(4, A1, B1)], A1, B1) == set()
    assert kinds([*at_once, read(2, B1)], B1, A1) == set()


def test_a_call_of_unknown_outcome_may_have_happened_later_or_never() -> None:
    unknown = append("a1", 1, outcome="unknown", took=float("inf"))
    assert kinds([unknown, read(2), append("a2", 3)], A2) == set()
    assert kinds([unknown, read(2), append("a2", 3), read(4, A2, A1)], A2, A1) == set()


FORGED: dict[str, tuple[list[Event], list[Item | None], bool]] = {
    "garbage": ([append("a1", 1), read(2, A1, A2)], [A1], False),
    "garbage, stored": ([append("a1", 1)], [A1, None], True),
    "garbage, popped": ([append("a1", 1), call("pop", 2, result=(A3,))], [A1], True),
    "aborted": ([append("a1", 1, outcome="failed")], [A1], True),
    "aborted, and read behind it": ([append("a1", 1, outcome="failed"), read(2, A1)], [], True),
    "aborted, where servers lose nothing": ([append("a1", 1, took=3, outcome="failed"), read(2, A1)], [], False),
    "duplicate": ([append("a1", 1)], [A1, A1], True),
    "torn": ([append("a1", 1, 2), append("b1", 2)], [A1, B1, item("a1", 1)], True),
    "torn, cut in front": ([append("a1", 1, 2)], [item("a1", 1)], True),
    "overtaken": ([append("a1", 1), append("b1", 2, who="b"), read(3)], [B1, A1], True),
    "overtaken, by one that knew it": (
        [append("a2", 1, who="z"), append("a1", 2), read(3, A1, who="b"), append("b1", 4, who="b")],
        [B1, A1],
        True,
    ),
    "contradiction": ([append("a1", 1, took=3), append("b1", 1, took=3), read(5, A1, B1)], [B1, A1], True),
    "lost": ([append("a1", 1), append("a2", 2)], [A2], True),
    "backwards": ([append("a1", 1, outcome="applied"), read(2, A1), read(3)], [], True),
    "not linearizable: lost": ([append("a1", 1), append("a2", 2)], [A2], False),
    "not linearizable: stale": ([append("a1", 1), read(2)], [A1], False),
    "not linearizable: backwards": ([append("a1", 1, took=9), read(2, A1), read(3)], [A1], False),
    "not linearizable: popped twice": (
        [append("a1", 1), call("pop", 2, result=(A1,)), call("pop", 3, result=(A1,), who="b")],
        [],
        False,
    ),
    "not linearizable: popped out of turn": (
        [append("a1", 1), append("a2", 2), call("pop", 3, result=(A1,))],
        [A2],
        False,
    ),
    "not linearizable: popped and there": ([append("a1", 1), call("pop", 2, result=(A1,))], [A1], False),
    "not linearizable: cleared and there": ([append("a1", 1), call("clear", 2)], [A1], False),
    "not linearizable: reordered": ([append("a1", 1), append("a2", 2)], [A2, A1], False),
    "not linearizable: nothing to pop": ([append("a1", 1), call("pop", 2)], [A1], False),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_violation_is_found(name: str) -> None:
    events, stored, may_lose = FORGED[name]
    assert name.partition(":")[0].partition(",")[0] in kinds(events, *stored, may_lose=may_lose)


def test_what_was_under_way_when_a_server_took_over_may_have_two_places() -> None:
    events = [append("a1", 1, took=0.1, who="a"), append("b1", 1, took=3), read(5, A1, B1)]
    for taken_over, found in [(3.0, set()), (4.05, set()), (4.2, {"contradiction"}), (0.9, {"contradiction"})]:
        assert {each.kind for each in judge(events, [B1, A1], may_lose=True, losses=[taken_over])} == found


def test_what_was_displaced_may_be_put_behind_where_a_process_does_so() -> None:
    events = [append("a1", 1), read(2, A1, who="b"), append("b1", 3, who="b"), read(4, A1, B1)]
    assert kinds(events, B1, A1, may_lose=True) == {"overtaken", "contradiction"}
    stored = [B1, A1]
    assert judge(events, stored, may_lose=True, may_reorder=True) == []
    assert judge([*events, append("a2", 5)], [B1, A1, A1], may_lose=True, may_reorder=True) != []


@pytest.mark.parametrize(
    ("lost_at", "shown", "found"),
    [(7.0, (A1,), 0), (2.5, (A1,), 1), (9.5, (A1,), 1), (7.0, (), 1)],
    ids=["lost while it was under way", "lost before it", "lost behind it", "two items"],
)
def test_a_pop_may_have_taken_an_item_on_a_server_that_was_lost_and_another_one_behind_it(
    lost_at: float, shown: tuple[Item, ...], found: int
) -> None:
    events = [
        append("a1", 1, took=0.1),
        append("a2", 1.5, took=0.1),
        read(2, A1, A2, who="b"),
        call("pop", 3, took=6, result=(B1,)),
        append("b1", 4, took=4, who="c"),
        read(5, *shown, who="b"),
    ]
    kinds = [each.kind for each in judge(events, [A1, A2], may_lose=True, losses=[lost_at])]
    assert kinds == ["backwards"] * found


def test_what_was_refused_in_the_end_may_have_been_there_while_its_caller_waited() -> None:
    assert kinds([append("a1", 1, took=3, outcome="failed"), read(2, A1)], may_lose=True) == set()


def test_what_was_put_back_may_stand_behind_what_a_process_wrote_that_did_not_know_it() -> None:
    behind_a_gap = [append("a2", 1, who="z", outcome="unknown"), append("a1", 2)]
    assert kinds([*behind_a_gap, append("b1", 3, who="b")], B1, A1, may_lose=True) == set()
    told = [read(3, A1, who="b"), call("read", 4, who="b", outcome="lost")]
    assert "overtaken" not in kinds([*behind_a_gap, *told, append("b1", 5, who="b")], B1, A1, may_lose=True)


def test_a_process_that_keeps_nothing_may_write_in_the_place_of_what_it_met() -> None:
    events = [append("a2", 1, who="b"), append("a1", 2), read(3, A2, A1, who="b"), append("b1", 4, who="b")]
    for forgetful, found in [("b", set()), ("a", {"overtaken"})]:
        told = judge(events, [B1, A1], may_lose=True, may_forget=True, forgetful={forgetful})
        assert {each.kind for each in told} == found


@pytest.mark.parametrize(
    ("deleted_at", "taken_over_at", "found"),
    [
        (5, 6, set()),
        (6, 5, set()),
        (None, 6, {"overtaken"}),
        (8, 6, {"overtaken"}),  # what stands in front was begun before that
        (5, 2.7, {"overtaken"}),  # all that had met it have used the session since
        (5, 11, {"overtaken"}),  # and tell a deletion then
    ],
)
def test_what_was_deleted_is_put_back_behind_what_was_begun_since_where_it_is_taken_for_a_loss(
    deleted_at: float | None, taken_over_at: float, found: set[str]
) -> None:
    met = [append("a2", 1, who="z", outcome="unknown"), append("a1", 2), read(3, A1, who="b"), read(4, A1)]
    events = [*met, append("b1", 7, who="b"), read(10, A1, B1)]
    told = judge(
        events,
        [B1, A1],
        may_lose=True,
        may_forget=True,
        losses=[taken_over_at],
        deletions=[] if deleted_at is None else [deleted_at],
    )
    assert {each.kind for each in told} - {"contradiction"} == found


@pytest.mark.parametrize("outcome", ["unknown", "applied", "ok"])
def test_a_replacement_of_unknown_outcome_may_come_behind_what_was_confirmed_since(outcome: str) -> None:
    events = [call("replace", 1, items=(A1,), outcome=outcome), append("a2", 3)]
    assert kinds(events, A1, may_lose=True) == (set() if outcome == "unknown" else {"lost"})


def test_what_is_lost_and_said_is_no_silent_loss() -> None:
    told = append("a2", 3, outcome="lost")
    assert kinds([append("a1", 1), told], may_lose=True) == set()


@pytest.mark.parametrize("seed", range(200))
def test_what_a_list_did_is_linearizable_and_what_it_did_not_is_not(seed: int) -> None:
    chance = random.Random(seed)
    state: list[Item] = []
    events: list[Event] = []
    for number in range(1, 30):
        at = number + chance.random()
        begin, end = at - 2 * chance.random(), at + 2 * chance.random()
        kind = chance.choice(("append", "append", "append", "read", "pop"))
        items: tuple[Item, ...] = ()
        result: tuple[Item, ...] = ()
        if kind == "append":
            items = tuple(("a", number, place) for place in range(chance.randint(1, 3)))
            state += items
        elif kind == "read":
            result = tuple(state)
        elif state:
            result = (state.pop(),)
        events.append(Event(process="a", kind=kind, begin=begin, end=end, items=items, result=result))
    assert judge(events, state, may_lose=False) == []
    certain = [event for event in events if event.kind == "append"]
    if certain:
        forged = Event(process="z", kind="read", begin=100, end=101, result=(("z", 0, 0),))
        assert not is_linearizable([*events, forged])
