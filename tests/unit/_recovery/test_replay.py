"""What is put back is what was there: random histories, cut back anywhere, against a plain list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from agents_redis_ha._commands.request import APPLIED, CONFLICT, Confirmation, Request, Subject
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from agents_redis_ha._recovery.journal import KEEP_ALL, Effect, Record, Sight, Unit
from agents_redis_ha._recovery.replay import (
    Part,
    Plan,
    Survey,
    fork,
    is_gap,
    make_plan,
    pack,
    parts_of,
    restore,
    survey,
    unpack,
)
from agents_redis_ha._storage.keys import session_keys

TENURE: Any = (SimpleNamespace(name="h:1"), "1f")
SUBJECT = Subject(session_keys("p", "u"), "u", confirmation=Confirmation(1, False, 9))
SEPARATOR = b",4711,"


def an_id(number: int) -> bytes:
    return b"%016d" % number


@dataclass(frozen=True)
class State:
    """A session after a change: what a list model says."""

    version: int
    generation: int
    elements: tuple[bytes, ...]


def after(state: State, effect: Effect) -> State:
    elements = [*state.elements][slice(*effect.keep)] + [*effect.push]
    generation = state.generation + (effect.keep != KEEP_ALL)
    return State(state.version + 1, generation, tuple(elements))


@dataclass(frozen=True)
class History:
    """Changes, and the state after each of them; the first state is the empty session."""

    units: tuple[Unit, ...]
    states: tuple[State, ...]

    @property
    def last(self) -> State:
        return self.states[-1]

    def members(self, first: int, last: int) -> tuple[tuple[int, bytes], ...]:
        return tuple(member for unit in self.units if first <= unit.version <= last for member in unit.members)

    def survey(self, version: int) -> Survey:
        """Return what a server has that knows the history up to a version."""
        state = self.states[version]
        there = self.members(1, version)[::-1]
        return Survey(version, state.generation, len(state.elements), 0, 0.0, there, (), TENURE)

    def sight(self, version: int, count: int) -> Sight:
        """Return what somebody has who read the newest so many elements at a version."""
        state = self.states[version]
        newest = state.elements[max(0, len(state.elements) - count) :]
        members = self.members(1, version)
        length = len(state.elements)
        return Sight(version, state.generation, length, len(newest), SEPARATOR.join(newest), SEPARATOR, members)


def history(effects: Sequence[Effect], results: bool = True) -> History:
    states, units = [State(0, 0, ())], []
    for version, effect in enumerate(effects, start=1):
        before = states[-1]
        popped = effect.keep == (0, -1) and before.elements
        result = before.elements[-1] if popped and results else None
        units.append(Unit(version, an_id(version), an_id(version - 1) if version > 1 else b"", effect, result))
        states.append(after(before, effect))
    return History(tuple(units), tuple(states))


ITEMS = st.lists(st.binary(max_size=3), max_size=3).map(tuple)
APPENDS = st.lists(st.binary(max_size=3), min_size=1, max_size=3).map(lambda items: Effect(push=tuple(items)))
POPS = st.just(Effect(keep=(0, -1)))
CLEARS = st.just(Effect(keep=(0, 0)))
REPLACEMENTS = st.builds(Effect, keep=st.tuples(st.integers(0, 6), st.integers(0, 6)), push=ITEMS)
HISTORIES = st.lists(st.one_of(APPENDS, APPENDS, POPS, CLEARS, REPLACEMENTS), min_size=1, max_size=9).map(history)


def put_back(plan: Plan, state: State) -> State:
    """Return the session after a plan, as rewrite() in prelude.lua makes it."""
    first, last = plan.keep
    kept = state.elements[first:last] if last > first else ()
    return State(plan.version, plan.generation, (*kept, *plan.push))


@given(HISTORIES, st.data())
def test_with_all_changes_the_session_is_what_it_was(made: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    units = data.draw(st.permutations(made.units), label="units")
    plan = make_plan(units, made.survey(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, set(plan.members)) == ((), set(made.members(cut + 1, made.last.version)))


@given(HISTORIES, st.data())
def test_with_a_reading_and_the_changes_behind_it_the_session_is_what_it_was(
    made: History, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.integers(0, made.last.version), label="seen")
    sight = made.sight(seen, 1000)
    parts: list[Part] = [sight, *(unit for unit in made.units if unit.version > max(seen, cut))]
    data.draw(st.randoms(use_true_random=False)).shuffle(parts)
    plan = make_plan(parts, made.survey(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert (plan.missing, set(plan.members)) == ((), set(made.members(cut + 1, made.last.version)))


@given(HISTORIES, st.integers(0, 9), st.data())
def test_a_reading_of_the_newest_elements_is_used_where_it_is_enough_and_never_where_it_is_not(
    made: History, count: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.integers(cut, made.last.version), label="seen")
    sight = made.sight(seen, count)
    plan = make_plan([sight], made.survey(cut), seen)
    appended_only = made.states[seen].generation == made.states[cut].generation
    grown = len(made.states[seen].elements) - len(made.states[cut].elements)
    if sight.count >= sight.length or (appended_only and grown <= sight.count):
        assert plan.missing == ()
        assert put_back(plan, made.states[cut]) == made.states[seen]
        assert set(plan.members) == set(made.members(cut + 1, seen))
    else:
        assert plan.missing == tuple(range(cut + 1, seen + 1))
        assert put_back(plan, made.states[cut]).elements == made.states[cut].elements


@given(HISTORIES, st.integers(0, 9), st.data())
def test_parts_of_any_kind_that_cover_what_is_missing_bring_it_back(
    made: History, count: int, data: st.DataObject
) -> None:
    """All changes are there; readings, full or not, older or newer, may be used or not, and never disturb."""
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    seen = data.draw(st.lists(st.tuples(st.integers(0, made.last.version), st.integers(0, 9)), max_size=3))
    parts: list[Part] = [*made.units, *(made.sight(*each) for each in seen), made.sight(made.last.version, count)]
    data.draw(st.randoms(use_true_random=False)).shuffle(parts)
    plan = make_plan(map(unpack, map(pack, parts)), made.survey(cut), made.last.version)
    assert put_back(plan, made.states[cut]) == made.last
    assert plan.missing == ()


@given(HISTORIES, st.data())
def test_behind_a_hole_only_appends_come_back_and_what_is_missing_is_named(made: History, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, made.last.version), label="cut")
    target = made.last.version + data.draw(st.integers(0, 2), label="beyond")
    known = data.draw(st.sets(st.sampled_from(range(1, made.last.version + 1))), label="known")
    plan = make_plan([unit for unit in made.units if unit.version in known], made.survey(cut), target)
    # The same by a model that makes one change after the other.
    missing: list[int] = []
    elements, generation = [*made.states[cut].elements], made.states[cut].generation
    for version in range(cut + 1, target + 1):
        effect = made.units[version - 1].effect if version in known else None
        assert version in known or effect is None
        if effect is None or (missing and effect.keep != KEEP_ALL):
            missing.append(version)
        else:
            elements = elements[slice(*effect.keep)] + [*effect.push]
            generation += effect.keep != KEEP_ALL
    assert plan.missing == tuple(missing)
    reached = target + bool(missing)  # a change of nothing closes what was given up
    assert put_back(plan, made.states[cut]) == State(reached, generation, tuple(elements))
    assert {version for version, _ in plan.members} == set(range(cut + 1, reached + 1))
    assert {version for version, id_ in plan.members if is_gap(id_)} == {*missing, *range(target + 1, reached + 1)}


@given(HISTORIES, st.data())
def test_a_change_that_cannot_be_made_again_is_as_good_as_missing(made: History, data: st.DataObject) -> None:
    lost = data.draw(st.integers(1, made.last.version))
    units = [replace(unit, effect=None) if unit.version == lost else unit for unit in made.units]
    without = [unit for unit in made.units if unit.version != lost]
    found = made.survey(0)
    with_it, without_it = (make_plan(known, found, made.last.version) for known in (units, without))
    assert replace(with_it, members=()) == replace(without_it, members=())


def test_a_change_that_is_there_already_is_not_made_again() -> None:
    made = history([Effect(push=(b"a",)), Effect(push=(b"b",))])
    plan = make_plan(made.units, made.survey(2), 2)
    assert plan == Plan(2, 0, (0, 2), (), (), ())


def test_a_reading_that_is_newer_than_what_is_to_be_reached_is_not_used() -> None:
    made = history([Effect(push=(b"a",)), Effect(push=(b"b",))])
    assert make_plan([made.sight(2, 9)], made.survey(0), 1).missing == (1,)


def test_of_two_changes_of_one_version_from_two_processes_one_is_made() -> None:
    made = history([Effect(push=(b"a",))])
    plan = make_plan([*made.units, unpack(pack(made.units[0]))], made.survey(0), 1)
    assert (plan.push, plan.members) == ((b"a",), ((1, an_id(1)),))


@given(
    st.builds(
        Unit,
        version=st.integers(0, 2**53),
        id=st.binary(max_size=16),
        before=st.binary(max_size=16),
        effect=st.none()
        | st.builds(
            Effect,
            keep=st.tuples(st.integers(-9, 9), st.none() | st.integers(-9, 9)),
            push=st.lists(st.binary()).map(tuple),
        ),
        result=st.none() | st.binary(),
    )
)
@example(Unit(1, b"", b"", Effect(), b""))
@example(Unit(1, bytes(range(256)), b"\xff\xfe\x00", Effect(push=(b"", b"\x00", bytes(range(256)))), b"\x00"))
def test_a_change_survives_being_parked(unit: Unit) -> None:
    assert replace(unpack(pack(unit)), made_at=unit.made_at) == unit  # type: ignore[type-var]


@given(
    st.builds(
        Sight,
        version=st.integers(0, 2**53),
        generation=st.integers(0, 2**53),
        length=st.integers(0, 99),
        count=st.integers(0, 99),
        joined=st.binary(),
        separator=st.binary(max_size=9),
        members=st.lists(st.tuples(st.integers(0, 2**53), st.binary())).map(tuple),
    )
)
@example(Sight(1, 0, 0, 0, bytes(range(256)), b"", ((1, b"\xff"),)))
def test_a_reading_survives_being_parked(sight: Sight) -> None:
    assert unpack(pack(sight)) == sight


def test_the_newest_elements_of_a_reading_may_be_empty_texts() -> None:
    sight = Sight(1, 0, 5, 3, SEPARATOR.join([b"", b"x", b""]), SEPARATOR)
    assert [sight.newest(count) for count in range(4)] == [[], [b""], [b"x", b""], [b"", b"x", b""]]
    assert Sight(1, 0, 1, 1, b"", SEPARATOR).newest(1) == [b""]


def record(**fields: Any) -> Record:
    return Record(SUBJECT, **fields)


def server(version: int, *ids: tuple[int, bytes]) -> Survey:
    return Survey(version, 0, 1, 0, 0.0, ids, (), TENURE)


def test_equal_histories_and_such_that_have_no_id_in_common_do_not_fork() -> None:
    own = {2: Unit(2, an_id(2), an_id(1), Effect())}
    known = record(version=3, id=an_id(3), units=own, others={1: an_id(1)})
    assert fork(known, server(3, (3, an_id(3)), (2, an_id(2)), (1, an_id(1)))) is None
    assert fork(known, server(2, (2, an_id(2)), (1, an_id(1)))) is None  # it only lost the third
    assert fork(known, server(9, (9, an_id(9)))) is None
    assert fork(known, server(3, (3, an_id(3) + b"a result"))) is None  # no id
    assert fork(record(), server(3, (3, an_id(3)))) is None


@pytest.mark.parametrize("where", [1, 2, 3])
def test_histories_fork_at_the_first_change_that_is_another(where: int) -> None:
    own = {2: Unit(2, an_id(2), an_id(1), Effect())}
    known = record(version=3, id=an_id(3), units=own, others={1: an_id(1)})
    there = [(version, an_id(version if version < where else 90 + version)) for version in (3, 2, 1)]
    assert fork(known, server(3, *there)) == where


def test_the_parts_are_what_is_known_of_the_changes_after_a_version() -> None:
    made = history([Effect(push=(b"%d" % version,)) for version in range(1, 6)])
    known = record(version=5, units={unit.version: unit for unit in reversed(made.units)}, whole=made.sight(3, 9))
    assert parts_of(known, made.survey(2)) == [known.whole, *made.units[2:]]
    assert parts_of(known, made.survey(3)) == [*made.units[3:]]
    assert parts_of(known, made.survey(5)) == []


def test_a_reading_is_none_of_the_parts_where_others_may_have_written_what_is_there() -> None:
    made = history([Effect(push=(b"%d" % version,)) for version in range(1, 6)])
    known = record(version=5, units={5: made.units[4]}, whole=made.sight(5, 9))
    assert parts_of(known, made.survey(2)) == [made.units[4]]
    assert parts_of(known, replace(made.survey(2), members=())) == [known.whole, made.units[4]]


class Run:
    """Takes requests and gives a reply."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.node = SimpleNamespace(name="h:1", replication_id=None, learn=self._learn)
        self.requests: list[Request] = []

    def _learn(self, info: Any) -> None:
        self.node.replication_id = info

    async def __call__(self, request: Request) -> Any:
        request.node = self.node  # type: ignore[assignment]
        self.requests.append(request)
        return self.reply


async def test_a_survey_parks_what_is_known_and_tells_what_is_there() -> None:
    made = history([Effect(push=(b"a",)), Effect(keep=(0, -1))])
    parts: list[Part] = [made.sight(2, 9), *made.units]
    fields = [b"2:change", pack(made.units[1])]
    run = Run([[1, 3, 4, b"7", 1500, [an_id(1) + b"result", b"1", an_id(1), b"1"], fields], "the new id"])
    found = await survey(run, SUBJECT, (2, an_id(2)), parts)
    (asked,) = run.requests
    assert (asked.script.name, asked.knows(), asked.head, asked.lenient) == ("survey", (2, an_id(2)), (), True)
    assert asked.arguments[2::2] == ("2:reading", "1:change", "2:change")
    assert list(asked.arguments[3::2]) == [pack(part) for part in parts]
    assert (found.version, found.generation, found.length) == (1, 3, 4)
    assert (found.claim, found.claim_age_seconds, found.latest) == (7, 1.5, (1, an_id(1)))
    assert found.members == ((1, an_id(1) + b"result"), (1, an_id(1)))
    assert [part.version for part in found.parked] == [2]
    assert found.tenure == (run.node.name, "the new id")  # the server may have been started again since the connection


async def test_a_survey_without_a_claim_says_so() -> None:
    found = await survey(Run([[0, 0, 0, b"", 0, [], []], None]), SUBJECT, (0, b""), [])
    assert (found.claim, found.ids, found.latest, found.parked) == (0, {}, (0, b""), ())


# Whatever the replicas answer: a shortfall must not count as one of the user's operation.
@pytest.mark.parametrize("answer", [1, 0, ResponseError("unknown command 'WAITAOF'")], ids=["all", "short", "error"])
@pytest.mark.parametrize(("status", "done"), [(APPLIED, True), (CONFLICT, False)])
async def test_a_restoration_names_the_state_that_was_surveyed_and_waits_once_for_replicas(
    status: int, done: bool, answer: Any
) -> None:
    made = history([Effect(push=(b"a",)), Effect(push=(b"b",))])
    found = replace(made.survey(1), claim=2)
    plan = make_plan(made.units, found, 2)
    run = Run([[status, 2], answer])
    assert await restore(run, SUBJECT, found, plan) is done
    (asked,) = run.requests
    assert (asked.script.name, asked.knows()) == ("restore", (1, an_id(1)))
    assert asked.arguments == (2, 2, 0, 0, 1, 0, 1, 2, an_id(2), b"b")
    assert (asked.behind, asked.lenient, asked.confirmation) == ((("WAIT", 1, 9),), True, None)


async def test_only_letting_others_write_again_waits_for_no_replica() -> None:
    run = Run([APPLIED, 1])
    found = history([Effect(push=(b"a",))]).survey(1)
    await restore(run, SUBJECT, found, Plan(1, 0, (0, 1), (), (), ()))
    assert (run.requests[0].behind, run.requests[0].confirmation) == ((), None)
